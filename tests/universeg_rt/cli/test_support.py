"""universeg-support: what it writes and says is what the SDK finds; bad input is one line and exit status 1."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from PIL import Image

from universeg_rt import SupportSet
from universeg_rt.cli import support as command
from universeg_rt.cli.support import SHEET, TABLE
from universeg_rt.supports.select import select
from universeg_rt.supports.volumes import SliceChoice, support_of_volumes, volume_pairs

from ...conftest import discs
from ..supports.made import ball
from ..supports.made import write as write_ball
from ..volumes.made import write_series


@pytest.fixture
def saved(tmp_path):
    images, labels = discs(10)
    labels[4] = False
    support = SupportSet.from_arrays(images, labels, [f"case {i}" for i in range(10)])
    support.save(tmp_path / "support.npz")
    return tmp_path / "support.npz"


def test_show_writes_a_sheet_and_a_table(saved, tmp_path, capsys, small_bundle):
    arguments = ["show", str(saved), "--output", str(tmp_path / "out"), "--bundle", str(small_bundle)]
    assert command.main(arguments) == 0
    said = capsys.readouterr().out
    table = json.loads((tmp_path / "out" / TABLE).read_text())
    assert table["sha256"] == SupportSet.load(saved).sha256 and len(table["entries"]) == 10
    assert table["entries"][4]["suspicions"][0]["kind"] == "empty" and "case 4: empty: " in said
    areas = [label.mean() for label in SupportSet.load(saved).labels]
    assert [entry["area"] for entry in table["entries"]] == areas
    assert all(entry["dice"] is not None for entry in table["entries"])
    for entry in table["entries"]:
        line = next(line for line in said.splitlines() if line.startswith(entry["name"] + " "))
        assert f"{entry['area']:.2%}" in line and f"{entry['dice']:.2f}" in line
    assert np.array(Image.open(tmp_path / "out" / SHEET)).ndim == 3
    assert command.main([*arguments, "--no-network"]) == 0
    table = json.loads((tmp_path / "out" / TABLE).read_text())
    assert all(entry["dice"] is None for entry in table["entries"])


def test_prune_writes_what_is_left_and_says_why(saved, tmp_path, capsys, small_bundle, monkeypatch):
    monkeypatch.setattr("universeg_rt.supports.prune._score", lambda runner, entries, query, chosen, done:
                        0.0 if query == 7 else 0.9 - 0.3 * (7 in chosen))
    out = tmp_path / "pruned.npz"
    assert command.main(["prune", str(saved), "--output", str(out), "--least", "4", "--bundle", str(small_bundle)]) == 0
    assert SupportSet.load(out).names == tuple(f"case {i}" for i in range(10) if i != 7)
    said = capsys.readouterr().out
    assert re.search(r"case 7: Dice 0.00 by the others; without it \d+ others gain \+0.300 Dice .*: dropped", said)
    assert "9 of 10 entries in" in said


def test_select_writes_the_most_similar(saved, tmp_path, capsys):
    support = SupportSet.load(saved)
    Image.fromarray(support.images[3]).save(tmp_path / "query.png")
    out = tmp_path / "like.npz"
    assert command.main(["select", str(saved), "--query", str(tmp_path / "query.png"), "--count", "4", "--output",
                         str(out)]) == 0
    assert len(SupportSet.load(out)) == 4 and capsys.readouterr().out.startswith("1.000  case 3\n")


def test_a_label_of_several_values_is_chosen(tmp_path, capsys):
    images, labels = discs(6)
    maps = labels.astype(np.uint8) * 5
    arguments = ["show", str(tmp_path / "s.npz"), "--output", str(tmp_path / "out"), "--no-network"]
    np.savez(tmp_path / "s.npz", images=images, labels=maps)
    assert command.main(arguments) == 0, "two values are a mask"
    maps[:, :3, :3] = 7
    np.savez(tmp_path / "s.npz", images=images, labels=maps)
    assert command.main(arguments) == 1 and "5 (label 5), 7 (label 7); say which" in capsys.readouterr().err
    assert command.main([*arguments, "--label", "5"]) == 0
    assert command.main([*arguments, "--label", "6"]) == 1 and "has no label '6'" in capsys.readouterr().err


@pytest.fixture
def volume(tmp_path):
    """A support of one volume, whose slices are discs and the label 2, or 0 in two of them."""
    nibabel = pytest.importorskip("nibabel", reason="volumes need nibabel: pip install '.[medical]'")
    images, labels = discs(12)
    labels[[0, 11]] = False
    for part, stack in (("images", images), ("labels", labels.astype(np.uint8) * 2)):
        (tmp_path / "s" / part).mkdir(parents=True)
        nibabel.save(nibabel.Nifti1Image(stack.transpose(2, 1, 0), np.eye(4)), tmp_path / "s" / part / "p1.nii.gz")
    return tmp_path / "s"


def test_slices_without_the_label_are_counted_and_not_suspicious(volume, tmp_path, capsys, small_bundle):
    shown = ["show", str(volume), "--output", str(tmp_path / "out"), "--bundle", str(small_bundle), "--axis", "axial"]
    assert command.main([*shown, "--absent", "2"]) == 0
    said, table = capsys.readouterr().out, json.loads((tmp_path / "out" / TABLE).read_text())
    assert "without the label, as absence looks like: 2 of 12 entries" in said and table["absent"] == 2
    assert not any(entry["suspicions"] for entry in table["entries"] if entry["area"] == 0)
    saved = support_of_volumes(volume_pairs(volume), 2, SliceChoice(absent=2))
    saved.save(tmp_path / "slices.npz")  # their names say that they are slices
    assert command.main(["show", str(tmp_path / "slices.npz"), *shown[2:-2]]) == 0
    assert json.loads((tmp_path / "out" / TABLE).read_text())["absent"] == 2


@pytest.mark.parametrize("kind", ["nifti", "series", "folder of both"])
def test_select_takes_volumes_as_queries(volume, saved, tmp_path, capsys, kind):
    """They are their slices, along the axis of the support."""
    import nibabel

    images = np.asarray(nibabel.load(volume / "images" / "p1.nii.gz").dataobj)
    (tmp_path / "q").mkdir()
    query = tmp_path / "q" / "some.nii.gz"
    if kind == "series":
        pytest.importorskip("highdicom", reason="DICOM needs highdicom: pip install '.[medical]'")
        stack = np.asarray(images[:, :, 3:6]).transpose(2, 1, 0).astype(np.int16)
        write_series(tmp_path / "q" / "series", frames=3, size=stack.shape[1:], values=stack)
        query = tmp_path / "q" / "series"
    else:
        nibabel.save(nibabel.Nifti1Image(images[:, :, 3:6], np.eye(4)), query)
    if kind == "folder of both":
        Image.fromarray(images[::-1, ::-1, 8].T.astype(np.uint8)).save(tmp_path / "q" / "picture.png")
        query = tmp_path / "q"
    out = tmp_path / "like.npz"
    arguments = ["select", str(volume), "--query", str(query), "--count", "4", "--output", str(out)]
    assert command.main([*arguments, "--axis", "axial", "--slices", "12"]) == 0
    asked = [images[::-1, ::-1, i].T for i in ([8] if kind == "folder of both" else []) + [3, 4, 5]]
    support = support_of_volumes(volume_pairs(volume), 2, SliceChoice("axial", 12))
    if kind != "series":  # which lies otherwise in the patient
        assert SupportSet.load(out).names == select(support, asked, 4).support.names
    by = [*arguments, "--axis", "axial", "--slices", "4", "--absent", "0", "--by", "similar"]
    assert command.main(by) == 0
    assert len(SupportSet.load(out)) == 4
    pictures = [*arguments[:1], str(saved), *arguments[2:]]
    assert command.main([*pictures, "--axis", "coronal"]) == 0, "pictures that slices are compared with"
    capsys.readouterr()
    assert command.main([*pictures, "--slices", "3"]) == 1 and "--slices: there are no" in capsys.readouterr().err


def test_by_similarity_to_what(volume, tmp_path, capsys):
    assert command.main(["show", str(volume), "--output", str(tmp_path / "o"), "--by", "similar"]) == 1
    assert "--by similar: to what? Give a volume as --query of universeg-support select" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert command.main(["select", str(volume), "--query", str(tmp_path / "empty"), "--count", "2", "--output",
                         str(tmp_path / "o.npz")]) == 1
    assert "holds no images and no volumes" in capsys.readouterr().err


def test_a_folder_of_volumes_is_a_support(volume, tmp_path, capsys):
    import nibabel

    images = np.asarray(nibabel.load(volume / "images" / "p1.nii.gz").dataobj)
    arguments = ["show", str(volume), "--output", str(tmp_path / "out"), "--no-network"]
    assert command.main([*arguments, "--label", "2", "--slices", "5", "--by", "even", "--absent", "0"]) == 0
    table = json.loads((tmp_path / "out" / TABLE).read_text())
    assert len(table["entries"]) == 5 and all(entry["name"].startswith("p1 axial ") for entry in table["entries"])
    capsys.readouterr()
    four = np.stack([images] * 2, 3)
    nibabel.save(nibabel.Nifti1Image(four, np.eye(4)), tmp_path / "s" / "images" / "p1.nii.gz")
    arguments += ["--axis", "axial"]
    assert command.main([*arguments, "--label", "2"]) == 1 and "with --time, 0 to 1" in capsys.readouterr().err
    assert command.main([*arguments, "--label", "2", "--time", "1"]) == 0
    assert command.main([*arguments, "--time", "1"]) == 0, "there is one label alone"


@pytest.mark.parametrize("arguments, message", [
    (["show", "nowhere.npz", "--output", "out"], "nowhere.npz"),
    (["prune", "{saved}", "--output", "out.npz", "--least", "10"], "none can be dropped"),
    (["select", "{saved}", "--query", "nothing.png", "--count", "2", "--output", "out.npz"], "nothing.png"),
    (["select", "{saved}", "--query", "{image}", "--count", "11", "--output", "out.npz"], "accepted: 1 to 10"),
    (["show", "{saved}", "--output", "{saved}"], "support.npz"),
    (["show", "{saved}", "--output", "out", "--by", "even", "--absent", "2"], "--absent, --by: there are no volumes"),
    (["show", "{saved}", "--output", "out", "--axis", "axial", "--slices", "9"], "--axis, --slices: there are no"),
])
def test_bad_input_is_one_line(saved, tmp_path, capsys, monkeypatch, small_bundle, arguments, message):
    monkeypatch.chdir(tmp_path)
    Image.fromarray(discs(1)[0][0]).save(tmp_path / "q.png")
    arguments = [each.format(saved=saved, image=tmp_path / "q.png") for each in arguments]
    arguments += ["--bundle", str(small_bundle)] if arguments[0] != "select" else []
    assert command.main(arguments) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("universeg-support: ") and message in said
    assert not (tmp_path / "out.npz").exists()


def test_fewer_slices_than_asked_for_are_told(tmp_path, capsys):
    folder = tmp_path / "labelled"
    write_ball(folder, "p1", ball())
    asked = ["show", str(folder), "--output", str(tmp_path / "out"), "--axis", "axial", "--no-network"]
    assert command.main([*asked, "--slices", "100", "--absent", "3"]) == 0
    assert "note: --slices 100: the volumes have 11 slices with a label that can be taken\n" in capsys.readouterr().out
    assert command.main([*asked, "--slices", "4"]) == 0
    assert "note:" not in capsys.readouterr().out


@pytest.mark.parametrize("action, more", [("prune", []), ("select", ["--count", "2", "--query"])])
def test_a_missing_folder_is_told_before_anything_is_computed(saved, tmp_path, capsys, monkeypatch, action, more):
    Image.fromarray(discs(1)[0][0]).save(tmp_path / "q.png")
    monkeypatch.setattr(command, "load_one_label", None)
    more = [*more, str(tmp_path / "q.png")] if more else more
    assert command.main([action, str(saved), "--output", str(tmp_path / "no" / "out.npz"), *more]) == 1
    assert "there is no folder" in capsys.readouterr().err
