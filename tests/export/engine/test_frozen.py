"""Frozen files of the shipped network in runtimes that know nothing of ours: plain ONNX Runtime, OpenVINO,
TensorRT-RTX."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="onnx is not installed: pip install '.[export]'")

from universeg_rt import Bundle
from universeg_rt.bundle import onnx_file
from universeg_rt.bundle.onnx_bind import bind

SIZE, PRECISIONS = (64, 64), {"fp32": np.float32, "fp16": np.float16}


def frozen(precision: str, part: str = "static") -> bytes:
    """A task of noise, as a file for queries of 64x64; `int8-signed` is int8 as TensorRT takes it."""
    bundle, rng = Bundle.open(), np.random.default_rng(0)
    if precision.startswith("int8"):
        pytest.importorskip("torch", reason="torch is not installed: pip install '.[export]'")
        from universeg_rt.export.frozen import quantise_frozen

        held = onnx_file.tensors(frozen("fp32"))
        constants = {name: value for name, value in held.items() if name.startswith("constant_")}
        return quantise_frozen(bundle, constants, rng.random((4, 1, *SIZE)), cpu_kernels=precision == "int8")
    if part == "static":
        constants = {
            f"constant_{b.index}": rng.normal(0, 0.3, (1, b.features, SIZE[0] >> b.level, SIZE[1] >> b.level)).astype(
                PRECISIONS[precision])
            for b in bundle.manifest.spec.blocks()}
    else:
        constants = {"support_images": rng.random((1, 3, 1, *SIZE)).astype(np.float32),
                     "support_labels": (rng.random((1, 3, 1, *SIZE)) > 0.5).astype(np.uint8),
                     "weights": np.full((1, 3), 1 / 3, np.float32)}
    return bind(bundle.load(precision, part).whole(), constants, {}, outputs=["probability"], query_size=SIZE)


STATIC = [("fp32", "static"), ("fp16", "static")]


@pytest.fixture
def file(request, tmp_path) -> Path:
    (tmp_path / "task.onnx").write_bytes(frozen(*request.param))
    return tmp_path / "task.onnx"


ALONE = """
import sys
for name in ("universeg_rt", "onnx", "torch"):
    sys.modules[name] = None
try:
    import universeg_rt
    raise SystemExit("universeg_rt was imported")
except ImportError:
    pass
import numpy as np
"""
ONNX_RUNTIME = ALONE + """
import onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
(given,), (made,) = session.get_inputs(), session.get_outputs()
assert (given.name, given.type, given.shape) == ("query", "tensor(float)", ["B", 1, 64, 64]), given
assert (made.name, made.type, made.shape) == ("probability", "tensor(float)", ["B", 1, 64, 64]), made
query = np.load(sys.argv[2])
both = [session.run(None, {"query": given})[0] for given in (query, query[:1])]
np.save(sys.argv[3], np.concatenate(both))
"""
OPENVINO = ALONE + """
import openvino
core = openvino.Core()
compiled = core.compile_model(core.read_model(sys.argv[1]), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
np.save(sys.argv[3], compiled({"query": np.load(sys.argv[2])})[0])
"""


def answers(program: str, file: Path) -> np.ndarray:
    """Probabilities of three queries by a program that cannot import this package."""
    given, made = file.with_name("query.npy"), file.with_name("out.npy")
    np.save(given, np.random.default_rng(1).random((3, 1, *SIZE)).astype(np.float32))
    done = subprocess.run([sys.executable, "-c", program, file, given, made], capture_output=True, text=True,
                          timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    return np.load(made)


@pytest.mark.parametrize("file", [*STATIC, ("int8", "static"), ("fp32", "whole")], indirect=True, ids="-".join)
def test_plain_onnx_runtime_opens_it_and_batches(file):
    found = answers(ONNX_RUNTIME, file)
    assert found.shape == (4, 1, *SIZE) and np.abs(found[3] - found[0]).max() < 2e-3
    assert found.min() >= 0 and found.max() <= 1 and found.std() > 1e-3


# In int8 a value near a rounding's edge may fall to either side, and one step of a map moves probabilities.
@pytest.mark.parametrize("file, largest, mean", [(STATIC[0], 1e-4, 1e-5), (STATIC[1], 5e-3, 3e-4),
                                                 (("int8", "static"), 0.15, 5e-3)],
                         indirect=["file"], ids=["fp32", "fp16", "int8"])
def test_openvino_gives_the_same(file, largest, mean):
    pytest.importorskip("openvino", reason="openvino is not installed: pip install '.[openvino]'")
    expected, found = answers(ONNX_RUNTIME, file)[:3], answers(OPENVINO, file)
    assert np.abs(found - expected).max() < largest and np.abs(found - expected).mean() < mean
    assert ((found > 0.5) != (expected > 0.5)).mean() < 5e-3


@pytest.mark.parametrize("file", [*STATIC, ("int8-signed", "static")], indirect=True, ids="-".join)
def test_tensorrt_rtx_builds_a_plan_without_a_plugin(tensorrt_rtx, file):
    done = subprocess.run([sys.executable, Path(__file__).with_name("plan_of_file.py"), file, "4"],
                          env=os.environ | tensorrt_rtx, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["inputs"] == ["query"] and found["outputs"] == [["probability", [-1, 1, *SIZE]]]
    assert found["bytes"] > 1_000_000 and not any("PLUGIN" in layer for layer in found["layers"])
