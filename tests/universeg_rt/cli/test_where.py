"""`universeg-segment --within` and `--follow`: each label around another one, or around the slice before."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

nibabel = pytest.importorskip("nibabel", reason="volumes need nibabel: pip install '.[medical]'")

from universeg_rt import Segmenter
from universeg_rt.cli import volumes
from universeg_rt.cli.segment import main
from universeg_rt.labelled import LabelledSupport
from universeg_rt.volumes.reading import read_volume
from universeg_rt.volumes.slicing import Slices, intensity_range

from .test_volumes import NAME, case, head, row_of, write  # noqa: F401 (a fixture)


def report_of(folder) -> dict:
    return json.loads((folder / "out" / "report.json").read_text())


def probabilities_of(folder, value: int) -> np.ndarray:
    """(slices, H, W) of a label, as they were sliced."""
    path = folder / "scans" / "p1" / f"{NAME}.nii.gz"
    volume = read_volume(path)
    slices = Slices.of(volume.geometry, volume.acquired, "axial")
    found = np.asarray(nibabel.load(folder / "out" / f"probabilities/p1/{NAME}.label{value}.nii.gz").dataobj)
    return np.stack([slices.take(found, i) for i in range(len(slices))])


@pytest.fixture
def refined(case, small_bundle):
    """What the SDK answers by: a refined task for each label, the slices, the range of their volume."""
    folder, _ = case
    task = Segmenter.open(small_bundle).prepare_labels(LabelledSupport.load(folder / "support")).refine("off")
    volume = read_volume(folder / "scans" / "p1" / f"{NAME}.nii.gz")
    slices = Slices.of(volume.geometry, volume.acquired, "axial")
    return task, [slices.take(volume.values, i) for i in range(len(slices))], intensity_range(volume.values)


@pytest.mark.parametrize("label, first, second", [("2", 2, 5), ("other", 5, 2)])
def test_other_labels_are_looked_for_around_one(case, refined, label, first, second):
    folder, arguments = case
    names = {2: "label 2", 5: "other"}
    assert main([*arguments, "--label", "2", "5=other", "--within", label, "--probabilities"]) == 0
    assert report_of(folder)["within"] == names[first]
    task, slices, limits = refined
    around, inside = task.answering[f"label {first}"], task.answering[f"label {second}"]
    whole = around.predict_batch(slices, volume_range=limits)
    wanted = inside.predict_in(slices, [each.mask for each in whole], volume_range=limits)
    assert np.array_equal(probabilities_of(folder, first), [each.probability for each in whole])
    assert np.array_equal(probabilities_of(folder, second), [each.probability for each in wanted])
    plain = [each.probability for each in inside.predict_batch(slices, volume_range=limits)]
    assert not np.array_equal([each.probability for each in wanted], plain), "windows change answers"


def without_axis(arguments: list[str]) -> list[str]:
    """For pictures alone, beside which an axis is refused."""
    place = arguments.index("--axis")
    return arguments[:place] + arguments[place + 2:]


def test_within_is_for_pictures_too(case, refined):
    folder, arguments = case
    task, slices, _ = refined
    (folder / "scans" / "p1" / f"{NAME}.nii.gz").unlink()
    Image.fromarray(slices[5].astype(np.uint16)).save(folder / "scans" / "picture.png")
    assert main([*without_axis(arguments), "--within", "5", "--probabilities"]) == 0
    mask = task.answering["label 5"].predict(slices[5]).mask
    (wanted,) = task.answering["label 2"].predict_in([slices[5]], [mask])
    assert np.array_equal(np.load(folder / "out" / row_of(folder)["probability"]["label 2"]), wanted.probability)


@pytest.mark.parametrize("block", [4, 5, 64])
def test_slices_are_followed_across_blocks(case, refined, monkeypatch, block):
    folder, arguments = case
    monkeypatch.setattr(volumes, "_block", lambda *_: block)
    assert main([*arguments, "--follow", "--probabilities"]) == 0
    assert report_of(folder)["follow"] is True
    task, slices, limits = refined
    for value in (2, 5):
        each = task.answering[f"label {value}"]
        found = probabilities_of(folder, value)
        assert np.array_equal(found, [one.probability for one in each.predict_in_order(slices, volume_range=limits)])
        apart = [one.probability for at in range(0, 12, 4)
                 for one in each.predict_in_order(slices[at : at + 4], volume_range=limits)]
        assert not np.array_equal(found, apart), "the first slice of a block depends on the block before"


def test_an_interrupted_volume_is_followed_on_where_it_stood(case, monkeypatch):
    folder, arguments = case
    arguments = [*arguments, "--follow", "--probabilities"]
    monkeypatch.setattr(volumes, "_block", lambda *_: 4)
    assert main(arguments) == 0
    whole = {file: (folder / "out" / file).read_bytes() for file in row_of(folder)["files"]}
    calls, original = [], volumes._facts

    def interrupted(*given):
        calls.append(1)
        if len(calls) == 7:
            raise KeyboardInterrupt
        return original(*given)

    monkeypatch.setattr(volumes, "_facts", interrupted)
    assert main(arguments) == 130
    monkeypatch.setattr(volumes, "_facts", original)
    assert main([*arguments, "--resume"]) == 0
    assert "was interrupted after 4 of 12 slices" in str(row_of(folder)["notes"])
    assert {file: (folder / "out" / file).read_bytes() for file in whole} == whole


def test_pictures_beside_followed_volumes_are_looked_at_whole(case, refined):
    folder, arguments = case
    task, slices, _ = refined
    Image.fromarray(slices[5].astype(np.uint16)).save(folder / "scans" / "picture.png")
    assert main([*arguments, "--follow", "--probabilities"]) == 0
    row = next(row for row in report_of(folder)["images"] if row["name"] == "picture")
    wanted = task.answering["label 2"].predict(slices[5]).probability
    assert np.array_equal(np.load(folder / "out" / row["probability"]["label 2"]), wanted)


@pytest.mark.parametrize("more", [["--follow"], ["--within", "5"], ["--region", "2", "2", "20", "9"]])
def test_slices_of_the_support_are_not_scored_in_windows_either(case, more):
    folder, arguments = case
    for part, values in zip(("scans", "truth"), head(1)):
        write(folder / part / "p1" / f"{NAME}.nii.gz", values)
    assert main([*arguments, "--truth", str(folder / "truth"), *more]) == 0
    assert row_of(folder)["in_support"] == 4


def test_where_to_look_is_resumed_with_the_same_options_only(case, capsys):
    folder, arguments = case
    assert main([*arguments, "--within", "5"]) == 0
    for more, said in (["--within", "2"], "within was"), (["--follow"], "follow was false, is true"):
        assert main([*arguments, *more, "--resume"]) == 1
        assert said in capsys.readouterr().err


@pytest.mark.parametrize("more, message", [
    (["--within", "5", "--follow"], "--follow, --within: each says where to look; give one of them"),
    (["--within", "5", "--region", "0", "0", "5", "5"], "--region, --within: each says where to look"),
    (["--follow", "--absent-below", "0.5"], "--follow and --absent-below: presence is judged of whole images"),
    (["--follow", "--freeze", "auto"], "--follow: a frozen task cannot look again"),
    (["--within", "5", "--freeze", "auto"], "--within: a frozen task cannot look again"),
    (["--within", "9"], "the support has no label '9'; it has 2 (label 2), 5 (label 5)"),
    (["--within", "5", "--label", "5"], "--within 5: there is one label"),
])
def test_what_cannot_be_together_is_refused(case, more, message, capsys):
    folder, arguments = case
    assert main([*arguments, *more]) == 1
    assert message in capsys.readouterr().err and not (folder / "out").exists()


def test_a_frozen_file_looks_nowhere_else(case, capsys):
    folder, arguments = case
    (folder / "task.onnx").touch()
    assert main(["--task", str(folder / "task.onnx"), *arguments[4:], "--within", "5"]) == 1
    assert "--within: not with a frozen task; leave it out, or give --support" in capsys.readouterr().err


def test_pictures_alone_are_not_followed(case, refined, capsys):
    folder, arguments = case
    (folder / "scans" / "p1" / f"{NAME}.nii.gz").unlink()
    Image.fromarray(refined[1][5].astype(np.uint16)).save(folder / "scans" / "picture.png")
    assert main([*without_axis(arguments), "--follow"]) == 1
    assert "--follow: --input holds no volumes" in capsys.readouterr().err and not (folder / "out").exists()
