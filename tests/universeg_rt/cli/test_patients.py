"""A DICOM series through the whole command: the answer is a Segmentation of it, and nothing that says who the patient
is stands in the report, the page, the log or the output."""

from __future__ import annotations

import json
import logging
import shutil

import numpy as np
import pytest

pytest.importorskip("highdicom", reason="DICOM needs highdicom: pip install '.[medical]'")
import pydicom

from universeg_rt.cli.segment import main
from universeg_rt.volumes.reading import read_labels, read_volume
from universeg_rt.volumes.writing import write_labels

from ..volumes.made import MARKER, named, write_series

FRAMES, SIZE = 6, (24, 20)


def series(folder, seed: int) -> np.ndarray:
    """A series whose headers hold the marker wherever they say who the patient is; its true mask."""
    random = np.random.default_rng(seed)
    mask = np.zeros((FRAMES, *SIZE), np.uint8)
    mask[1:5, 6:14, 5:15] = 1
    write_series(folder, frames=FRAMES, size=SIZE, values=random.integers(0, 50, mask.shape) + 200 * mask,
                 change=lambda one, index: named(one))
    return mask


@pytest.fixture
def case(tmp_path, small_bundle):
    for part, seed in (("support", 0), ("scans", 1)):
        mask = series(tmp_path / part / "images" / "p1", seed)
        volume = read_volume(tmp_path / part / "images" / "p1")
        (tmp_path / part / "labels").mkdir()
        write_labels(tmp_path / part / "labels" / "p1.dcm", mask, {1: "liver"}, volume)
    return tmp_path, ["--bundle", str(small_bundle), "--support", str(tmp_path / "support"), "--input",
                      str(tmp_path / "scans" / "images"), "--output", str(tmp_path / "out"), "--axis", "axial",
                      "--window", "0", "300", "--html", "--probabilities", "--truth",
                      str(tmp_path / "scans" / "labels")]


def test_the_answer_is_a_segmentation_and_says_nothing_of_the_patient(case, capfd, caplog):
    folder, arguments = case
    (folder / "scans" / "images" / "broken").mkdir()
    source = next((folder / "scans" / "images" / "p1").iterdir())
    (folder / "scans" / "images" / "broken" / "cut.dcm").write_bytes(source.read_bytes()[:-40])
    with caplog.at_level(logging.DEBUG):
        assert main(arguments) == 1, "one series is broken"
    said = capfd.readouterr()
    source = pydicom.dcmread(source)
    out = folder / "out"
    text = [said.out, said.err, caplog.text, *(
        path.read_bytes().decode("latin-1") for path in out.rglob("*") if path.is_file() and path.suffix != ".dcm")]
    for word in (MARKER[:16], MARKER, source.SOPInstanceUID, source.StudyInstanceUID, source.SeriesInstanceUID,
                 str(source.StudyDate), str(source.PatientBirthDate)):
        for each in text:
            assert not word or word not in each
    assert (out / "report.html").is_file() and "1 of 2 images segmented" in said.out

    volume = read_volume(folder / "scans" / "images" / "p1")
    found = read_labels(out / "masks" / "p1.dcm", volume)
    assert found.names == {1: "liver"}
    segments = pydicom.dcmread(out / "masks" / "p1.dcm")
    assert segments.SegmentationType == "BINARY" and segments.NumberOfFrames == FRAMES
    assert (out / "probabilities" / "p1.nii.gz").is_file()


def test_headers_that_a_segmentation_cannot_bear_give_nifti_and_a_note(case):
    folder, arguments = case
    for file in (folder / "scans" / "images" / "p1").iterdir():
        image = pydicom.dcmread(file)
        del image.StudyInstanceUID
        image.save_as(file)
    assert main(arguments) == 0
    (row,) = json.loads((folder / "out" / "report.json").read_text())["images"]
    assert row["mask"] == ["masks/p1.nii.gz"] and (folder / "out" / "masks" / "p1.nii.gz").is_file()
    assert any("cannot be referenced by a DICOM Segmentation" in note for note in row["notes"])
    assert row["labels"]["liver"]["dice"] >= 0


def test_segmentations_beside_the_images_are_no_queries(case):
    folder, arguments = case
    (folder / "scans" / "images" / "answers").mkdir()
    shutil.copy(folder / "scans" / "labels" / "p1.dcm", folder / "scans" / "images" / "answers" / "seg.dcm")
    assert main(arguments) == 0
    report = json.loads((folder / "out" / "report.json").read_text())
    assert [row["name"] for row in report["images"]] == ["p1"]
    assert any("1 DICOM Segmentation in --input left out" in note for note in report["input_notes"])


def test_a_ct_without_a_window_has_a_note(case):
    folder, arguments = case
    place = arguments.index("--window")
    assert main([*arguments[:place], *arguments[place + 3:]]) == 0
    assert "a CT without a window" in (folder / "out" / "report.html").read_text()


def test_segments_keep_their_values_across_files(case):
    """A truth whose segments are numbered otherwise is matched by name."""
    folder, arguments = case
    volume = read_volume(folder / "scans" / "images" / "p1")
    mask = read_labels(folder / "scans" / "labels" / "p1.dcm", volume).values
    other = np.where(np.asarray(mask) != 0, 2, 0).astype(np.uint8)
    other[0, 0, 0] = 1
    write_labels(folder / "scans" / "labels" / "p1.dcm", other, {1: "spleen", 2: "liver"}, volume)
    assert main(arguments) == 0
    import json

    (row,) = json.loads((folder / "out" / "report.json").read_text())["images"]
    answer = np.asarray(read_labels(folder / "out" / row["mask"][0], volume).values) == 1
    truth = other == 2
    assert row["labels"]["liver"]["dice"] == pytest.approx(2 * (answer & truth).sum() / (answer.sum() + truth.sum()))
