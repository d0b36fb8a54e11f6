"""One builder for TensorRT 8.5 to 11: what it tells each version, seen on a stand-in that reacts as that version
does."""

from __future__ import annotations

import os
import re
import shutil
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="onnx is not installed: pip install '.[export]'")
import onnx.inliner  # noqa: E402
from universeg_rt.export.engine.build import EngineOptions, build_engines
from universeg_rt.export.engine.model import for_builder, read_model

from universeg_rt import Bundle
from universeg_rt.errors import EngineError, InputError
from universeg_rt.runners import open_runner
from universeg_rt.runners.gpu.identity import present_gpu

from ...fakes.device import StandIn
from ...fakes.tensorrt import make, use
from .engines import PROFILE, build, bundle, fake, plan_of, toy_bundle  # noqa: F401  fixtures

VERSIONS = ("8.5.3.1", "8.6.1", "9.3.0", "10.14.1.48", "11.1.0")
WEAK = VERSIONS[:2]


@pytest.mark.parametrize("version", VERSIONS)
def test_fp32_builds_everywhere_with_every_input_and_its_profile(fake, bundle, version):
    fake(version)
    (outcome,) = build(bundle)
    plan = plan_of(bundle, outcome)
    profile = plan["shapes"]
    assert profile["support_images"] == [[1, 1, 1, 32, 32], [1, 4, 1, 32, 32], [3, 8, 1, 32, 32]]
    assert profile["query"][2] == [2, 1, 32, 32] and profile["weights"] == [[1, 1], [1, 4], [3, 8]]
    assert plan["strong"] == (version not in WEAK) and "FP16" not in plan["flags"]
    assert outcome.entry.fingerprint.builder_version == version and outcome.entry.memory_bytes == 1234
    assert dict(outcome.entry.fingerprint.options)["typing"] == ("weak" if version in WEAK else "strong")
    assert not {"SupportMean", "SupportMeanPool"} & set(plan["operators"])


@pytest.mark.parametrize("version", VERSIONS)
def test_fp16_keeps_its_mean_in_float32_everywhere(fake, toy_bundle, version):
    fake(version)
    (outcome,) = build(toy_bundle, precisions=("fp16",))
    plan = plan_of(toy_bundle, outcome)
    assert plan["types"] == {"narrow": "HALF", "maps": "HALF", "wide": "FLOAT", "mean": "FLOAT"}
    assert ("FP16" in plan["flags"]) == (version in WEAK)


@pytest.mark.parametrize("version", ["8.5.3.1", "10.14.1.48"])
def test_our_fp16_model_is_computed_in_the_types_that_it_states(fake, typed_bundle, tmp_path, version):
    """Weakly typed versions come to the same types as strongly typed ones, tensor by tensor; sums are float32."""
    fake(version)
    folder = shutil.copytree(typed_bundle, tmp_path / "typed")
    plan = plan_of(folder, build(folder, precisions=("fp16",))[0])
    model = onnx.shape_inference.infer_shapes(onnx.inliner.inline_local_functions(onnx.load(folder /
                                                                                            "fp16.model.onnx")))
    stated = {v.name: v.type.tensor_type.elem_type for v in (*model.graph.value_info, *model.graph.output)}
    floats = {name: {onnx.TensorProto.FLOAT: "FLOAT", onnx.TensorProto.FLOAT16: "HALF"}[kind]
              for name, kind in stated.items() if kind in (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16)}
    found = {name: plan["types"][name] for name in floats if name in plan["types"]}
    assert found == {name: floats[name] for name in found} and {"FLOAT", "HALF"} == set(found.values())
    products = [n for node in model.graph.node if node.op_type == "MatMul" for n in node.output]
    assert products and all(found[name] == "FLOAT" for name in products)


@pytest.mark.parametrize("version", VERSIONS)
def test_int8_by_q_and_dq_everywhere(fake, toy_bundle, version):
    fake(version)
    (outcome,) = build(toy_bundle, precisions=("int8",))
    plan = plan_of(toy_bundle, outcome)
    assert plan["types"]["q"] == "INT8" and plan["types"]["maps"] == "FLOAT"
    assert ("INT8" in plan["flags"]) == (version in WEAK) and "FP16" not in plan["flags"]


@pytest.mark.parametrize("version", [VERSIONS[0], VERSIONS[-1]])
def test_tf32_and_workspace(fake, bundle, version):
    fake(version)
    first, second = build(bundle)[0], build(bundle, tf32=True, workspace=2**30)[0]
    assert "TF32" not in plan_of(bundle, first)["flags"] and plan_of(bundle, first)["workspace"] is None
    assert "TF32" in plan_of(bundle, second)["flags"] and plan_of(bundle, second)["workspace"] == 2**30
    assert first.entry.key != second.entry.key
    assert dict(second.entry.fingerprint.options)["workspace"] == str(2**30)


@pytest.mark.parametrize("version, level, expected", [
    ("8.5.3.1", "ampere+", None),
    ("8.6.1", "ampere+", "AMPERE_PLUS"),
    ("10.14.1.48", "same", "SAME_COMPUTE_CAPABILITY"),
    ("9.3.0", "same", None),
    ("11.1.0", "ampere+", "AMPERE_PLUS"),
    ("11.1.0", "none", "NONE"),
])
def test_hardware_compatibility_where_it_exists(fake, bundle, version, level, expected):
    fake(version)
    if expected is None:
        return _refused(bundle, f"no hardware compatibility {re.escape(level)}", hardware=level)
    (outcome,) = build(bundle, hardware=level)
    assert plan_of(bundle, outcome)["hardware"] == expected
    assert outcome.entry.fingerprint.compute_capability == ("8.0+" if level == "ampere+" else "")


def test_optimization_level_where_it_exists(fake, bundle):
    fake("8.5.3.1")
    _refused(bundle, "no optimization levels", level=5)
    fake("8.6.1")
    assert plan_of(bundle, build(bundle, level=5)[0])["level"] == 5


def test_the_plugin_gets_its_nodes_bare_and_trimmed(bundle):
    opened = Bundle.open(bundle)
    source = read_model(opened.load("fp32"))
    before = source.SerializeToString()
    copy = onnx.load_from_string(for_builder(source, PROFILE, plugin=True).model)
    nodes = [n for n in copy.graph.node if n.domain == "universeg_rt"]
    assert nodes and not copy.functions
    for node in nodes:
        (read,) = (a.i for a in node.attribute if a.name == "outputs")
        assert len(node.output) == read and not any("unread" in name for name in node.output)
    assert source.SerializeToString() == before


@pytest.mark.parametrize("version, progress", [("8.6.1", False), ("9.3.0", True), ("11.1.0", True)])
def test_progress_from_the_version_or_at_least_a_sign_of_life(fake, bundle, version, progress):
    fake(version)
    seen = []
    options = EngineOptions("tensorrt", models=("whole",), profile=PROFILE)
    build_engines(Bundle.open(bundle), options, lambda label: nullcontext(lambda *step: seen.append((label, *step))),
                  lambda line: None)
    assert (("whole fp32", "Building engine", 1, 2) in seen) == progress
    assert ("whole fp32", "building the engine", 0, 0) in seen


def test_what_is_built_is_what_runs(fake, bundle, monkeypatch):
    """The files of a build, opened as the runner does, give the logits of the CPU runner."""
    fake("10.14.1")
    build(bundle, models=())
    monkeypatch.setattr(StandIn, "gpu", present_gpu() or StandIn.gpu)
    use(monkeypatch, StandIn(), "10.14.1")
    rng = np.random.default_rng(0)
    support, query = rng.random((1, 3, 2, 32, 32), np.float32), rng.random((2, 1, 32, 32), np.float32)
    logits = []
    for name in ("tensorrt", "onnxruntime"):
        runner = open_runner(Bundle.open(bundle), name, "fp32")
        logits.append(runner.run(runner.prepare(support, np.full((1, 3), 1 / 3, np.float32)), query))
    assert np.abs(logits[0] - logits[1]).max() < 1e-4


@pytest.mark.parametrize("folder", [f for f in os.environ.get("TENSORRT_INCLUDE", "").split(os.pathsep) if f] or [None])
def test_the_stand_in_has_what_the_headers_have(folder):
    """The stand-in is only worth something if its versions differ where the real ones do."""
    if folder is None:
        pytest.skip("TENSORRT_INCLUDE names no folders of TensorRT headers")
    text = "".join(p.read_text(errors="replace") for p in sorted(Path(folder).glob("*.h")))
    text = re.sub(r"//[^\n]*", "", text)
    numbers = (re.search(rf"#define (?:NV_TENSORRT|TRT)_{part}(?:_ENTERPRISE)? (\d+)", text)
               for part in ("MAJOR", "MINOR"))
    version = ".".join(number[1] for number in numbers)
    module = make(version)
    for enumeration in ("BuilderFlag", "NetworkDefinitionCreationFlag", "HardwareCompatibilityLevel", "MemoryPoolType"):
        block = re.search(rf"enum class {enumeration} : int32_t\s*\{{(.*?)\}};", text, flags=re.DOTALL)
        real = set(re.findall(r"\bk([A-Z0-9_]+)\b", block[1])) if block else set()
        ours = set(getattr(module, enumeration).__members__) if hasattr(module, enumeration) else set()
        asked = {
            "FP16", "INT8", "TF32", "OBEY_PRECISION_CONSTRAINTS", "EXPLICIT_BATCH", "STRONGLY_TYPED", "AMPERE_PLUS",
            "SAME_COMPUTE_CAPABILITY", "WORKSPACE"
        }
        assert ours <= real and (real & asked) <= ours, (version, enumeration)
    assert hasattr(module, "IProgressMonitor") == ("IProgressMonitor" in text)
    config = module.IBuilderConfig
    assert hasattr(module.ILayer, "set_output_type") == ("setOutputType(" in text)
    assert hasattr(module.IPluginRegistry, "load_library") == ("loadLibrary(" in text)
    assert hasattr(config, "builder_optimization_level") == ("setBuilderOptimizationLevel(" in text)
    assert hasattr(config, "set_memory_pool_limit") == ("setMemoryPoolLimit(" in text)


def _refused(folder, message, **options):
    with pytest.raises((InputError, EngineError), match=message):
        build(folder, **options)
