"""What is made of a volume's maps: cleaned masks, scores, confidence, notes."""

from __future__ import annotations

import csv
import json
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

nibabel = pytest.importorskip("nibabel", reason="volumes need nibabel: pip install '.[medical]'")

from universeg_rt.answers.absence import ABSENT_BELOW
from universeg_rt.answers.postprocess import parse_steps
from universeg_rt.cli import volume_results
from universeg_rt.cli.results import lowest_confidence
from universeg_rt.cli.segment import main

from .test_volumes import NAME, case, head, row_of, write  # noqa: F401 (a fixture)


@pytest.mark.parametrize("steps", [["largest-component-3d", "fill-holes"], ["smooth=1", "minimum-size=4"]])
def test_steps_clean_up_and_are_named(case, steps):
    folder, arguments = case
    assert main([*arguments, "--post", *steps]) == 0
    report = json.loads((folder / "out" / "report.json").read_text())
    assert report["post"] == steps
    labels = np.asarray(nibabel.load(folder / "out" / row_of(folder)["mask"][0]).dataobj)
    if "largest-component-3d" in steps:
        from scipy import ndimage

        assert all(ndimage.label(labels == value)[1] <= 1 for value in (2, 5))


def test_slices_of_the_support_are_not_scored(case):
    folder, arguments = case
    image, labels = head(1)
    write(folder / "scans" / "p1" / f"{NAME}.nii.gz", image)
    write(folder / "truth" / "p1" / f"{NAME}.nii.gz", labels)
    assert main([*arguments, "--truth", str(folder / "truth")]) == 0
    row = row_of(folder)
    assert row["in_support"] == 4 and "4 of 12 slices are in the support; they are not scored" in row["notes"]


@pytest.mark.parametrize("how", [["--refine", "window"], ["--region", "2", "2", "22", "20"]], ids=lambda how: how[0])
def test_slices_of_the_support_are_known_where_it_looks_again(case, how):
    folder, arguments = case
    image, labels = head(1)
    write(folder / "scans" / "p1" / f"{NAME}.nii.gz", image)
    write(folder / "truth" / "p1" / f"{NAME}.nii.gz", labels)
    assert main([*arguments, "--truth", str(folder / "truth"), *how]) == 0
    assert row_of(folder)["in_support"] == 4


def test_smoothing_leaves_emptied_slices_empty():
    facts = [{"unseen": "blank" * (i == 2), "absent": ["a"] * (i == 5)} for i in range(8)]
    maps = {f"probability{value}": np.full((8, 3, 3), 0.9, np.float32) for value in (1, 2)}
    opened = SimpleNamespace(smooths=True, steps=parse_steps(["smooth=1"]))
    found = volume_results._probabilities(SimpleNamespace(
        partial=SimpleNamespace(maps=maps, facts=facts), values={"a": 1, "b": 2}, opened=opened))
    assert [i for i in range(8) if not found["a"][i].any()] == [2, 5] and (found["a"][[0, 1, 3, 4, 6, 7]] > 0.5).all()
    assert [i for i in range(8) if not found["b"][i].any()] == [2] and (maps["probability1"] == np.float32(0.9)).all()


def test_the_table_and_the_report_agree_with_a_smoothed_mask(case):
    folder, arguments = case
    for options in ([], ["--absent-below", "1"]):
        assert main([*arguments, "--post", "smooth=1", *options]) == 0
        row = row_of(folder)
        with open(folder / "out" / row["table"]) as file:
            lines = list(csv.DictReader(file))
        values = np.asarray(nibabel.load(folder / "out" / row["mask"][0]).dataobj)
        for name, value in (("label 2", 2), ("label 5", 5)):
            own = [line for line in lines if line["label"] == name]
            pixels = [int((values[:, :, i] == value).sum()) for i in range(12)]
            assert [int(line["pixels"]) for line in own] == pixels and sum(pixels) == row["labels"][name]["voxels"]
            assert [line["confidence"] != "" for line in own] == [count > 0 for count in pixels]
            assert all(float(line["confidence"]) > 0 for line in own if line["confidence"])
            assert not any(int(line["pixels"]) for line in own if line["kind"] in ("absent", "blank"))
        assert values.any() == (not options)


def test_a_truth_without_the_label_that_is_asked_for_is_empty(case):
    folder, arguments = case
    _, labels = head()
    write(folder / "truth" / "p1" / f"{NAME}.nii.gz", np.where(labels == 2, 7, 0).astype(np.uint8))
    assert main([*arguments, "--truth", str(folder / "truth"), "--label", "2"]) == 0
    figures = row_of(folder)["labels"]["label 2"]
    assert figures["dice"] == (0.0 if figures["voxels"] else 1.0)


def test_an_empty_label_has_no_confidence_and_is_not_to_be_reviewed(case, capsys):
    folder, arguments = case
    assert main([*arguments, "--absent-below", "1", "--review-below", "0.5"]) == 0
    row = row_of(folder)
    assert row["confidence"] is None and not row["review"] and "0 of them to be looked at" in capsys.readouterr().out
    assert [figures["confidence"] for figures in row["labels"].values()] == [None, None]
    assert main([*arguments, "--absent-below", "1", "--review-below", "0.5", "--resume"]) == 0
    assert row_of(folder) == row, "it stands"


def test_the_lowest_confidence_is_of_labels_that_are_there():
    of = [{"confidence": value} for value in (None, 0.7, 0.4)]
    assert lowest_confidence(dict(zip("abc", of))) == 0.4 and lowest_confidence({"a": of[0]}) is None


@pytest.mark.parametrize("options", [[], ["--refine", "window"]])
def test_notes_of_slices_name_them_and_those_of_the_support_are_not_repeated(case, options):
    """Of two labels that differ in their notes, a hot pixel in slices 3 and 5, each in a block of its own place."""
    folder, arguments = case
    for path in (folder / "support" / "labels").iterdir():
        labels = np.array(Image.open(path))
        labels[labels == 2] = 0
        labels[4:] = np.where(labels[4:] == 0, 2, labels[4:])  # marks most of the image
        Image.fromarray(labels).save(path)
    image, _ = head()
    image[5, 5, [3, 5]] = 30000
    write(folder / "scans" / "p1" / f"{NAME}.nii.gz", image)
    assert main([*arguments, *options]) == 0
    report = json.loads((folder / "out" / "report.json").read_text())
    assert any(note.startswith("label 2: the support labels mark") for note in report["notes"])
    notes = [note for note in row_of(folder)["notes"] if "set its intensity range" in note or "support labels" in note]
    assert not any("support labels mark" in note or "an slice" in note for note in notes)
    if options:
        return  # a window of the slice may lie beside the hot pixel
    (hot,) = [note for note in notes if "set its intensity range" in note]
    assert "of slice 3 set its intensity range" in hot and hot.endswith("(2 slices alike)")


def test_slices_of_noise_are_counted_and_a_support_of_pictures_dims_nothing(case):
    """Slices beside the patient have empty masks; of pictures nobody knows which were dim."""
    folder, arguments = case
    image, _ = head()
    image[:, :, 10] = np.random.default_rng(1).integers(7, 12, image.shape[:2])
    image[:, :, 9] = np.add.outer(np.arange(image.shape[0]), np.arange(image.shape[1])) // 2
    write(folder / "scans" / "p1" / f"{NAME}.nii.gz", image)
    assert main([*arguments, "--html"]) == 0
    row = row_of(folder)
    low, high = np.percentile(image, (0.5, 99.5))
    assert row["intensity_range"] == [low, high] and row["dim"] == 0
    with open(folder / "out" / row["table"]) as file:
        lines = [line for line in csv.DictReader(file) if line["slice"] in ("9", "10")]
    assert [(line["slice"], line["kind"]) for line in lines] == [("9", ""), ("10", "noise")] * 2
    assert all(int(line["pixels"]) == 0 for line in lines if line["kind"] == "noise") and row["noise"] >= 1
    said = f"12 slices, 2 blank, {row['noise']} noise, {row['dim']} dim, 0 in the support"
    assert said in (folder / "out" / "report.html").read_text()
    report = folder / "out" / "report.json"
    assert json.loads(report.read_text())["keep_noise"] is False
    for options in ([], ["--refine", "window"], ["--follow"], ["--region", "2", "2", "22", "20"], ["--within", "2"]):
        assert main([*arguments, *options, "--keep-noise"]) == 0
        assert json.loads(report.read_text())["keep_noise"] is True and row_of(folder)["noise"] == 0


def test_dim_slices_are_counted_where_the_support_is_of_volumes(case):
    folder, arguments = case
    image, labels = head(1)
    write(folder / "labelled" / "images" / "p0.nii.gz", image)
    write(folder / "labelled" / "labels" / "p0.nii.gz", labels)
    image[:, :, 9] = np.add.outer(np.arange(image.shape[0]), np.arange(image.shape[1])) // 2
    write(folder / "scans" / "p1" / f"{NAME}.nii.gz", image)
    arguments[arguments.index("--support") + 1] = str(folder / "labelled")
    arguments += ["--absent-below", "0"]
    assert main(arguments) == 0
    row = row_of(folder)
    with open(folder / "out" / row["table"]) as file:
        assert {line["kind"] for line in csv.DictReader(file) if line["slice"] == "9"} == {"dim"} and row["dim"] >= 1
    assert main([*arguments, "--window", "0", "250"]) == 0
    assert row_of(folder)["dim"] == 0, "a window says itself what is dim"


@pytest.fixture
def of_volumes(case):
    """As `case`, with a support of two labelled volumes."""
    folder, arguments = case
    for name in ("p0", "p1"):
        for part, values in zip(("images", "labels"), head(int(name[1]) + 1)):
            write(folder / "labelled" / part / f"{name}.nii.gz", values)
    arguments[arguments.index("--support") + 1] = str(folder / "labelled")
    return folder, arguments


def lines_of(folder):
    with open(folder / "out" / row_of(folder)["table"]) as file:
        return list(csv.DictReader(file))


def test_slices_without_the_label_come_out_empty_where_the_support_is_of_volumes(of_volumes):
    """Unless --absent-below says 0; and the report says which presence was asked for."""
    folder, arguments = of_volumes
    _, labels = head()
    for options, below in (([], ABSENT_BELOW), (["--absent-below", "0"], None)):
        assert main([*arguments, *options]) == 0
        absent = {(line["label"], int(line["slice"])) for line in lines_of(folder) if line["kind"] == "absent"}
        assert json.loads((folder / "out" / "report.json").read_text())["absent_below"] == below
        assert bool(absent) == (below is not None)
        for name, i in absent:
            assert (labels == int(name[-1])).sum(axis=(0, 1))[i] < 40, "hardly any of it is lost"
        assert {line["presence"] != "" for line in lines_of(folder) if not line["kind"]} == {below is not None}
        for name, figures in row_of(folder)["labels"].items():
            runs = figures.get("absent", [])
            assert {i for first, last in runs for i in range(first, last + 1)} == {i for of, i in absent if of == name}


def test_what_is_emptied_costs_a_volume_no_confidence(of_volumes):
    folder, arguments = of_volumes
    assert main(arguments) == 0
    for name, figures in row_of(folder)["labels"].items():
        own = [float(line["confidence"]) for line in lines_of(folder) if line["label"] == name and line["confidence"]]
        assert min(own) <= figures["confidence"] <= max(own)


def test_volumes_below_the_confidence_asked_for_are_named(of_volumes, capsys):
    folder, arguments = of_volumes
    for below, count in (("1", 1), ("0", 0)):
        assert main([*arguments, "--review-below", below]) == 0
        assert row_of(folder)["review"] is bool(count) and f"{count} of them to be looked at" in capsys.readouterr().out


def test_absence_is_not_judged_in_a_volume_of_another_length_unless_asked(of_volumes):
    """Of twelve slices four: their places would stand for other parts of the body."""
    folder, arguments = of_volumes
    image, _ = head()
    write(folder / "scans" / "p1" / f"{NAME}.nii.gz", image[:, :, 4:8])
    for options, words in (([], "whether a label is absent is not judged; --absent-below X judges it by the look"),
                           (["--absent-below", "1"], "absence is judged by the look of slices alone")):
        assert main([*arguments, *options]) == 0
        assert [note for note in row_of(folder)["notes"] if words in note] == [
            f"it is 12 mm long across its slices, the support's volumes 44 to 44 mm: {note}" for note in
            (words + " of slices alone" if not options else words + ", not by their place",)]
        assert all((line["presence"] == "") == (not options) for line in lines_of(folder))
