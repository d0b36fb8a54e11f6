"""What --support may hold: any two values as a mask, label maps, volumes; and which labels are asked for."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from PIL import Image

from universeg_rt import InputError, SupportSet
from universeg_rt.cli.options import parser
from universeg_rt.cli.segment import main
from universeg_rt.cli.supports import Labels, load_support
from universeg_rt.labelled import LabelledSupport
from universeg_rt.supports.volumes import SliceChoice, labelled_support_of_volumes, volume_pairs
from universeg_rt.volumes.reading import read_volume

from ...conftest import discs
from ..test_support import write_folder


def arguments(folder, *more: str):
    return parser().parse_args(["--support", str(folder), "--input", "x", "--output", "y", *more])


def labelled(folder, values=(0, 128), kind=np.uint8) -> tuple[np.ndarray, np.ndarray]:
    """A support folder whose label pictures hold these values for background and disc."""
    images, labels = discs(4)
    write_folder(folder, images, labels)
    for i, label in enumerate(labels):
        Image.fromarray(np.where(label, values[1], values[0]).astype(kind)).save(folder / "labels" / f"case{i}.png")
    return images, labels


@pytest.mark.parametrize("values", [(0, 128), (1, 2), (0, 255), (10, 11)])
def test_any_two_values_are_a_mask_and_the_lower_is_background(tmp_path, values):
    images, labels = labelled(tmp_path, values)
    support = load_support(arguments(tmp_path), "minmax")
    assert isinstance(support, SupportSet)
    assert support.sha256 == SupportSet.from_arrays([np.asarray(i) for i in images], labels).sha256


def test_several_values_are_labels_each(tmp_path):
    images, labels = labelled(tmp_path)
    more = labels.astype(np.uint8) * 3
    more[:, :4, :4] = 7
    for i, label in enumerate(more):
        Image.fromarray(label).save(tmp_path / "labels" / f"case{i}.png")
    support = load_support(arguments(tmp_path, "--label", "3=disc", "7"), "minmax")
    assert isinstance(support, LabelledSupport) and support.label_names == {3: "disc", 7: "label 7"}
    assert load_support(arguments(tmp_path), "minmax").label_names == {3: "label 3", 7: "label 7"}


def test_a_mask_with_smoothed_edges_is_not_taken_for_labels(tmp_path):
    labelled(tmp_path)
    Image.fromarray(np.arange(4096).reshape(64, 64).astype(np.uint8)).save(tmp_path / "labels" / "case1.png")
    with pytest.raises(InputError, match="case1 holds 256 values.*look smoothed"):
        load_support(arguments(tmp_path), "minmax")


def test_an_npz_with_several_values_has_all_its_labels(tmp_path):
    images, labels = discs(4)
    several = labels.astype(np.uint8) * 3
    several[:, :4, :4] = 7
    np.savez(tmp_path / "s.npz", images=images, labels=several)
    support = load_support(arguments(tmp_path / "s.npz"), "minmax")
    assert isinstance(support, LabelledSupport) and support.values == (3, 7)
    np.savez(tmp_path / "s.npz", images=images, labels=labels + 1)
    assert load_support(arguments(tmp_path / "s.npz"), "minmax").sha256 == SupportSet.from_arrays(images, labels).sha256
    np.savez(tmp_path / "s.npz", images=images, labels=np.arange(images.size).reshape(images.shape) % 256)
    with pytest.raises(InputError, match="look smoothed"):
        load_support(arguments(tmp_path / "s.npz"), "minmax")


@pytest.mark.parametrize("more", [["--slices", "-3"], ["--axis", "axial"], ["--time", "0"], ["--series", "1"]])
def test_options_of_volumes_without_any_are_refused(tmp_path, more, capsys):
    labelled(tmp_path / "s")
    picture = tmp_path / "s" / "images" / "case0.png"
    run = ["--support", str(tmp_path / "s"), "--input", str(picture), "--output", str(tmp_path / "out"), *more]
    assert main(run) == 1 and not (tmp_path / "out").exists()
    assert f"{more[0]}: there are no volumes" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["liver=2", "0=air", "2=", "-1=x"])
def test_a_name_goes_with_a_value(text):
    with pytest.raises(InputError, match="give VALUE=NAME"):
        Labels.of([text])


def test_a_label_that_is_not_there_names_those_that_are(tmp_path, capsys):
    labelled(tmp_path / "support")
    write_folder(tmp_path / "queries", *discs(1))
    assert main(["--support", str(tmp_path / "support"), "--label", "5", "--input", str(tmp_path / "queries"),
                 "--output", str(tmp_path / "out")]) == 1
    assert "the support has no label '5'; it has 128 (label 128)" in capsys.readouterr().err


def test_pictures_with_several_labels_give_a_label_map(tmp_path, small_bundle):
    """And the scores, overlays and maps of each."""
    _, labels = labelled(tmp_path / "support")
    more = labels.astype(np.uint8) * 3
    more[:, :9, :9] = 7
    for i, label in enumerate(more):
        Image.fromarray(label).save(tmp_path / "support" / "labels" / f"case{i}.png")
    write_folder(tmp_path / "queries", *discs(2, 40, 50, seed=4))
    run = ["--bundle", str(small_bundle), "--support", str(tmp_path / "support"), "--input",
           str(tmp_path / "queries" / "images"), "--output", str(tmp_path / "out"), "--probabilities", "--overlays",
           "--post", "largest-component", "--truth", str(tmp_path / "queries" / "labels")]
    assert main(run) == 0
    rows = json.loads((tmp_path / "out" / "report.json").read_text())["images"]
    for row in rows:
        mask = np.array(Image.open(tmp_path / "out" / row["mask"]))
        assert mask.shape == (40, 50) and set(np.unique(mask)) <= {0, 3, 7}
        assert list(row["labels"]) == ["label 3", "label 7"]
        for name, value in (("label 3", 3), ("label 7", 7)):
            assert row["labels"][name]["foreground_pixels"] == (mask == value).sum()
            assert np.load(tmp_path / "out" / row["probability"][name]).shape == (40, 50)
    assert main([*run, "--resume"]) == 0
    assert json.loads((tmp_path / "out" / "report.json").read_text())["images"] == rows


@pytest.fixture
def volumes(tmp_path):
    """Labelled volumes as a support folder, and a volume to segment."""
    nibabel = pytest.importorskip("nibabel", reason="volumes need nibabel: pip install '.[medical]'")
    from .test_volumes import AFFINE, head

    for folder, seeds in (("support", (1, 2)), ("scans", (3,))):
        for seed in seeds:
            for part, values in zip(("images", "labels"), head(seed)):
                path = tmp_path / folder / part / "group" / f"v{seed}.nii.gz"
                path.parent.mkdir(parents=True, exist_ok=True)
                nibabel.save(nibabel.Nifti1Image(values, AFFINE), path)
    return tmp_path


def test_labelled_volumes_are_a_support(volumes, small_bundle):
    run = ["--bundle", str(small_bundle), "--support", str(volumes / "support"), "--input",
           str(volumes / "scans" / "images"), "--output", str(volumes / "out"), "--truth",
           str(volumes / "scans" / "labels"), "--axis", "coronal", "--slices", "6", "--label", "2=ball", "--html"]
    assert main(run) == 0
    report = json.loads((volumes / "out" / "report.json").read_text())
    assert report["support"]["entries"] == 8, "six with the label and two without"
    assert report["labels"] == {"ball": 2} and report["images"][0]["axis"] == "coronal"
    assert "dice" in report["images"][0] and (volumes / "out" / "report.html").is_file()


def test_pictures_are_judged_by_their_look_alone_only_where_that_is_asked_for(volumes, small_bundle):
    (volumes / "pictures").mkdir()
    ramp = (np.add.outer(np.arange(24), np.arange(28)) * 4).astype(np.uint8)
    Image.fromarray(ramp).save(volumes / "pictures" / "a.png")
    run = ["--bundle", str(small_bundle), "--support", str(volumes / "support"), "--input", str(volumes / "pictures"),
           "--output", str(volumes / "out"), "--axis", "axial", "--label", "2"]
    for options, told in (([], False), (["--absent-below", "1"], True)):
        assert main([*run, *options]) == 0
        (row,) = json.loads((volumes / "out" / "report.json").read_text())["images"]
        assert any("taken to be absent" in note for note in row["notes"]) == told


@pytest.mark.parametrize("by", ["area", "even", "similar"])
def test_slices_of_the_support_by_area_evenly_or_by_likeness(volumes, small_bundle, by):
    run = ["--bundle", str(small_bundle), "--support", str(volumes / "support"), "--input",
           str(volumes / "scans" / "images"), "--output", str(volumes / "out"), "--axis", "axial", "--by", by,
           "--slices", "4", "--absent", "1"]
    assert main(run) == 0
    report = json.loads((volumes / "out" / "report.json").read_text())
    choice = SliceChoice("axial", 4, 1, by)
    query = read_volume(volumes / "scans" / "images" / "group" / "v3.nii.gz")
    expected = labelled_support_of_volumes(volume_pairs(volumes / "support"), choice=choice, query=query)
    assert report["support"] == {"entries": 5, "sha256": expected.sha256, "slices": 4, "absent": 1, "by": by}


def test_the_report_has_the_slices_that_were_taken(volumes, small_bundle, capsys):
    run = ["--bundle", str(small_bundle), "--support", str(volumes / "support"), "--input",
           str(volumes / "scans" / "images"), "--output", str(volumes / "out"), "--axis", "axial", "--label", "2",
           "--slices", "6", "--absent", "99"]
    assert main(run) == 0
    report = json.loads((volumes / "out" / "report.json").read_text())
    choice = SliceChoice("axial", 6, 99)
    expected = labelled_support_of_volumes(volume_pairs(volumes / "support"), [2], choice)
    absent = sum(not label.any() for label in expected.labels)
    assert 0 < absent < 99 and report["support"]["absent"] == absent and report["support"]["slices"] == 6
    note = f"--absent 99: the volumes have {absent} slices without that can be taken"
    assert note in report["notes"] and f"note on the support: {note}" in capsys.readouterr().err


def test_a_query_that_cannot_be_read_is_named_where_slices_are_to_be_like_it(volumes, small_bundle, capsys):
    scan = volumes / "scans" / "images" / "group" / "v3.nii.gz"
    scan.write_bytes(b"no volume at all")
    run = ["--bundle", str(small_bundle), "--support", str(volumes / "support"), "--input",
           str(volumes / "scans" / "images"), "--output", str(volumes / "out"), "--by", "similar"]
    assert main(run) == 1 and "v3.nii.gz cannot be read" in capsys.readouterr().err


def test_likeness_needs_a_volume_to_be_like(volumes, small_bundle, capsys):
    Image.fromarray(np.arange(400, dtype=np.uint8).reshape(20, 20)).save(volumes / "picture.png")
    run = ["--bundle", str(small_bundle), "--support", str(volumes / "support"), "--input",
           str(volumes / "picture.png"), "--output", str(volumes / "out"), "--by", "similar"]
    assert main(run) == 1 and "slices by similarity need a query" in capsys.readouterr().err


@pytest.mark.parametrize("more", [["--freeze", "exact"], ["--refine", "window"], ["--region", "2", "2", "20", "9"],
                                  ["--absent-below", "1"], ["--policy", "nearest", "--support-size", "3"],
                                  ["--window", "60", "200"], ["--window", "soft-tissue"]])
def test_options_of_answers(volumes, small_bundle, more):
    run = ["--bundle", str(small_bundle), "--support", str(volumes / "support"), "--input",
           str(volumes / "scans" / "images"), "--output", str(volumes / "out"), "--axis", "axial", *more]
    assert main(run) == 0
    report = json.loads((volumes / "out" / "report.json").read_text())
    (row,) = report["images"]
    if more[0] == "--region":
        assert {"asked for"}.isdisjoint(each["reason"] for each in report["refine"].values()) and report["refine"]
        import nibabel

        labels = np.asarray(nibabel.load(volumes / "out" / row["mask"][0]).dataobj)
        assert (labels != 0).sum() <= 18 * 7 * 12 and report["region"] == [2, 2, 20, 9]
    if more[0] == "--absent-below":
        assert row["foreground_pixels"] == 0 and row["labels"]["label 2"]["absent"]
    if more[0] == "--freeze":
        assert report["task"]["label 2"]["kind"] == "exact"
    if more[0] == "--refine":
        assert report["refine"]["label 5"]["kind"] == "window"


@pytest.mark.parametrize("more, message", [
    (["--region", "5", "0", "5", "9"], "--region is (5, 0, 5, 9); accepted: top, left, bottom, right within the image"),
    (["--region", "0", "9", "5", "3"], "the first two below the others"), (["--region", "-1", "0", "5", "3"], "-1"),
    (["--region", "0", "0", "5", "5", "--absent-below", "0.5"], "give one of the two"),
    (["--freeze", "auto", "--refine", "auto"], "--refine: a frozen task cannot look again"),
    (["--window", "soft"], "there is no window 'soft'"), (["--window", "1", "2", "3"], "give LOW and HIGH"),
    (["--window", "a", "b"], "give LOW and HIGH"), (["--post", "polish"], "the step 'polish' is unknown"),
    (["--slices", "0"], "slices is 0"), (["--slices", "-3"], "slices is -3"),
    (["--label", "9"], "label '9' is in no slice"), (["--absent-below", "2"], "--absent-below is 2.0; give a number"),
])
def test_options_that_are_refused(volumes, small_bundle, more, message, capsys):
    run = ["--bundle", str(small_bundle), "--support", str(volumes / "support"), "--input",
           str(volumes / "scans" / "images"), "--output", str(volumes / "out"), *more]
    assert main(run) == 1
    assert message in capsys.readouterr().err and not (volumes / "out").exists()


def test_a_query_of_another_plane_than_the_support_has_a_note(volumes, small_bundle, capsys):
    import nibabel

    image, labels = (np.asarray(nibabel.load(volumes / "support" / part / "group" / "v1.nii.gz").dataobj)
                     for part in ("images", "labels"))
    for name, scale in (("axial", (1, 1, 4, 1)), ("sagittal", (4, 1, 1, 1))):
        for part, values in (("images", np.stack([image, image], 3)), ("labels", labels)):
            (volumes / name / part).mkdir(parents=True)
            nibabel.save(nibabel.Nifti1Image(values, np.diag(scale)), volumes / name / part / "p.nii.gz")
    run = ["--bundle", str(small_bundle), "--support", str(volumes / "axial"), "--input",
           *(str(volumes / name / "images") for name in ("axial", "sagittal")), "--output", str(volumes / "out")]
    assert main(run) == 1 and "say which one with --time, 0 to 1" in capsys.readouterr().err
    assert main([*run, "--time", "1"]) == 0
    rows = json.loads((volumes / "out" / "report.json").read_text())["images"]
    said = [[note for note in row["notes"] if "those of the support axial" in note] for row in rows]
    assert [len(notes) for notes in said] == [0, 1] and "its slices are sagittal" in said[1][0]
    assert said[1][0].endswith("whether a label is absent is not judged")
    kinds = [{line["kind"] for line in csv.DictReader((volumes / "out" / row["table"]).open())} for row in rows]
    assert "absent" in kinds[0] and "absent" not in kinds[1]
