"""What the GPU benchmark builds and finds again: bundles, plain exports, engines under the stand-ins, int8."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch", reason="the benchmark needs torch")
pytest.importorskip("onnx", reason="emitting the models needs onnx")

from universeg_rt.benchmarks.gpu import artefacts, contenders, machine
from universeg_rt.bundle.bundle import SHIPPED, Bundle
from universeg_rt.errors import RunnerError
from universeg_rt.export.gate.inputs import make_inputs
from universeg_rt.export.gate.parity import Reference
from universeg_rt.spec import NetworkSpec

from ...conftest import SMALL_SPEC, random_weights
from ...fakes import tensorrt
from ...fakes.device import StandIn
from ...universeg_rt.runners.conftest import add_engines
from .state import make_state

pytestmark = pytest.mark.torch


def test_a_later_run_goes_on_from_what_is_built(tmp_path):
    state = make_state(tmp_path)
    artefacts.run_bundle(state, {}), artefacts.run_plain(state, {})
    add_engines(Bundle.open(state["bundle"].path), "prepare", "predict")
    (tmp_path / "bundle").rename(tmp_path / "tensorrt-fp32")
    artefacts.run_bundle(state, {})
    later = make_state(tmp_path)
    artefacts.find_earlier(later)
    assert later["bundle"].sha256 == state["bundle"].sha256 and later["plain"] == {2: tmp_path / "plain_2.onnx"}
    assert later["engine_bundles"] == {"tensorrt fp32": ("tensorrt", "fp32", tmp_path / "tensorrt-fp32")}
    other = make_state(tmp_path, small_spec=NetworkSpec("none", (6, 5), (4,), "max_pool"))
    artefacts.find_earlier(other)
    assert "bundle" not in other and "plain" not in other


def test_kernels_that_lie_there_are_taken_without_a_bundle_too(tmp_path, monkeypatch):
    from universeg_rt.kernels import build
    from universeg_rt.kernels.support_mean import library
    from universeg_rt.kernels.support_mean.check import devices
    from universeg_rt.kernels.support_mean.check import machine as check_machine

    folder = tmp_path / "kernels"
    for path in (folder / "lib" / "libsupport_mean.so", folder / "bin" / "support_mean_selftest"):
        path.parent.mkdir(parents=True)
        path.touch()
    monkeypatch.setattr(library, "Library", lambda path: path)
    monkeypatch.setattr(devices, "Gpu", lambda opened: ("gpu", opened))
    state = make_state(tmp_path, device="cuda")
    state["options"].steps = ("network", "parity", "timing")
    artefacts.find_earlier(state)
    assert "kernel_device" not in state  # of sources that nobody knows: it would be timed as ours
    with pytest.raises(RunnerError, match="no library of these sources"):
        contenders.TorchFolded({**state, "device": "cpu"}, "fp16", kernels=True)
    build.state_sources(folder, "native")
    monkeypatch.setattr(check_machine, "own_architecture", lambda: "native")
    artefacts.find_earlier(state)
    assert state["kernel_device"] == ("gpu", folder / "lib" / "libsupport_mean.so") and "bundle" not in state


def test_engines_are_built_run_and_recorded(tmp_path, monkeypatch):
    state = make_state(tmp_path, device="cuda")
    state["device"] = "cpu"
    artefacts.run_bundle(state, {})
    from universeg_rt.export.engine import build

    asked = []

    def build_engines(bundle, options, progress, say):
        with progress("whole fp16") as report:
            report("parsing the model", 0, 0)
        asked.append((options.builder, options.precisions, options.models, options.profile.entries, options.plugin))
        if options.builder == "tensorrt-rtx":
            raise RunnerError("no such library")
        add_engines(bundle, *options.models, precision=options.precisions[0], profile=options.profile)
        return []

    monkeypatch.setattr(build, "build_engines", build_engines)
    monkeypatch.setattr(artefacts.importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(machine, "free", lambda state: None)
    entry = {}
    state["device"] = "cuda"
    artefacts.run_engines(state, entry)
    state["device"] = "cpu"
    assert ("tensorrt", ("fp16",), ("prepare", "predict"), (2, 2, 2), None) in asked
    assert set(entry["built"]) == {"tensorrt fp16", "tensorrt fp32"}
    assert entry["skipped"]["tensorrt-rtx fp16"] == "no such library" and "no plugin library" in entry["skipped"][
        "tensorrt plugin"]

    tensorrt.use(monkeypatch, StandIn())
    found, skipped = {}, []

    def start(name, make):
        try:
            found[name] = make()
        except RunnerError as error:
            skipped.append((name, str(error)))

    contenders._start_engines(state, start)
    assert set(found) == {"tensorrt fp16", "tensorrt fp32"} and skipped[0][0] == "tensorrt-rtx"
    support, weights, query = make_inputs("random", 32, 32, 2, 2)
    wanted = Reference(SMALL_SPEC, state["weights"])._run(support, weights, query, False)
    contender = found["tensorrt fp32"]
    assert np.abs(contender.run(contender.prepare(support, weights), query) - wanted).max() < 1e-4


def test_int8_is_that_of_the_shipped_bundle(tmp_path):
    state = make_state(tmp_path)
    state["options"].checkpoint, state["options"].no_int8, state["grid"] = SHIPPED, False, (128, 128)
    artefacts.run_network(state, {})
    entry = {}
    artefacts.run_bundle(state, entry)
    shipped = Bundle.open()
    assert entry["int8"] == "the shipped bundle's own models" and entry["precisions"] == ["fp32", "fp16", "int8"]
    for file in shipped.manifest.models["int8"].listed:
        assert state["bundle"].manifest.files[file].sha256 == shipped.manifest.files[file].sha256


def test_int8_of_other_weights_is_made_as_the_export_makes_it(tmp_path, monkeypatch):
    from universeg_rt.export.int8 import sensitivity
    from universeg_rt.training.network.checkpoint import save_checkpoint

    save_checkpoint(tmp_path / "w.safetensors", SMALL_SPEC, random_weights(SMALL_SPEC), {})
    monkeypatch.setattr(sensitivity, "EPISODES", 1)
    spared = []
    plan = sensitivity.spare_blocks
    monkeypatch.setattr(sensitivity, "spare_blocks", lambda *given: spared.append(plan(*given)) or spared[-1])
    state = make_state(tmp_path)
    state["options"].checkpoint, state["options"].no_int8 = tmp_path / "w.safetensors", False
    artefacts.run_network(state, {})
    entry = {}
    artefacts.run_bundle(state, entry)
    assert len(spared) == 1 and entry["int8"].endswith(f"in float: {', '.join(spared[0][1]) or 'nothing'}")
    assert "int8" in state["bundle"].manifest.precisions
