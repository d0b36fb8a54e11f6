"""`universeg-export --freeze --precision`: int8 and fp16, what they cost, and where they are refused."""

from __future__ import annotations

import numpy as np
import pytest

from universeg_rt import Segmenter, SupportSet
from universeg_rt.errors import RunnerError
from universeg_rt.export.cli import main
from universeg_rt.frozen_task import FrozenTask
from universeg_rt.imaging.metrics import dice

from ..conftest import discs
from ..universeg_rt.cli.test_commands import run
from ..universeg_rt.test_support import write_folder
from .test_freeze import case, printed  # noqa: F401 (a fixture)


@pytest.mark.parametrize("own", [True, False])
def test_int8_states_what_rounding_costs_and_runs_on_both_runtimes(tmp_path, own, capsys):
    pytest.importorskip("onnx", reason="int8 needs onnx: pip install '.[export]'")
    images, labels = (np.kron(each, np.ones((1, 4, 4), each.dtype)) for each in discs(9, 32, 32))
    np.savez(tmp_path / "support.npz", images=images[:5], labels=labels[:5])
    write_folder(tmp_path / "proxies", images[5:7], labels[5:7])
    arguments = ["--freeze", str(tmp_path / "support.npz"), "--kind", "static", "--threshold", "0.3", "--output"]
    arguments = arguments if own else ["--proxies", str(tmp_path / "proxies" / "images"), *arguments]
    assert main([*arguments, str(tmp_path / "float.onnx")]) == 0 and capsys.readouterr()
    assert main([*arguments, str(tmp_path / "int8.onnx"), "--precision", "int8"]) == 0
    said = printed(capsys)
    exact, small = (FrozenTask.open(tmp_path / f"{name}.onnx", runner="onnxruntime") for name in ("float", "int8"))
    assert small.record.precision == "int8" and small.kind == "static" and small.size < 0.6 * exact.size
    assert said["price"] == str(small.price) and said["sha256"] == small.sha256
    assert small.price.loss == exact.price.loss and small.price.int8_images == (5 if own else 2)
    proxies = images[:5] if own else images[5:7]
    agreement = [dice(small.predict(image).mask, exact.predict(image).mask) for image in proxies]
    assert small.price.int8_agreement == pytest.approx(np.mean(agreement), abs=1e-4)
    assert small.price.int8_agreement > 0.9 and exact.predict(images[0]).mask.any()
    if own:
        for task, found in ((small, small.price.int8_dice), (exact, small.price.float_dice)):
            of_labels = np.mean([dice(task.predict(image).mask, label > 0) for image, label in zip(images, labels[:5])])
            assert found == pytest.approx(of_labels, abs=1e-3)
    else:
        assert small.price.int8_dice is None
    with pytest.raises(RunnerError, match="in float32, not in int8"):
        FrozenTask.open(tmp_path / "int8.onnx", runner="native")
    assert FrozenTask.open(tmp_path / "int8.onnx").runner.name == "onnxruntime"
    pytest.importorskip("openvino", reason="openvino is not installed: pip install '.[openvino]'")
    other = FrozenTask.open(tmp_path / "int8.onnx", runner="openvino")
    assert dice(other.predict(images[8]).mask, small.predict(images[8]).mask) > 0.95


@pytest.mark.parametrize("options, message", [
    (["--kind", "exact", "--precision", "int8"], "--precision int8 is for static files, and --kind is exact"),
    (["--kind", "exact", "--precision", "fp16"], "--precision fp16 is for static files, and --kind is exact"),
    (["--float-constants", "--precision", "fp16"], "--float-constants: a file in fp16 holds them in half precision"),
    (["--precision", "fp32", "int8"], "--precision fp32 int8: a task is frozen in fp32, fp16 or int8"),
])
def test_precisions_that_cannot_be_frozen(case, options, message, capsys):
    folder, arguments = case
    assert main([*arguments, *options]) == 1
    err = capsys.readouterr().err.strip()
    assert message in err and "\n" not in err and not (folder / "task.onnx").exists()


def test_fp16_computes_in_half_precision_and_answers_alike(case, small_bundle, typed_bundle, capsys):
    folder, arguments = case
    asked = [*arguments, "--kind", "static", "--precision", "fp16"]
    assert main(asked) == 1
    assert "fp16" in capsys.readouterr().err and not (folder / "task.onnx").exists(), "the bundle has none"
    assert main([*asked, "--bundle", str(typed_bundle)]) == 0
    assert ", fp16, " in printed(capsys)["file"]
    image = discs(1, seed=7)[0][0]
    plain = Segmenter.open(small_bundle).prepare(SupportSet.load(folder / "support")).freeze(kind="static")
    found = FrozenTask.open(folder / "task.onnx", runner="onnxruntime")
    assert found.record.precision == "fp16" and found.predict(image).timing.precision == "fp16"
    difference = np.abs(found.predict(image).probability - plain.predict(image).probability)
    assert 0 < difference.max() < 2e-3


@pytest.mark.parametrize("precision", ["int8", "fp16"])
def test_a_precision_of_static_files_that_auto_made_exact_is_refused(case, typed_bundle, capsys, precision):
    pytest.importorskip("onnx", reason="int8 needs onnx: pip install '.[export]'")
    folder, arguments = case
    write_folder(folder / "two", *discs(2))
    asked = ["--freeze", str(folder / "two"), "--precision", precision, "--bundle", str(typed_bundle)]
    assert main([*arguments, *asked]) == 1
    assert "leaving some out needs 3; take --kind static, or leave --precision out" in capsys.readouterr().err
    assert not (folder / "task.onnx").exists()


def test_int8_without_onnx_says_so(case):
    folder, arguments = case
    done = run("export", *arguments, "--precision", "int8", packages=("onnx",))
    assert done.returncode == 1 and "the package onnx is missing" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1 and not (folder / "task.onnx").exists()
