"""Which values of a truth are scored: of a label that is known by its value, and of a mask that says nothing."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from universeg_rt import InputError, SupportSet
from universeg_rt.cli import support as support_command
from universeg_rt.cli.segment import main
from universeg_rt.cli.truths import Truths, find_truths
from universeg_rt.errors import TruthError
from universeg_rt.imaging.metrics import dice
from universeg_rt.labelled import LabelledSupport

from ...conftest import discs
from ..test_support import write_folder
from ..volumes.made import write_series

ALONE, ASKED = Truths(False), Truths(True)


def test_true_masks_of_one_label_and_of_several():
    label = np.array([[0, 2], [2, 0]])
    assert np.array_equal(ALONE.masks(label, {"": 1}, (2, 2), "t")[""], label == 2)
    several = ALONE.masks(label, {"a": 1, "b": 2}, (2, 2), "t")
    assert not several["a"].any() and np.array_equal(several["b"], label == 2)
    with pytest.raises(InputError, match="must be the same"):
        ALONE.masks(label, {"a": 1, "b": 2}, (3, 2), "t")


def test_of_a_folder_with_images_and_labels_the_labels_are_the_truth(tmp_path):
    pairs = write_folder(tmp_path / "pairs", *discs(3))
    found = find_truths(pairs)
    assert found == find_truths(pairs / "labels") and sorted(found) == ["case0", "case1", "case2"]
    shutil.rmtree(pairs / "images")
    assert sorted(find_truths(pairs)) == ["labels/case0", "labels/case1", "labels/case2"]


def test_segments_are_told_by_their_names_whatever_their_numbers():
    """Of a DICOM Segmentation, as `values_of` is given them; a name goes before a value."""
    there = {1: "spleen", 2: "liver", 3: "kidney"}
    assert ALONE.values_of(there, {"liver": 1, "spleen": 7}) == {"liver": [2], "spleen": [1]}
    assert ASKED.values_of(there, {"liver": 1}) == {"liver": [2]}
    assert ASKED.values_of(there, {"tumour": 9}) == {"tumour": []}
    assert ALONE.values_of({1: "liver", 2: "liver"}, {"liver": 5, "other": 1}) == {"liver": [1, 2], "other": []}


def test_segmentations_of_one_name_are_one_thing_and_of_two_are_several(tmp_path):
    pytest.importorskip("highdicom", reason="Segmentations need highdicom: pip install '.[medical]'")
    from universeg_rt.volumes.reading import read_volume
    from universeg_rt.volumes.writing import write_labels

    volume = read_volume(write_series(tmp_path / "ct"))
    mask = np.zeros(volume.geometry.shape, np.uint8)
    mask[1:3, 1:3] = 1
    for name, values, names in (("a", mask, {1: "liver"}), ("b", mask * 4, {4: "liver"}),
                                ("c", mask + (np.arange(mask.shape[1])[:, None] > 1) * mask,
                                 {1: "liver", 2: "spleen"})):
        write_labels(tmp_path / f"{name}.dcm", values, names, volume)
    a, b, c = (tmp_path / f"{name}.dcm" for name in "abc")
    assert Truths.of([a, b], 1, False, False) == Truths(False, False)
    assert Truths.of([a, c], 1, False, True) == Truths(True, True), "the support's file says its label: that is taken"
    assert Truths.of([a, c], 1, True, False) == Truths.of([c], 2, True, False) == Truths(True)


def test_a_truth_of_another_label_is_not_that_of_the_label_asked_for():
    label = np.array([[0, 7], [7, 0]])
    assert not ASKED.masks(label, {"a": 2}, (2, 2), "t")["a"].any()
    assert np.array_equal(ASKED.masks(label, {"a": 7}, (2, 2), "t")["a"], label == 7)
    assert np.array_equal(ASKED.masks(label // 7 * 255, {"a": 1}, (2, 2), "t")["a"], label == 7)
    assert not ASKED.masks(label // 7, {"a": 2}, (2, 2), "t")["a"].any()


def test_a_label_s_values_in_a_truth():
    assert ALONE.values_of({7: ""}, {"a": 2}) == {"a": [7]}
    assert ASKED.values_of({7: ""}, {"a": 2}) == {"a": []}
    assert ASKED.values_of({1: "spleen", 2: "liver"}, {"liver": 1}) == {"liver": [2]}
    assert ALONE.values_of({1: "spleen"}, {"liver": 1, "spleen": 2}) == {"liver": [], "spleen": [1]}
    assert ALONE.values_of({1: "label 1", 5: "label 5"}, {"liver": 1, "spleen": 2}) == {"liver": [1], "spleen": []}


@pytest.mark.parametrize("values, there", [({"": 1}, {1: "", 3: ""}), ({"label 255": 255}, {1: "a", 2: "b"})])
def test_a_truth_of_several_labels_is_none_for_a_mask_without_a_name(values, there):
    with pytest.raises(TruthError, match="holds the labels 1, [23], and the support is a mask"):
        ALONE.values_of(there, values)
    assert ALONE.values_of({1: "", 255: ""}, {"label 255": 255}) == {"label 255": [255]}
    assert ALONE.values_of({1: "", 3: ""}, {"label 3": 3}) == {"label 3": [3]}
    assert ASKED.values_of({1: "", 3: ""}, {"": 1}) == {"": [1]}, "asked for by its value"


def truths_of(tmp_path, *values: tuple[int, ...]):
    paths = [tmp_path / f"{i}.png" for i in range(len(values))]
    for path, held in zip(paths, values):
        Image.fromarray(np.resize(np.array(held, np.uint8), (4, 4))).save(path)
    return paths


@pytest.mark.parametrize("held, of_file, expected", [
    ([(0, 1), (0, 1)], False, Truths(False, False)), ([(0, 1), (0, 255)], False, Truths(False, False)),
    ([(10, 200), (10, 200)], False, Truths(False, False)), ([(0, 1), (0, 2)], False, Truths(False, True)),
    ([(0, 1), (0, 1, 2)], False, Truths(False, True)), ([(0,), (0, 4)], False, Truths(False, False)),
    ([(0, 1), (0, 255)], True, Truths(False, False)), ([(0, 2)], True, Truths(True, False)),
    ([(0, 1), (0, 2)], True, Truths(True, True)),
])
def test_all_truths_of_a_run_say_whether_they_are_masks(tmp_path, held, of_file, expected):
    assert Truths.of(truths_of(tmp_path, *held), 1, False, of_file) == expected
    assert Truths.of(truths_of(tmp_path, *held), 2, False, of_file) == Truths(False)
    assert Truths.of(truths_of(tmp_path, *held), 1, True, of_file) == Truths(True)


def test_one_value_among_truths_of_several_is_not_taken_for_a_mask():
    for value in (1, 2):
        with pytest.raises(TruthError, match=f"holds the label {value}, others of this run further ones, and the"):
            Truths(False, True).values_of({value: ""}, {"": 1})
        with pytest.raises(TruthError, match="further ones"):
            Truths(False, True).masks(np.array([[0, value]]), {"": 1}, (1, 2), "t")
    assert Truths(False, True).values_of({}, {"": 1}) == {"": []}, "nothing is there, whichever label it is"
    assert Truths(False, True).values_of({1: ""}, {"a": 2}) == {"a": []}


@pytest.fixture
def case(tmp_path, small_bundle):
    """A support with the labels 3 and 7, queries, truths of 1 and 3 and one of 1 alone, and a run of a support."""
    images, labels = discs(6)
    maps = labels.astype(np.uint8) * 3
    maps[:, :9, :9] = 7
    write_folder(tmp_path / "support", images, labels)
    for i, each in enumerate(maps):
        Image.fromarray(each).save(tmp_path / "support" / "labels" / f"case{i}.png")
    queries, true = discs(2, seed=5)
    write_folder(tmp_path / "scans", queries, true)
    truths = true.astype(np.uint8) * 3
    truths[:, :5, :5] = 1
    truths[1][truths[1] == 3] = 0
    for i, each in enumerate(truths):
        Image.fromarray(each).save(tmp_path / "scans" / "labels" / f"case{i}.png")

    def run(support, *more: str) -> tuple[int, dict]:
        if "--resume" not in more:
            shutil.rmtree(tmp_path / "out", ignore_errors=True)
        status = main(["--bundle", str(small_bundle), "--support", str(support), "--input",
                       str(tmp_path / "scans" / "images"), "--truth", str(tmp_path / "scans" / "labels"), "--output",
                       str(tmp_path / "out"), *more])
        path = tmp_path / "out" / "report.json"
        return status, json.loads(path.read_text()) if path.is_file() else {}

    return tmp_path, truths, run


def test_a_selected_support_is_scored_on_its_own_label(case, capsys):
    folder, truths, run = case
    out = folder / "it.npz"
    assert support_command.main([
        "select", str(folder / "support"), "--label", "3", "--query", str(folder / "scans" / "images"), "--count", "4",
        "--output", str(out)]) == 0
    assert SupportSet.load(out).label == (3, "label 3")
    status, report = run(out)
    assert status == 0 and report["labels"] == {"label 3": 3}
    for row, truth in zip(report["images"], truths):
        assert list(row["labels"]) == ["label 3"]
        mask = np.array(Image.open(folder / "out" / row["mask"])) == 3
        assert row["dice"] == row["labels"]["label 3"]["dice"] == pytest.approx(dice(mask, truth == 3))
    assert run(out, "--label", "3=lv")[1]["labels"] == {"lv": 3}
    for label, message in (("5", "the support has no label '5'; it has 3 (label 3)"), ("7=lv", "has no label 7")):
        assert run(out, "--label", label) == (1, {}) and message in capsys.readouterr().err


def test_a_name_that_is_not_the_file_s_is_refused(case, capsys):
    folder, _, run = case
    support = LabelledSupport.load(folder / "support", label_names={3: "lv"}).of(3)
    support.save(folder / "it.npz")
    assert run(folder / "it.npz", "--label", "3=lv")[1]["labels"] == {"lv": 3}
    assert run(folder / "it.npz", "--label", "lv")[1]["labels"] == {"lv": 3}
    assert run(folder / "it.npz", "--label", "3=rv") == (1, {})
    assert "it.npz marks the label 3 as 'lv'; give --label 3, or leave it out" in capsys.readouterr().err


def test_masks_are_truths_of_a_known_label_too(case):
    folder, truths, run = case
    LabelledSupport.load(folder / "support").of(3).save(folder / "it.npz")
    for i, each in enumerate(truths):
        Image.fromarray((each == 1).astype(np.uint8) * 255).save(folder / "scans" / "labels" / f"case{i}.png")
    _, report = run(folder / "it.npz")
    for row, truth in zip(report["images"], truths):
        mask = np.array(Image.open(folder / "out" / row["mask"])) == 3
        assert row["dice"] == pytest.approx(dice(mask, truth == 1)) and row["truths_hold"] == "one label"


def test_a_mask_is_not_scored_on_the_one_truth_of_one_label(case):
    """And an earlier row of a truth that stood alone does not stand once others say that truths hold several."""
    folder, _, run = case
    SupportSet.from_arrays(*discs(4)).save(folder / "mask.npz")
    labels = folder / "scans" / "labels"
    (labels / "case0.png").rename(folder / "later.png")
    _, report = run(folder / "mask.npz")
    row = report["images"][1]
    assert "dice" in row and list(row["labels"]) == list(report["labels"]) == ["label 1"]
    (folder / "later.png").rename(labels / "case0.png")
    _, report = run(folder / "mask.npz", "--resume")
    assert report["mean_dice"] is None
    for row, said in zip(report["images"], ("holds the labels 1, 3", "holds the label 1, others of this run")):
        assert said in row["unscored"] in row["notes"] and "dice" not in row
