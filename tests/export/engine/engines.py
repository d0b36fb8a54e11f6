"""What the tests of engine building share: a small bundle of all precisions, the stand-in module, a way to run
builds."""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from universeg_rt import Bundle
from universeg_rt.bundle.bundle import file_entry
from universeg_rt.bundle.engine import Profile
from universeg_rt.bundle.manifest import Manifest, Models
from universeg_rt.errors import EngineError
from universeg_rt.export.engine.build import EngineOptions, build_engines

from ...conftest import ROOT
from ...fakes.tensorrt import CHILD, read_plan

PROFILE = Profile((1, 1, 2), (1, 1, 3), (1, 4, 8), (32, 32))


def toy_model(precision: str, metadata: Mapping[str, str]) -> onnx.ModelProto:
    """A toy of our kind, with what matters in types: float16 maps with a mean in float32, or a Q/DQ convolution."""
    info, floats = helper.make_tensor_value_info, TensorProto.FLOAT
    node = helper.make_node
    weight = np.ones((4, 1, 3, 3), np.float16 if precision == "fp16" else np.float32)
    constants = [numpy_helper.from_array(weight, "weight")]
    conv = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
    if precision == "fp16":
        nodes = [node("Cast", ["query"], ["narrow"], "narrow", to=TensorProto.FLOAT16),
                 node("Conv", ["narrow", "weight"], ["maps"], "maps", **conv),
                 node("Cast", ["maps"], ["wide"], "wide", to=floats),
                 node("ReduceMean", ["wide"], ["mean"], "mean", axes=[1], keepdims=1)]
    else:
        scales = {"scale": np.float32(0.01), "zero": np.int8(0)}
        constants += [numpy_helper.from_array(np.array(v), n) for n, v in scales.items()]
        nodes = [node("QuantizeLinear", ["query", "scale", "zero"], ["q"], "q"),
                 node("DequantizeLinear", ["q", "scale", "zero"], ["dq"], "dq"),
                 node("Conv", ["dq", "weight"], ["maps"], "maps", **conv),
                 node("ReduceMean", ["maps"], ["mean"], "mean", axes=[1], keepdims=1)]
    graph = helper.make_graph(nodes, "toy", [info("query", floats, ["B", 1, "H", "W"])],
                              [info("mean", floats, ["B", 1, "H", "W"])], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, {**metadata, "universeg.precision": precision, "universeg.kind": "whole"})
    return model


def replace_model(folder: Path, name: str, model: onnx.ModelProto | bytes, precision: str | None = None) -> None:
    """Put a model into a bundle under its manifest, which then knows no parity; with a precision as the only model of
    that."""
    (folder / name).write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
    manifest = Manifest.from_json((folder / "manifest.json").read_text(), "m")
    manifest = dataclasses.replace(
        manifest, parity={}, files={**manifest.files, name: file_entry(folder / name)},
        models={**manifest.models, **({precision: Models(name, ())} if precision else {})})
    (folder / "manifest.json").write_text(manifest.to_json())


@pytest.fixture
def bundle(small_bundle, tmp_path) -> Path:
    return shutil.copytree(small_bundle, tmp_path / "bundle")


@pytest.fixture
def toy_bundle(bundle) -> Path:
    """With toy models of fp16 and int8."""
    metadata = Bundle.open(bundle).manifest.metadata
    for precision in ("fp16", "int8"):
        replace_model(bundle, f"{precision}.onnx", toy_model(precision, metadata), precision)
    return bundle


def _put_modules(folder: Path, monkeypatch, texts: Mapping[str, str]) -> None:
    """Let child processes import modules of these texts, before others of their names."""
    folder.mkdir()
    for name, text in texts.items():
        (folder / f"{name}.py").write_text(text)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((str(folder), str(ROOT))))


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """Call it with a version, and a fault where one is wanted: `tensorrt` is then the stand-in, in child processes."""
    _put_modules(tmp_path / "python", monkeypatch, {"tensorrt": CHILD})

    def use(version: str, fault: str = "") -> None:
        monkeypatch.setenv("FAKE_TENSORRT", version)
        monkeypatch.setenv("FAKE_FAULT", fault)

    return use


@pytest.fixture
def rtx(tensorrt_rtx, monkeypatch):
    """`tensorrt_rtx` can be imported in child processes, or skip."""
    for name, value in tensorrt_rtx.items():
        monkeypatch.setenv(name, value)


def build(folder: Path, builder: str = "tensorrt", say=lambda line: None, **options):
    """Build for a bundle; `whole` alone unless told otherwise."""
    options = {"models": ("whole",), "profile": PROFILE, **options}
    return build_engines(Bundle.open(folder), EngineOptions(builder, **options), say=say)


def plan_of(folder: Path, outcome) -> dict:
    """What the stand-in wrote as its plan."""
    return read_plan((folder / outcome.entry.file).read_bytes())[0]


def engine_files(folder: Path) -> set[str]:
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file() and "engines" in p.parts}


@pytest.fixture
def hide_libraries(tmp_path, monkeypatch):
    """Child processes find neither library, whatever is installed."""
    _put_modules(tmp_path / "hidden", monkeypatch, {
        name: f"raise ModuleNotFoundError(\"No module named '{name}'\", name='{name}')\n"
        for name in ("tensorrt", "tensorrt_rtx")})


def refused(folder, message: str, kind=EngineError, **options) -> str:
    """The build raises this error, on one line, and leaves the bundle as it was."""
    before = (folder / "manifest.json").read_bytes()
    with pytest.raises(kind, match=message) as error:
        build(folder, **options)
    assert "\n" not in str(error.value)
    assert (folder / "manifest.json").read_bytes() == before and not engine_files(folder)
    return str(error.value)
