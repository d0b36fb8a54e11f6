"""`universeg-segment --task`: the masks of a frozen file, what the report says of it, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from universeg_rt import InputError, Segmenter, SupportSet
from universeg_rt.bundle.onnx_file import metadata
from universeg_rt.cli.segment import main
from universeg_rt.frozen import seal
from universeg_rt.frozen.record import KEY
from universeg_rt.frozen_task import FrozenTask

from ...conftest import discs, native_part
from ..test_support import write_folder


@pytest.fixture(scope="module")
def files(tmp_path_factory, small_bundle):
    """The two kinds as files, and the support they are of."""
    folder = tmp_path_factory.mktemp("frozen")
    support = SupportSet.from_arrays(*discs(5))
    task = Segmenter.open(small_bundle).prepare(support)
    for kind in ("static", "exact"):
        task.freeze(kind=kind).save(folder / f"{kind}.onnx")
    return folder, support


@pytest.fixture
def case(tmp_path, files):
    """Queries, their images and true masks, and the arguments for a static task."""
    images, labels = discs(3, 50, 44, seed=8)
    write_folder(tmp_path / "queries", images, labels)
    arguments = ["--task", str(files[0] / "static.onnx"), "--input", str(tmp_path / "queries" / "images"), "--output",
                 str(tmp_path / "out")]
    return tmp_path, images, arguments


def report_of(folder) -> dict:
    return json.loads((folder / "out" / "report.json").read_text())


@pytest.mark.parametrize("kind, runner", [
    ("static", "native"), ("static", "onnxruntime"), ("exact", "native"), ("exact", "onnxruntime"), ("static", "auto")])
def test_masks_are_those_of_the_frozen_task(case, files, kind, runner, capsys):
    folder, images, arguments = case
    if runner == "native":
        native_part()
    path, support = files[0] / f"{kind}.onnx", files[1]
    options = ["--runner", runner, "--threads", "1", "--probabilities", "--overlays", "--truth",
               str(folder / "queries" / "labels")]
    assert main(["--task", str(path), *arguments[2:], *options]) == 0
    frozen, report = FrozenTask.open(path, runner=runner, threads=1), report_of(folder)
    for image, row in zip(images, report["images"], strict=True):
        prediction = frozen.predict(image)
        assert np.array_equal(np.array(Image.open(folder / "out" / row["mask"])) > 0, prediction.mask)
        assert np.array_equal(np.load(folder / "out" / row["probability"]), prediction.probability)
        assert 0 <= row["dice"] <= 1
    task = report["task"]
    assert (task["kind"], task["reason"], task["sha256"]) == (kind, "asked for", frozen.sha256)
    assert task["price"]["static_dice"] == frozen.price.static_dice
    assert report["support"] == {"entries": 5, "sha256": support.sha256}
    assert report["runner"] == {"name": frozen.runner.name, "precision": "fp32"}
    assert report["bundle"]["licence"] == frozen.record.licence == {"weights": "none"}
    assert report["aspect"] == "stretch" and report["normalise"] == "minmax"
    out = capsys.readouterr().out
    assert "3 of 3 images segmented" in out
    assert f"a frozen task, {kind}, marked from {frozen.threshold:g} on: asked for; {frozen.price}" in out
    assert task["threshold"] == frozen.threshold


def test_a_run_is_gone_on_with_by_the_same_task_only(case, files, small_bundle, capsys):
    folder, _, arguments = case
    assert main(arguments) == 0
    before = report_of(folder)["images"]
    assert main([*arguments, "--resume"]) == 0
    assert report_of(folder)["images"] == before
    capsys.readouterr()
    assert main(["--task", str(files[0] / "exact.onnx"), *arguments[2:], "--resume"]) == 1
    assert "is of another run" in capsys.readouterr().err
    files[1].save(folder / "support.npz")
    of_support = ["--bundle", str(small_bundle), "--support", str(folder / "support.npz"), *arguments[2:]]
    assert main([*of_support, "--resume"]) == 1
    assert "is of another run" in capsys.readouterr().err
    assert main(of_support) == 0 and report_of(folder)["task"] is None


def test_a_support_and_a_task_exclude_each_other(case):
    _, _, arguments = case
    for wrong in ([*arguments, "--support", "examples"], arguments[2:]):
        with pytest.raises(SystemExit) as ended:
            main(wrong)
        assert ended.value.code == 2


@pytest.mark.parametrize("options", [
    ["--members", "2"], ["--support-size", "3"], ["--aspect", "pad"], ["--window", "0", "9"], ["--seed", "1"],
    ["--percentiles", "1", "99"], ["--bundle", "folder"], ["--replacement"], ["--precision", "fp32"],
    ["--aspect", "stretch"], ["--members", "1"]])
def test_what_the_file_states_is_no_option(case, options, capsys):
    folder, _, arguments = case
    assert main([*arguments, *options]) == 1
    assert f"{options[0]}: a frozen task states this itself" in capsys.readouterr().err
    assert not (folder / "out").exists()


def changed(model: bytes, old: bytes, new: bytes) -> bytes:
    """With its seal made anew, so that what is behind it is looked at."""
    assert old in model and len(old) == len(new)
    return seal.sealed(model[: -len(seal.sealed(b""))].replace(old, new))


@pytest.mark.parametrize("change, message", [
    (lambda m: m[: len(m) // 2] + bytes([m[len(m) // 2] ^ 1]) + m[len(m) // 2 + 1 :], "changed after it was written"),
    (lambda m: m[:-40], "is no frozen task"),
    (lambda m: changed(m, b'"format": 4', b'"format": 7'), "its record is not of format 4"),
    (lambda m: changed(m, KEY.encode(), b"universeg.thawed"), f"it has no '{KEY}' among its metadata"),
    (lambda m: changed(m, b'"grid": [32, 32]', b'"grid": [32, -2]'), "not a height and a width"),
    (lambda m: b"", "no version or no graph"),
])
def test_a_bad_file_is_one_line_and_nothing_is_written(case, files, change, message, capsys):
    folder, _, arguments = case
    (folder / "bad.onnx").write_bytes(change((files[0] / "static.onnx").read_bytes()))
    assert main(["--task", str(folder / "bad.onnx"), *arguments[2:]]) == 1
    err = capsys.readouterr().err.strip()
    assert message in err and "bad.onnx" in err and "\n" not in err and err.endswith("universeg-export --freeze wrote")
    assert not (folder / "out").exists()


@pytest.mark.parametrize("options, message", [
    (["--task", "absent.onnx"], "absent.onnx does not exist"),
    (["--runner", "tensorrt"], "no tensorrt engine beside this file"),
    (["--threads", "0"], "threads is 0"),
])
def test_a_file_or_runner_that_is_not_there(case, options, message, capsys):
    folder, _, arguments = case
    assert main([*arguments, *options]) == 1
    assert message in capsys.readouterr().err
    assert not (folder / "out").exists()


def test_the_record_is_what_the_file_says(files):
    model = (files[0] / "static.onnx").read_bytes()
    frozen = FrozenTask.open(files[0] / "static.onnx")
    assert json.loads(metadata(model)[KEY])["support_sha256"] == files[1].sha256 == frozen.record.support_sha256
    assert frozen.size == len(model)
    with pytest.raises(InputError, match="accepted for a frozen task"):
        FrozenTask.open(files[0] / "static.onnx", runner="elsewhere")


def test_a_cure_of_freezing_is_in_the_words_of_this_command(case, small_bundle, tmp_path, capsys):
    _, _, arguments = case
    SupportSet.from_arrays(*discs(2)).save(tmp_path / "two.npz")
    of_support = ["--bundle", str(small_bundle), "--support", str(tmp_path / "two.npz"), *arguments[2:]]
    assert main([*of_support, "--freeze", "static"]) == 1
    assert capsys.readouterr().err.strip().endswith("leaving some out needs 3; take --freeze exact")
