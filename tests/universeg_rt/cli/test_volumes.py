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

from universeg_rt import Segmenter, SupportSet
from universeg_rt.cli import volumes
from universeg_rt.cli.segment import main
from universeg_rt.labelled import LabelledSupport
from universeg_rt.volumes.reading import read_labels, read_volume
from universeg_rt.volumes.slicing import Slices, intensity_range

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
        prediction = task.predict(slices.take(volume.values, i), volume_range=intensity_range(volume.values))
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


def test_a_single_file_writes_below_the_output_only(case):
    folder, arguments = case
    scan = folder / "scans" / "p1" / f"{NAME}.nii.gz"
    arguments[arguments.index("--input") + 1] = str(scan)
    assert main(arguments) == 0
    assert row_of(folder)["mask"] == [f"masks/{NAME}.nii.gz"]
    assert [path.name for path in scan.parent.iterdir()] == [scan.name]


def test_a_broken_volume_is_a_row_and_a_truth_of_another_shape_a_note(case, capsys):
    folder, arguments = case
    (folder / "scans" / "broken.nii").write_bytes(b"no volume at all")
    write(folder / "truth" / "p1" / f"{NAME}.nii.gz", head(shape=(8, 9, 10))[1])
    assert main([*arguments, "--truth", str(folder / "truth")]) == 1
    rows = json.loads((folder / "out" / "report.json").read_text())["images"]
    assert [row["name"] for row in rows] == ["broken", f"p1/{NAME}"]
    assert "broken.nii cannot be read" in rows[0]["error"]
    assert "does not lie on the voxels" in rows[1]["unscored"] in rows[1]["notes"] and "dice" not in rows[1]
    assert (folder / "out" / rows[1]["mask"][0]).is_file()
    assert main([*arguments, "--truth", str(folder / "truth"), "--resume"]) == 1
    assert json.loads((folder / "out" / "report.json").read_text())["images"][1] == rows[1], "it stands"


def test_a_support_of_one_label_is_not_scored_on_a_truth_of_several(case, capsys):
    folder, arguments = case
    five = LabelledSupport.load(folder / "support").of(5)
    SupportSet.from_arrays(five.images, five.labels).save(folder / "five.npz")
    arguments[arguments.index("--support") + 1] = str(folder / "five.npz")
    picture = folder / "scans" / "s6.png"
    shutil.copy(folder / "support" / "images" / picture.name, picture)
    several = np.array(Image.open(folder / "support" / "labels" / picture.name))
    several[0, :2] = 2, 5
    Image.fromarray(several).save(folder / "truth" / picture.name)
    said = "holds the labels 2, 5, and the support is a mask that does not say which of them it marks"
    for again in ((), ("--resume",)):
        assert main([*arguments, "--truth", str(folder / "truth"), *again]) == 0
        report = json.loads((folder / "out" / "report.json").read_text())
        assert all(list(row["labels"]) == ["label 1"] for row in report["images"])
        assert report["mean_dice"] is None and capsys.readouterr().err.count(said) == 2
        for row in report["images"]:
            assert said in row["unscored"] in row["notes"] and "dice" not in row
    write(folder / "truth" / "p1" / f"{NAME}.nii.gz", (head()[1] == 5).astype(np.uint8))
    Image.fromarray((several == 5).astype(np.uint8)).save(folder / "truth" / picture.name)
    assert main([*arguments, "--truth", str(folder / "truth")]) == 0
    assert all("dice" in row for row in json.loads((folder / "out" / "report.json").read_text())["images"])


def test_a_support_of_a_known_label_is_scored_on_it_in_volumes(case):
    folder, arguments = case
    LabelledSupport.load(folder / "support").of(5).save(folder / "five.npz")
    arguments[arguments.index("--support") + 1] = str(folder / "five.npz")
    assert main([*arguments, "--truth", str(folder / "truth")]) == 0
    (row,) = json.loads((folder / "out" / "report.json").read_text())["images"]
    assert list(row["labels"]) == ["label 5"]
    answer = np.asarray(nibabel.load(folder / "out" / row["mask"][0]).dataobj) == 5
    truth = head()[1] == 5
    assert row["dice"] == pytest.approx(2 * (answer & truth).sum() / (answer.sum() + truth.sum()))
    with open(folder / "out" / row["table"], newline="") as file:
        assert {line["label"] for line in csv.DictReader(file)} == {"label 5"}


@pytest.mark.parametrize("scale, notes", [(1000, 1), (1 / 1000, 1), (1, 0)])
def test_a_window_in_other_units_than_the_volume_has_a_note(case, scale, notes):
    folder, arguments = case
    write(folder / "scans" / "p1" / f"{NAME}.nii.gz", (head()[0] * scale).astype(np.float32))
    assert main([*arguments, "--window", "60", "200"]) == 0
    assert sum("the window 60 to 200 hardly shows it: its intensities lie from" in note
               for note in row_of(folder)["notes"]) == notes


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
    assert set(np.unique(labels)) <= {0, 2} and row_of(folder)["slices"] == 12
    report = json.loads((folder / "out" / "report.json").read_text())
    assert report["task"]["kind"] == kind and report["labels"] == {"label 2": 2}, "the file says which label it marks"


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
