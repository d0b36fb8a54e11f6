"""Our models become real plans: parsed and built by TensorRT-RTX on the CPU (how, says tests/tensorrt_rtx.py)."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest

onnx = pytest.importorskip("onnx", reason="onnx is not installed: pip install '.[export]'")

from universeg_rt.export.cli import main

from universeg_rt import Bundle
from universeg_rt.bundle.engine import Profile
from universeg_rt.errors import EngineError, InputError

from .engines import PROFILE, build, bundle, engine_files, replace_model, rtx  # noqa: F401  fixtures

pytestmark = pytest.mark.slow

MODELS = ("whole", "prepare", "predict")


@pytest.fixture
def build_rtx(rtx):
    return lambda folder, **options: build(folder, "tensorrt-rtx", **options)


def test_whole_prepare_and_predict_become_plans_with_profile_timing_cache_and_fingerprint(build_rtx, bundle):
    outcomes = build_rtx(bundle, models=MODELS)
    opened = Bundle.open(bundle)  # checks every file
    assert [o.entry.model for o in outcomes] == list(MODELS)
    assert opened.manifest.engines == tuple(o.entry for o in outcomes)
    for outcome in outcomes:
        entry, made = outcome.entry, outcome.entry.fingerprint
        assert outcome.bytes > 10_000 and (bundle / entry.file).stat().st_size == outcome.bytes
        assert entry.timing_cache in opened.manifest.files and opened.manifest.files[entry.timing_cache].bytes > 0
        assert entry.profile == PROFILE and entry.memory_bytes > 0
        assert made.builder == "tensorrt-rtx" and made.builder_version.count(".") == 2
        assert made.compute_capability == "8.0+" and made.gpu == "" and made.plugin_sha256 == ""
        assert made.onnx_sha256 == opened.manifest.files[opened.model("fp32", entry.model).name].sha256
        made.check(entry.file, compute_capability="8.9", builder_version=made.builder_version)
        with pytest.raises(EngineError, match="compute_capability: built for '8.0\\+', here is '7.5'"):
            made.check(entry.file, compute_capability="7.5")
        with pytest.raises(InputError, match="9 support entries in a set; this engine was built for 1 to 8"):
            entry.profile.check(1, 1, 9, 32, 32)
    assert [o.built for o in build_rtx(bundle, models=MODELS)] == [False] * 3


def test_fixed_shapes_build_too_and_stand_beside(build_rtx, bundle):
    first, second = build_rtx(bundle)[0], build_rtx(bundle, profile=Profile(entries=(4, 4, 4), image=(32, 32)))[0]
    assert {e.key for e in Bundle.open(bundle).manifest.engines} == {first.entry.key, second.entry.key}
    assert second.entry.memory_bytes < first.entry.memory_bytes


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_float16_and_q_dq_models(build_rtx, typed_bundle, tmp_path, precision):
    folder = shutil.copytree(typed_bundle, tmp_path / "typed")
    outcomes = build_rtx(folder, precisions=(precision,), models=MODELS)
    assert [(o.entry.model, o.entry.fingerprint.precision) for o in outcomes] == [
        (model, precision) for model in MODELS]
    assert all(o.bytes > 10_000 for o in outcomes) and len(Bundle.open(folder).manifest.engines) == 3


def test_an_unknown_operator_is_named(build_rtx, bundle):
    model = onnx.load(bundle / "model.onnx")
    node = next(n for n in model.graph.node if n.name == "head")
    node.op_type, node.domain = "Blur", "elsewhere"
    model.opset_import.add(domain="elsewhere", version=1)
    replace_model(bundle, "model.onnx", model)
    with pytest.raises(EngineError,
                       match=r"the parser does not take the model: node head \(Blur\): .*[Pp]lugin not found"):
        build_rtx(bundle)
    assert not engine_files(bundle)


def test_too_little_workspace_says_how_much_is_wanted(build_rtx, bundle):
    with pytest.raises(EngineError, match=r"not enough GPU memory.*--workspace"):
        build_rtx(bundle, workspace=1024)
    assert not engine_files(bundle)


def test_options_that_this_version_has_not(build_rtx, bundle):
    with pytest.raises(EngineError, match="cannot choose compute capabilities; leave --compute-capability out"):
        build_rtx(bundle, capabilities=("7.5",))


def test_the_command_makes_a_copy_with_engines(rtx, bundle, tmp_path, capsys):
    arguments = ["--bundle", str(bundle), "--engine", "tensorrt-rtx", "--output", str(tmp_path / "with engines"),
                 "--profile-entries", "1:4:8", "--engine-model", "whole", "--timing-cache", str(tmp_path / "t.cache")]
    assert main(arguments) == 0
    out = capsys.readouterr().out
    assert "whole fp32" in out and "entries 1:4:8" in out
    assert "native operators" in out and "compute capability 8.0+" in out
    assert len(Bundle.open(
        tmp_path / "with engines").manifest.engines) == 1 and not Bundle.open(bundle).manifest.engines
    assert (tmp_path / "t.cache").exists()


def test_two_processes_at_once(rtx, bundle):
    command = [sys.executable, "-m", "universeg_rt.export.cli", "--bundle", str(bundle), "--engine", "tensorrt-rtx",
               "--engine-model", "whole", "--profile-entries", "1:4:8"]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    ends = [(p.communicate(timeout=180), p.returncode) for p in processes]
    assert [code for _, code in ends] == [0, 0], ends
    (entry,) = Bundle.open(bundle).manifest.engines
    assert engine_files(bundle) == set(entry.files)


def test_the_shipped_network_at_its_real_size(rtx, tmp_path, capsys):
    """Dynamic S to 256 at 128x128, as a user would ask."""
    arguments = [
        "--bundle", "shipped", "--engine", "tensorrt-rtx", "--output",
        str(tmp_path / "b"), "--engine-model", "whole"
    ]
    assert main(arguments) == 0
    (entry,) = Bundle.open(tmp_path / "b").manifest.engines
    assert entry.profile == Profile() and entry.memory_bytes > 1e9 and "entries 1:64:256" in capsys.readouterr().out
