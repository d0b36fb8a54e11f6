"""`universeg-segment` on volumes: the answer in their own geometry, several labels, resumed at a slice."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

nibabel = pytest.importorskip("nibabel", reason="volumes need nibabel: pip install '.[medical]'")

from universeg_rt import Segmenter
from universeg_rt.answers.postprocess import parse_steps
from universeg_rt.cli import volume_results, volumes
from universeg_rt.cli.results import lowest_confidence
from universeg_rt.cli.segment import main
from universeg_rt.labelled import LabelledSupport
from universeg_rt.volumes.reading import read_labels, read_volume
from universeg_rt.volumes.slicing import Slices

AFFINE = np.array([[0, -1.5, 0, 30], [-1, 0, 0, 20], [0, 0, 4.0, -8], [0, 0, 0, 1.0]])  # turned, flipped, anisotropic
NAME = "head"


def head(seed: int = 0, shape=(24, 28, 12)) -> tuple[np.ndarray, np.ndarray]:
    """A made-up volume int16 and its label map: label 2 a ball, label 5 a second one; end slices are blank."""
    random = np.random.default_rng(seed)
    place = np.stack(np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij"))
    labels = np.zeros(shape, np.uint8)
    for value, centre in ((2, (-0.3, 0.1, 0.0)), (5, (0.4, -0.2, 0.1))):
        centre = np.array(centre) + random.uniform(-0.1, 0.1, 3)
        labels[((place - centre[:, None, None, None])**2).sum(axis=0) < 0.15] = value
    image = (random.normal(100, 10, shape) + 60 * (labels == 2) + 120 * (labels == 5)).astype(np.int16)
    image[:, :, 0] = image[:, :, -1] = 7
    return image, labels


def write(path, values, affine=AFFINE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(values, affine), path)


@pytest.fixture
def case(tmp_path, small_bundle):
    """A support of labelled slices as pictures, a volume in a subfolder with its truth, and the arguments for them."""
    image, labels = head(1)
    slices = Slices.of(read_volume_of(tmp_path, image).geometry, 2, "axial")
    for i in (2, 4, 6, 8):
        for part, values in (("images", image), ("labels", labels)):
            (tmp_path / "support" / part).mkdir(parents=True, exist_ok=True)
            picture = slices.take(values, i)
            Image.fromarray(picture.astype(np.uint16 if part == "images" else np.uint8)).save(
                tmp_path / "support" / part / f"s{i}.png")
    image, labels = head()
    write(tmp_path / "scans" / "p1" / f"{NAME}.nii.gz", image)
    write(tmp_path / "truth" / "p1" / f"{NAME}.nii.gz", labels)
    return tmp_path, ["--bundle", str(small_bundle), "--support", str(tmp_path / "support"), "--input",
                      str(tmp_path / "scans"), "--output", str(tmp_path / "out"), "--axis", "axial"]


def read_volume_of(folder, image):
    write(folder / "elsewhere.nii", image)
    return read_volume(folder / "elsewhere.nii")


def row_of(folder) -> dict:
    (row,) = json.loads((folder / "out" / "report.json").read_text())["images"]
    return row


def test_the_answer_lies_on_the_input_s_voxels(case, small_bundle):
    folder, arguments = case
    options = ["--truth", str(folder / "truth"), "--probabilities", "--overlays", "--label", "2=ball", "5=other"]
    assert main([*arguments, *options]) == 0
    row = row_of(folder)
    path = folder / "scans" / "p1" / f"{NAME}.nii.gz"
    written = nibabel.load(folder / "out" / row["mask"][0])
    source = nibabel.load(path)
    assert row["mask"] == [f"masks/p1/{NAME}.nii.gz"] and np.array_equal(written.affine, source.affine)

    support = LabelledSupport.load(folder / "support")
    task = Segmenter.open(small_bundle).prepare_labels(support)
    volume = read_volume(path)
    slices = Slices.of(volume.geometry, volume.acquired, "axial")
    expected = np.zeros(volume.geometry.shape, np.uint8)
    probability = np.zeros(volume.geometry.shape, np.float32)
    for i in range(len(slices)):
        prediction = task.predict(slices.take(volume.values, i))
        slices.put(expected, i, prediction.labels)
        slices.put(probability, i, prediction.predictions["label 5"].probability)
    assert expected.any() and np.array_equal(np.asarray(written.dataobj), expected)
    found = np.asarray(nibabel.load(folder / "out" / f"probabilities/p1/{NAME}.label5.nii.gz").dataobj)
    assert np.array_equal(found, probability)

    truth = read_labels(folder / "truth" / "p1" / f"{NAME}.nii.gz", volume)
    for name, value in (("ball", 2), ("other", 5)):
        a, b = expected == value, truth.values == value
        figures = row["labels"][name]
        assert figures["dice"] == pytest.approx(2 * (a & b).sum() / (a.sum() + b.sum()))
        assert figures["voxels"] == a.sum() and figures["millilitres"] == pytest.approx(a.sum() * 6 / 1000)
    assert row["blank"] == 2 and row["slices"] == 12 and row["in_support"] == 0
    assert set(row["seconds"]) == {"read", "preprocess", "network", "postprocess", "write"}
    assert row["network_share"] == pytest.approx(row["seconds"]["network"] / sum(row["seconds"].values()))
    with Image.open(folder / "out" / row["overlay"]) as sheet:
        assert sheet.width > 400
    with open(folder / "out" / row["table"]) as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 24 and [line["kind"] for line in lines[:12]].count("blank") == 2
    assert sum(int(line["pixels"]) for line in lines) == (expected != 0).sum()
    assert not (folder / "out" / ".partial").exists()


def test_one_label_of_several_and_a_bar_of_its_slices(case, capfd):
    folder, arguments = case
    assert main([*arguments, "--label", "5"]) == 0
    assert f"p1/{NAME}:" in (bars := capfd.readouterr().err) and "/12 [" in bars
    row = row_of(folder)
    assert list(row["labels"]) == ["label 5"]
    assert set(np.unique(np.asarray(nibabel.load(folder / "out" / row["mask"][0]).dataobj))) <= {0, 5}


def test_labels_that_may_overlap_have_files_of_their_own(case):
    folder, arguments = case
    assert main([*arguments, "--overlap", "independent"]) == 0
    row = row_of(folder)
    assert row["mask"] == [f"masks/p1/{NAME}.labels2.nii.gz", f"masks/p1/{NAME}.labels5.nii.gz"]


@pytest.mark.parametrize("at", [0, 1])
def test_an_interrupted_volume_goes_on_at_the_slice_where_it_stood(case, monkeypatch, at):
    folder, arguments = case
    arguments = [*arguments, "--probabilities", "--threads", "1"]
    monkeypatch.setattr(volumes, "FEWEST", 4)
    assert main(arguments) == 0
    row, report = row_of(folder), json.loads((folder / "out" / "report.json").read_text())
    whole = {file: (folder / "out" / file).read_bytes() for file in row["files"]}

    calls, original = [], volumes._facts

    def interrupted(*given):
        calls.append(1)
        if len(calls) == 4 * at + 3:
            raise KeyboardInterrupt
        return original(*given)

    monkeypatch.setattr(volumes, "_facts", interrupted)
    assert main(arguments) == 130
    after = json.loads((folder / "out" / "report.json").read_text())
    assert not after["complete"] and after["images"] == [] and after["bundle"] == report["bundle"]
    assert after["unfinished"] == {"name": f"p1/{NAME}", "slices": 4 * at, "of": 12}
    calls.clear()
    monkeypatch.setattr(volumes, "_facts", lambda *given: calls.append(1) or original(*given))
    assert main([*arguments, "--resume"]) == 0
    assert len(calls) == 12 - 4 * at
    assert {file: (folder / "out" / file).read_bytes() for file in whole} == whole
    again = row_of(folder)
    assert ("was interrupted after 4 of 12 slices" in str(again["notes"])) == bool(at)
    assert again["notes"] == row["notes"] + [note for note in again["notes"] if "was interrupted" in note]
    of_time = ("seconds", "network_share", "notes")
    assert {key: again[key] for key in again if key not in of_time} == {
        key: row[key] for key in row if key not in of_time}
    assert not (folder / "out" / ".partial").exists()


def test_without_resume_an_interrupted_volume_begins_anew(case, monkeypatch):
    folder, arguments = case
    monkeypatch.setattr(volumes, "FEWEST", 4)
    original, calls = volumes._facts, []
    monkeypatch.setattr(volumes, "_facts", lambda *given: calls.append(1) or (
        original(*given) if len(calls) < 7 else (_ for _ in ()).throw(KeyboardInterrupt)))
    assert main([*arguments, "--threads", "1"]) == 130
    assert (folder / "out" / ".partial").exists()
    monkeypatch.setattr(volumes, "_facts", original)
    assert main([*arguments, "--threads", "1"]) == 0
    assert "interrupted" not in str(row_of(folder)["notes"]) and not (folder / "out" / ".partial").exists()


def test_a_finished_volume_is_not_made_again(case, monkeypatch):
    folder, arguments = case
    assert main(arguments) == 0
    before = row_of(folder)
    monkeypatch.setattr("universeg_rt.cli.segment.segment_volume", lambda *_: pytest.fail("segmented"))
    assert main([*arguments, "--resume"]) == 0
    assert row_of(folder) == before


def test_a_single_file_writes_below_the_output_only(case):
    folder, arguments = case
    scan = folder / "scans" / "p1" / f"{NAME}.nii.gz"
    arguments[arguments.index("--input") + 1] = str(scan)
    assert main(arguments) == 0
    assert row_of(folder)["mask"] == [f"masks/{NAME}.nii.gz"]
    assert [path.name for path in scan.parent.iterdir()] == [scan.name]


def test_a_broken_volume_and_a_truth_of_another_shape_are_rows_of_their_own(case, capsys):
    folder, arguments = case
    (folder / "scans" / "broken.nii").write_bytes(b"no volume at all")
    write(folder / "truth" / "p1" / f"{NAME}.nii.gz", head(shape=(8, 9, 10))[1])
    assert main([*arguments, "--truth", str(folder / "truth")]) == 1
    rows = json.loads((folder / "out" / "report.json").read_text())["images"]
    assert [row["name"] for row in rows] == ["broken", f"p1/{NAME}"]
    assert "broken.nii cannot be read" in rows[0]["error"] and "does not lie on the voxels" in rows[1]["error"]


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


def test_a_stack_of_pages(case):
    folder, arguments = case
    image, _ = head()
    pages = [Image.fromarray(image[:, :, i].astype(np.uint16)) for i in range(5)]
    (folder / "scans" / "p1" / f"{NAME}.nii.gz").unlink()
    pages[0].save(folder / "scans" / "stack.tif", save_all=True, append_images=pages[1:])
    arguments = [*arguments[:-1], "acquired"]
    assert main(arguments) == 0
    assert row_of(folder)["mask"] == ["masks/stack.tif"] and row_of(folder)["kind"] == "stack"
    with Image.open(folder / "out" / "masks" / "stack.tif") as mask:
        assert mask.n_frames == 5


def test_results_of_volumes_are_not_read_again(case):
    folder, arguments = case
    arguments[arguments.index("--output") + 1] = str(folder / "scans" / "results")
    for _ in range(2):
        assert main([*arguments, "--probabilities"]) == 0
        assert len(json.loads((folder / "scans" / "results" / "report.json").read_text())["images"]) == 1


@pytest.mark.parametrize("kind", ["static", "exact"])
def test_a_frozen_file_segments_a_volume(case, small_bundle, kind):
    folder, arguments = case
    support = LabelledSupport.load(folder / "support").of(2)
    frozen = Segmenter.open(small_bundle).prepare(support).freeze(kind=kind)
    frozen.save(folder / "task.onnx")
    assert main(["--task", str(folder / "task.onnx"), *arguments[4:], "--post", "largest-component-3d"]) == 0
    labels = np.asarray(nibabel.load(folder / "out" / row_of(folder)["mask"][0]).dataobj)
    assert set(np.unique(labels)) <= {0, 1} and row_of(folder)["slices"] == 12
    assert json.loads((folder / "out" / "report.json").read_text())["task"]["kind"] == kind


def test_freezing_first_keeps_what_is_known_of_the_support(case):
    folder, arguments = case
    image, labels = head(1)
    write(folder / "scans" / "p1" / f"{NAME}.nii.gz", image)
    write(folder / "truth" / "p1" / f"{NAME}.nii.gz", labels)
    assert main([*arguments, "--truth", str(folder / "truth"), "--freeze", "static"]) == 0
    report = json.loads((folder / "out" / "report.json").read_text())
    assert row_of(folder)["in_support"] == 4
    assert {name: task["kind"] for name, task in report["task"].items()} == {"label 2": "static", "label 5": "static"}


def test_one_time_of_a_file_with_several(case):
    folder, arguments = case
    image, _ = head()
    write(folder / "scans" / "p1" / f"{NAME}.nii.gz", np.stack([np.flip(image, 0), image], axis=3))
    assert main(arguments) == 1
    assert "say which one with --time, 0 to 1" in row_of(folder)["error"]
    assert main([*arguments, "--time", "1"]) == 0
    assert row_of(folder)["blank"] == 2 and row_of(folder)["shape"] == list(image.shape)


def test_blocks_hold_few_large_slices_and_enough_small_ones():
    opened = SimpleNamespace(threads=8, task=SimpleNamespace(values={"a": 1, "b": 2}))
    sizes = [volumes._block(opened, SimpleNamespace(size=size)) for size in ((64, 64), (512, 512), (4096, 4096))]
    assert sizes == [32, 32, 1]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_memory_does_not_grow_with_the_volume(case, small_bundle):
    """Peak of the process's own memory over a volume of 20 slices and one of 400, maps of 100 MB written too."""
    folder, arguments = case
    peaks = []
    for slices in (20, 400):
        random = np.random.default_rng(0)
        values = np.broadcast_to(random.integers(0, 900, (256, 256, 1)), (256, 256, slices)).astype(np.int16)
        write(folder / "scans" / "p1" / f"{NAME}.nii.gz", values)
        code = ("import sys, threading, time\n"
                "from universeg_rt.cli.segment import main\n"
                "peak = [0]\n"
                "def watch():\n"
                "    while True:\n"
                "        line = next(l for l in open('/proc/self/status') if l.startswith('RssAnon'))\n"
                "        peak[0] = max(peak[0], int(line.split()[1])); time.sleep(0.01)\n"
                "threading.Thread(target=watch, daemon=True).start()\n"
                "assert main(sys.argv[1:]) == 0\n"
                "print('peak', peak[0])")
        done = subprocess.run([sys.executable, "-c", code, *arguments, "--probabilities", "--overlays"],
                              capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        peaks.append(int(done.stdout.split("peak ")[1]))
    assert peaks[1] < peaks[0] + 24 * 1024, f"{peaks} kB"


def test_smoothing_leaves_emptied_slices_empty():
    facts = [{"blank": i == 2, "absent": ["a"] * (i == 5)} for i in range(8)]
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
            assert [float(line["confidence"]) > 0 for line in own] == [count > 0 for count in pixels]
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


def test_a_killed_run_leaves_a_report_that_resume_is_checked_against(case, monkeypatch, capsys):
    """Killed: nothing is written on the way out, so what counts is what lies there during the first volume."""
    folder, arguments = case
    monkeypatch.setattr(volumes, "FEWEST", 4)
    monkeypatch.setattr("universeg_rt.cli.report.PAUSE", 0.0)
    monkeypatch.setattr("universeg_rt.cli.report.SHARE", 0.0)
    seen, original, left = [], volumes.Partial.advance, folder / "left"

    def watched(partial, facts):
        original(partial, facts)
        seen.append((folder / "out" / "report.json").read_bytes())
        if len(seen) == 2:
            shutil.copytree(folder / "out", left)

    monkeypatch.setattr(volumes.Partial, "advance", watched)
    assert main([*arguments, "--threads", "1"]) == 0
    reports = [json.loads(each) for each in seen]
    assert [each["unfinished"]["slices"] for each in reports] == [0, 4, 8]
    assert not any(each["complete"] or each["images"] for each in reports)

    arguments[arguments.index("--output") + 1] = str(left)
    assert main([*arguments, "--threads", "1", "--resume", "--post", "largest-component"]) == 1
    assert "is of another run" in capsys.readouterr().err
    seen.clear()
    assert main([*arguments, "--threads", "1", "--resume"]) == 0 and len(seen) == 1


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


@pytest.mark.parametrize("note, said", [
    ("one pixel of image 2 lies", "one pixel of slice 6 lies"),
    ("one pixel of image lies", "one pixel of slice 6 lies"),
    ("the mask marks 95% of the image", "slice 6: the mask marks 95% of the image"),
    ("what images mark of an image", "slice 6: what images mark of an image"),
])
def test_a_note_on_an_image_is_said_of_its_slice(note, said):
    assert volumes._of_slice(note, 6) == said
