"""Frozen files on a GPU: engines on the stand-ins, ONNX Runtime's runner on the CPU provider's device."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="onnx is not installed: pip install '.[export]'")

from universeg_rt import Ensemble, FrozenTask, Segmenter, SupportSet
from universeg_rt.bundle.engine import EngineEntry, Fingerprint, Profile
from universeg_rt.errors import EngineError, RunnerError
from universeg_rt.frozen import engine_file
from universeg_rt.frozen.base import readable
from universeg_rt.frozen.gpu import CudaFrozen
from universeg_rt.frozen.record import STATIC
from universeg_rt.runners.gpu.identity import gpu_facts
from universeg_rt.runners.options import Options

from ...conftest import discs, native_part
from ...fakes import tensorrt
from ...fakes.device import StandIn
from ..runners.conftest import plan, queries

PROFILE = Profile((1, 2, 3), entries=(1, 1, 1), image=(32, 32))


@pytest.fixture(scope="module")
def model(small_bundle) -> bytes:
    native_part()
    with Segmenter.open(small_bundle, runner="native") as segmenter:
        task = segmenter.prepare(SupportSet.from_arrays(*discs(4)), Ensemble(1, 4))
        return task.freeze(kind="static").model


@pytest.fixture
def task(model, tmp_path):
    (tmp_path / "task.onnx").write_bytes(model)
    return tmp_path / "task.onnx"


def add_engine(task, builder: str = "tensorrt", **facts: str):
    """A fake engine of the file, beside it; made for the stand-in GPU unless `facts` say otherwise."""
    known = {"builder_version": "10.14.1", **gpu_facts(StandIn.gpu), "plugin_version": "", "plugin_sha256": "",
             "onnx_sha256": hashlib.sha256(task.read_bytes()).hexdigest(), "precision": "fp32", **facts}
    made = EngineEntry("whole", "task.engine", "", Fingerprint(builder=builder, **known), PROFILE)
    engine_file.write(engine_file.place(task, builder, known["precision"]), made,
                      plan(onnx.load_model_from_string(readable(task.read_bytes(), STATIC)[0]), PROFILE))


def rtx(task):
    add_engine(task, "tensorrt-rtx", builder_version="1.7.1", gpu="", compute_capability="8.0+")


@pytest.mark.parametrize("flavour, add", [("10.14.1", add_engine), ("8.5.3", lambda task: add_engine(
    task, builder_version="8.5.3")), ("rtx", rtx)], ids=["10", "8", "rtx"])
def test_engines_give_what_the_cpu_gives_as_graphs(task, monkeypatch, flavour, add):
    add(task)
    device = StandIn()
    tensorrt.use(monkeypatch, device, flavour)
    frozen, plain = FrozenTask.open(task), FrozenTask.open(task, runner="onnxruntime")
    assert frozen.runner.name == ("tensorrt-rtx" if flavour == "rtx" else "tensorrt")
    assert frozen.runner.device == "Stand-in GPU (stand-in), fp32" and not frozen.runner.notes
    for count in (1, 3, 7):
        for turn in range(3):
            asked = queries(count, seed=turn)
            found, wanted = frozen.runner.run(asked), plain.runner.run(asked)
            assert found.shape == wanted.shape and found.dtype == np.float32
            assert np.abs(found - wanted).max() < 1e-3
    assert bool(device.calls.get("launch")) == (flavour != "rtx")
    image = discs(5)[0][4]
    assert (frozen.predict(image).mask == plain.predict(image).mask).all()


def test_the_engine_is_looked_for_beside_the_file_only_and_half_precision_comes_first(task, monkeypatch):
    tensorrt.use(monkeypatch, StandIn())
    with pytest.raises(RunnerError, match="no tensorrt engine beside this file; .* --task FILE --engine tensorrt"):
        FrozenTask.open(task, runner="tensorrt")
    add_engine(task)
    add_engine(task, precision="fp16")
    opened = FrozenTask.open(task, runner="tensorrt")
    assert opened.runner.device.endswith("fp16") and opened.predict(discs(1)[0][0]).timing.precision == "fp16"
    assert FrozenTask.of_bytes(task.read_bytes(), "auto", Options()).runner.name not in ("tensorrt", "tensorrt-rtx")


@pytest.mark.parametrize("facts, message", [
    ({"gpu": "Another GPU"}, "gpu: built for 'Another GPU', here is 'Stand-in GPU'"),
    ({"builder_version": "10.3.0"}, "builder_version: built for '10.3.0'"),
    ({"onnx_sha256": "0" * 64}, "onnx_sha256: built for '0000"),
])
def test_an_engine_of_something_else_is_refused_by_the_field(task, monkeypatch, facts, message):
    add_engine(task, **facts)
    tensorrt.use(monkeypatch, StandIn())
    with pytest.raises(EngineError, match=message):
        FrozenTask.open(task, runner="tensorrt")
    assert FrozenTask.open(task).runner.name not in ("tensorrt", "tensorrt-rtx")


def test_a_damaged_engine_file_is_said_to_be_one(task, monkeypatch):
    add_engine(task)
    path = engine_file.place(task, "tensorrt", "fp32")
    whole = path.read_bytes()
    tensorrt.use(monkeypatch, StandIn())
    for content in (whole[:-1], b"", b"{}\n", whole.replace(b'"format": 1', b'"format": 9'), b"\xff" + whole):
        path.write_bytes(content)
        with pytest.raises(EngineError, match="task.tensorrt.fp32.engine"):
            FrozenTask.open(task, runner="tensorrt")
    path.write_bytes(whole)
    entry, found = engine_file.read(path)
    assert replace(entry, memory_bytes=0) == entry and found == whole.split(b"\n", 1)[1]


def test_the_cuda_provider_binds_the_query_and_gives_the_same(task):
    plain = FrozenTask.open(task, runner="onnxruntime")
    spec, kind = plain.spec, plain.kind
    runner = CudaFrozen(task.read_bytes(), kind, spec, Options(), provider="CPUExecutionProvider")
    for count in (1, 2, 5):
        for turn in range(3):
            asked = queries(count, seed=turn)
            assert np.abs(runner.run(asked) - plain.runner.run(asked)).max() < 1e-4
