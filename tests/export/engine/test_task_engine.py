"""`universeg-export --task FILE --engine ...`: plans of frozen tasks by TensorRT-RTX, and refusals."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="onnx is not installed: pip install '.[export]'")

from universeg_rt import Ensemble, Segmenter, SupportSet
from universeg_rt.export.cli import main
from universeg_rt.frozen import engine_file

from ...conftest import discs, native_part
from ...fakes.tensorrt import read_plan
from .engines import fake, rtx  # noqa: F401  fixtures


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A static and an exact task of the shipped network."""
    native_part()
    folder = tmp_path_factory.mktemp("tasks")
    with Segmenter.open(runner="native") as segmenter:
        task = segmenter.prepare(SupportSet.from_arrays(*discs(3)), Ensemble(1, 3))
        for kind in ("static", "exact"):
            task.freeze(list(discs(2)[0]), kind=kind).save(folder / f"{kind}.onnx")
    return folder


def test_tensorrt_rtx_builds_plans_over_the_batch_without_a_plugin(rtx, files, capsys):  # noqa: F811
    task = files / "static.onnx"
    arguments = ["--task", str(task), "--engine", "tensorrt-rtx", "--precision", "fp32", "fp16"]
    assert main([*arguments, "--profile-queries", "1:1:16"]) == 0
    said = capsys.readouterr().out
    assert "whole fp32" in said and "whole fp16" in said and "queries 1:1:16" in said and "native operators" in said
    sizes = {}
    for path in engine_file.beside(task):
        entry, plan = engine_file.read(path)
        made = entry.fingerprint
        assert made.builder == "tensorrt-rtx" and made.onnx_sha256 == hashlib.sha256(task.read_bytes()).hexdigest()
        assert entry.profile.queries == (1, 1, 16) and entry.profile.image == (128, 128) and entry.memory_bytes > 0
        sizes[made.precision] = len(plan)
    assert set(sizes) == {"fp32", "fp16"} and 1_000_000 < sizes["fp16"] < sizes["fp32"]


def test_an_engine_gives_logits_so_that_the_host_computes_none(fake, files):  # noqa: F811
    fake("10.14.1")
    task = files / "static.onnx"
    assert main(["--task", str(task), "--engine", "tensorrt", "--precision", "fp32", "fp16"]) == 0
    for precision in ("fp32", "fp16"):
        _, plan = engine_file.read(engine_file.place(task, "tensorrt", precision))
        (output,) = onnx.load_model_from_string(read_plan(plan)[1]).graph.output
        assert output.name == "head/logits" and output.type.tensor_type.elem_type == onnx.TensorProto.FLOAT


def test_the_network_in_half_precision_has_the_tasks_own_constants(files):
    from universeg_rt import Bundle, FrozenTask
    from universeg_rt.bundle.onnx_file import tensors
    from universeg_rt.export.engine.frozen import in_precision

    with FrozenTask.open(files / "static.onnx", runner="onnxruntime") as frozen:
        held = tensors(in_precision(frozen.model, "fp16", None, frozen.spec, frozen.record.grid))
        mine = tensors(frozen.model)
    for block in Bundle.open().manifest.spec.blocks():
        name = f"constant_{block.index}"
        stored = next(value for key, value in mine.items() if key.startswith(name))
        assert held[name].dtype == np.float16 and np.array_equal(held[name], stored.astype(np.float16))


@pytest.mark.parametrize("words, message", [
    ([], "say which with --engine"),
    (["--engine", "tensorrt", "--precision", "fp32", "fp16", "--output", "e"], "several precisions"),
    (["--engine", "tensorrt", "--precision", "int8"], "an engine in int8 is built from a file in int8"),
    (["--engine", "tensorrt", "--plugin", __file__], "no mean over a support"),
])
def test_what_is_refused_is_one_line(files, capsys, words, message):
    assert main(["--task", str(files / "static.onnx"), *words]) == 1
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_an_exact_task_and_one_of_other_weights(files, small_bundle, capsys):
    assert main(["--task", str(files / "exact.onnx"), "--engine", "tensorrt"]) == 1
    assert main(["--task", str(files / "static.onnx"), "--engine", "tensorrt", "--precision", "fp16", "--bundle",
                 str(small_bundle)]) == 1
    first, second = capsys.readouterr().err.strip().splitlines()
    assert "engines are built for static frozen tasks" in first and "is of other weights" in second
