"""The GPU benchmark's whole program at toy sizes on the CPU; no figure is judged, only that all is there and right."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the benchmark needs torch")
pytest.importorskip("onnx", reason="emitting the models needs onnx")

from universeg_rt.benchmarks.gpu import artefacts, contenders, folded_torch, machine, parity, timing
from universeg_rt.benchmarks.gpu import main as gpu
from universeg_rt.export.gate.inputs import make_inputs
from universeg_rt.export.gate.parity import Reference

from universeg_rt import checkout
from universeg_rt.bundle.bundle import SHIPPED, Bundle
from universeg_rt.errors import RunnerError
from universeg_rt.runners.gpu.tensorrt import runner as tensorrt_runner
from universeg_rt.spec import NetworkSpec

from ...conftest import SMALL_SPEC, random_weights
from ...kernels.conftest import native  # noqa: F401 (a fixture)
from ...universeg_rt.runners import fake_tensorrt
from ...universeg_rt.runners.conftest import add_engines
from ...universeg_rt.runners.standin import StandIn

pytestmark = pytest.mark.torch
ROOT = Path(__file__).resolve().parents[3]


def make_state(tmp_path, **more) -> dict:
    options = SimpleNamespace(checkpoint=None, spec=None, steps=[], contenders=None, compile_backend="eager",
                              plugin=None, no_int8=True, kernels_build=None, compile=False, cpu_reference=False)
    state = {
        "options": options, "device": "cpu", "grid": (32, 32), "support_sizes": [2], "members": [2], "rounds": 2,
        "budget": 0.0, "threads": 1, "work": tmp_path, "say": lambda line: None, "write": lambda: None,
        "deadline": time.monotonic() + 600, "torch": torch, "small_spec": SMALL_SPEC, **more
    }
    artefacts.run_network(state, {})
    state["copy"], state["matrix"] = 1e9, dict.fromkeys(("fp32", "tf32", "fp16", "int8"), 1e9)
    return state


def test_the_command_runs_whole_on_the_cpu(tmp_path, capsys):
    out = tmp_path / "gpu.json"
    steps = [s for s in gpu.STEPS if s != "kernels"]  # its build has a test of its own
    assert gpu.main([
        "--device", "cpu", "--out",
        str(out), "--work",
        str(tmp_path / "work"), "--support-sizes", "2", "--members", "2", "--rounds", "1", "--steps", *steps
    ]) == 0
    said, result = capsys.readouterr().out, json.loads(out.read_text())
    assert result["passed"] is True and list(result["steps"]) == steps
    assert result["steps"]["machine"]["machine"]["torch"] and result["steps"]["machine"]["packages"]["onnxruntime"]
    assert set(result["steps"]["ceilings"]["matrix_flop_per_second"]) == {"fp32", "tf32", "fp16"}
    assert "engines run on a GPU only" in result["steps"]["engines"]["why"]
    started = set(result["steps"]["contenders"]["started"])
    assert {"reference fp32", "reference tf32", "reference fp16", "folded torch fp32", "folded torch fp16 nhwc",
            "plain onnxruntime fp32", "onnxruntime fp32", "onnxruntime fp16"} <= started
    skipped = result["steps"]["contenders"]["skipped"]
    assert set(skipped) == {
        "folded torch fp32 kernels", "folded torch tf32 kernels", "folded torch fp16 kernels", "onnxruntime int8",
        "tensorrt", "tensorrt-rtx", "torch.compile tf32", "torch.compile fp16"
    }
    assert "(--compile)" in skipped["torch.compile fp16"]
    checked = result["steps"]["parity"]["contenders"]
    assert set(checked) | set(result["steps"]["parity"]["skipped"]) == started - {"reference fp32"}
    assert all(c["within"] for c in checked.values())
    rows = result["steps"]["timing"]["rows"]
    assert {(r["contender"], r["prepared"]) for r in rows} == {(name, p) for name in started for p in (True, False)}
    for row in rows:
        assert 0 < row["p50"] <= row["p90"] <= row["p99"] and row["runs"] == 1 and row["right"]
        assert row["flop_per_second"] > 0 and row["bytes_per_second"] > 0 and row["over reference fp16"] > 0
    assert "times mean nothing" in said and "skipped tensorrt: " in said and "parity with the reference" in said
    assert sum(line.startswith("   2  2 yes") for line in said.splitlines()) == len(started)


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


def test_without_a_gpu_the_run_ends_with_the_reason(tmp_path):
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    out = tmp_path / "gpu.json"
    done = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / "gpu" / "main.py", "--out", out, "--work", tmp_path / "work"],
        cwd=tmp_path, capture_output=True, text=True, timeout=300, env=os.environ)
    assert done.returncode == 1 and "FAILED" in done.stdout
    result = json.loads(out.read_text())
    assert result["passed"] is False and "PyTorch sees no GPU" in result["steps"]["machine"]["why"]


def test_processes_started_from_a_checkout_find_the_package(tmp_path, monkeypatch):
    """As the builder of engines does, where nothing is installed."""
    monkeypatch.setenv("PYTHONPATH", "elsewhere")
    checkout.make_importable_for_children(tmp_path / "site")
    checkout.make_importable_for_children(tmp_path / "site")
    code = ("import universeg_rt.export.engine.worker as w, universeg_rt.kernels.support_mean.library\n"
            "import universeg_rt.errors; print(w.__file__)")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout.startswith(str(tmp_path / "site")), done.stderr


def test_out_of_time_is_a_failure_that_keeps_what_it_has(tmp_path):
    out = tmp_path / "gpu.json"
    assert gpu.main([
        "--device", "cpu", "--out",
        str(out), "--work",
        str(tmp_path / "w"), "--time-limit", "0.000001", "--steps", "timing"
    ]) == 1
    assert "time limit" in json.loads(out.read_text())["steps"]["machine"]["why"]


def test_bad_options_are_one_line(tmp_path, capsys):
    assert gpu.main(["--device", "cpu", "--out", str(tmp_path / "a.json"), "--members", "0"]) == 1
    assert capsys.readouterr().err.count("\n") == 1
    assert gpu.main(["--device", "cpu", "--out", str(tmp_path / "none" / "a.json"), "--work", str(tmp_path)]) == 1
    assert "cannot write" in capsys.readouterr().err


# The engines, under the stand-ins
# ---------------------------------------------------------------------------------------


def test_engines_are_built_run_and_recorded(tmp_path, monkeypatch):
    state = make_state(tmp_path, device="cuda")
    state["device"] = "cpu"
    artefacts.run_bundle(state, {})
    from universeg_rt.export.engine import build

    asked = []

    def build_engines(bundle, options, say):
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

    device = StandIn()
    monkeypatch.setattr(tensorrt_runner, "open_device", lambda *_: device)
    monkeypatch.setattr(tensorrt_runner.TensorRT, "_import", classmethod(lambda cls: fake_tensorrt.make(device)))
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


# The folded network in PyTorch
# ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", [SMALL_SPEC, NetworkSpec("none", (6, 5), (4,), "max_pool"),
                                  NetworkSpec("none", (4, 5, 6, 7), (6, 5, 4), "max_pool")], ids=str)
@pytest.mark.parametrize("channels_last", [False, True])
def test_the_folded_network_is_the_reference(spec, channels_last):
    weights = random_weights(spec)
    network = folded_torch.FoldedInference(spec, weights, "cpu", torch.float32, channels_last=channels_last)
    support, entry_weights, query = make_inputs("random", 32, 48, 3, 2)
    queries = np.concatenate([query, query[:, :, ::-1]])
    with torch.inference_mode():
        prepared = network.prepare(torch.from_numpy(support), torch.from_numpy(entry_weights))
        logits = network.forward(torch.from_numpy(queries), prepared).numpy()
    reference = Reference(spec, weights)
    expected = np.concatenate([reference._run(support, entry_weights, one[None], False) for one in queries])
    assert np.abs(logits - expected).max() < 1e-4


def test_with_the_kernels_it_gives_the_same(native):  # noqa: F811
    from universeg_rt.kernels.support_mean.check.devices import Dry

    weights = random_weights(SMALL_SPEC)
    support, entry_weights, query = make_inputs("random", 32, 32, 3, 2)
    called = []
    operation = folded_torch.kernel_support_mean(Dry(native.__file__))

    def counted(*given):
        called.append(given[4:])
        return operation(*given)

    results = []
    for support_mean in (None, counted):
        network = folded_torch.FoldedInference(SMALL_SPEC, weights, "cpu", torch.float32, support_mean)
        with torch.inference_mode():
            prepared = network.prepare(torch.from_numpy(support), torch.from_numpy(entry_weights))
            results.append(network.forward(torch.from_numpy(query), prepared).numpy())
    assert np.abs(results[0] - results[1]).max() < 1e-5
    # (pool, full-resolution maps read): both encoders that pool, the deepest, and the decoder before the last.
    assert called == [(True, False), (True, True), (False, True), (False, False)]


def test_means_of_half_precision_make_no_float32_copy_of_the_maps():
    maps = torch.rand(1, 2, 300, 3, 4, 4).half() + 4
    for weights in (torch.full((2, 300), 1 / 300), torch.rand(2, 300).softmax(1)):
        equal = bool((weights == weights[0, 0]).all())
        prepared = folded_torch.Prepared(maps, maps[:, :, 0], weights, equal)
        seen = []

        class Watch(torch.utils._python_dispatch.TorchDispatchMode):
            def __torch_dispatch__(self, function, types, given=(), named=None):
                out = function(*given, **(named or {}))
                seen.append((out.dtype, out.numel()))  # noqa: B023 (used within this turn of the loop only)
                return out

        with Watch():
            mean = prepared.mean(maps)
        expected = torch.einsum("ks,bkschw->bkchw", weights, maps.float())
        assert mean.dtype == torch.float16 and (mean.float() - expected).abs().max() < 5e-3
        assert not [n for dtype, n in seen if dtype == torch.float32 and n >= maps.numel()]
        assert bool([n for _, n in seen if n >= maps.numel()]) == (not equal)


def test_another_variant_is_refused_by_name():
    spec = NetworkSpec("leaky_relu", (6, 5), (4,), "bilinear")
    with pytest.raises(RunnerError, match="released variant"):
        folded_torch.FoldedInference(spec, random_weights(spec), "cpu", torch.float32)


# Timing ---------------------------------------------------------------------------------------------------------------


def test_turns_are_interleaved_and_slow_ones_get_fewer():
    order = []
    calls = {"fast": lambda: order.append("fast"), "slow": lambda: (order.append("slow"), time.sleep(0.02))}
    times = timing.interleave(calls, 0.14, 40, time.monotonic() + 60)
    assert len(times["fast"]) == 40 and 5 <= len(times["slow"]) <= 8
    turns = [i for i, name in enumerate(order[2:]) if name == "slow"]
    assert max(np.diff(turns)) <= 12  # spread over the run, not at its end


def test_no_run_starts_after_the_deadline():
    called = []
    assert timing.interleave({"a": lambda: called.append("a")}, 1.0, 100, time.monotonic() - 1) == {} and not called
    slow = {name: lambda: time.sleep(0.05) for name in "abc"}
    began = time.monotonic()
    times = timing.interleave(slow, 10.0, 100, began + 0.28)  # 3 calls to see how long they take, then 3 timed ones
    assert set(times) == set("abc") and sum(map(len, times.values())) <= 4 and time.monotonic() - began < 1


def test_a_cell_that_meets_the_deadline_ends_and_keeps_its_rows(tmp_path):
    state = make_state(tmp_path, support_sizes=[2, 3])
    reference = contenders.TorchReference(state, "fp32")

    class Slow(contenders.TorchReference):
        def run(self, prepared, queries):
            state["deadline"] = time.monotonic() - 1
            return super().run(prepared, queries)

    state["contenders"] = {"reference fp32": reference, "slow": Slow(state, "fp16"), "late": reference}
    entry = {}
    timing.run_timing(state, entry)
    assert entry["passed"] is False and entry["why"] == "the time limit was reached in S = 2, K = 2"
    assert {s["contender"]: s["why"] for s in entry["skipped"]} == {"late": "the time limit was reached"}


def test_parity_ends_between_two_inputs_of_a_contender(tmp_path):
    state = make_state(tmp_path, support_sizes=[1, 2])
    calls = []

    class Slow(contenders.TorchReference):
        def run(self, prepared, queries):
            calls.append(queries.shape)
            state["deadline"] = time.monotonic() - 1
            return super().run(prepared, queries)

    state["contenders"] = {"slow": Slow(state, "fp32")}
    entry = {}
    parity.run_parity(state, entry)
    assert entry["passed"] is False and entry["why"] == "the time limit was reached at slow" and len(calls) == 1


def test_the_reference_runs_on_the_device_and_is_held_against_the_cpu_once(tmp_path, monkeypatch):
    """With a device of another name, so that runs on the CPU can be told apart."""
    state, ran = make_state(tmp_path, support_sizes=[1, 2]), []
    run = parity.Reference._run

    def counted(self, support, *given):
        ran.append((self.device, support.shape[1]))
        where, self.device = self.device, "cpu"
        try:
            return run(self, support, *given)
        finally:
            self.device = where

    monkeypatch.setattr(parity.Reference, "_run", counted)
    monkeypatch.setattr(machine, "free", lambda state: None)
    state["contenders"] = {"folded": contenders.TorchFolded(state, "fp32")}
    state["device"], entry = "cuda", {}
    parity.run_parity(state, entry)
    assert entry["passed"] is True and entry["reference"]["device"] == "cuda" and entry["reference"][
        "largest_logit_error"] < 1e-5
    assert {size for device, size in ran if device == "cpu"} == {1} and ("cuda", 2) in ran
    monkeypatch.setattr(parity._DeviceReference, "_run", lambda self, *given: counted(self, *given) + 1)
    entry = {}
    parity.run_parity(state, entry)
    assert entry["passed"] is False and "differs from that on the CPU" in entry["why"] and not entry["contenders"]


def test_compiling_is_for_those_who_name_it(tmp_path):
    for options in ({"contenders": ["torch.compile"]}, {"compile": True}):
        state, entry = make_state(tmp_path), {}
        for key, value in options.items():
            setattr(state["options"], key, value)
        contenders.run_contenders(state, entry)
        assert {"torch.compile tf32", "torch.compile fp16"} <= set(entry["started"])


# Int8 as it is shipped
# --------------------------------------------------------------------------------------------------


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


def test_a_wrong_contender_is_called_wrong_and_a_failing_one_skipped(tmp_path):
    state = make_state(tmp_path)
    reference = contenders.TorchReference(state, "fp32")

    class Wrong(contenders.Contender):
        def prepare(self, support, weights):
            return reference.prepare(support, weights)

        def run(self, prepared, queries):
            return -reference.run(prepared, queries)

    class Fails(Wrong):
        def run(self, prepared, queries):
            raise RuntimeError("CUDA out of memory.\nTried to allocate")

    state["contenders"] = {"reference fp32": reference, "wrong": Wrong(), "fails": Fails()}
    entry = {}
    timing.run_timing(state, entry)
    assert entry["passed"] is False
    assert entry["why"] == "masks differ from the reference's: wrong S=2 K=2, wrong S=2 K=2"
    assert entry["skipped"] == [{
        "contender": "fails", "support_size": 2, "members": 2, "why": "CUDA out of memory. Tried to allocate"
    }]
    assert {r["contender"] for r in entry["rows"] if r["right"]} == {"reference fp32"}


def test_prepared_work_is_what_is_left_after_the_first_blocks_convolution(tmp_path):
    state = make_state(tmp_path, small_spec=NetworkSpec.preset("v1"))
    state["grid"] = (128, 128)
    artefacts.run_network(state, {})
    whole, left = (timing.work(state, "folded", 64, 1, prepared).flop for prepared in (False, True))
    assert whole - left == pytest.approx(64 * 0.09 * 1.208e9, rel=0.05)
    assert timing.work(state, "reference", 64, 5, True).flop == pytest.approx(5 * 668e9, rel=0.01)


def test_the_benchmark_does_not_spoil_its_flags():
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    with machine.tf32(torch, True):
        assert torch.backends.cuda.matmul.allow_tf32 and torch.backends.cudnn.allow_tf32
    assert (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32) == before
