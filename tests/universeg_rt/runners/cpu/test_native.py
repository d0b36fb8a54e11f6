"""The native runner behind the SDK: the same masks as ONNX Runtime's, chosen first, refused by name."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from universeg_rt import Bundle, Ensemble, Segmenter, SupportSet
from universeg_rt.bundle.manifest import sealed
from universeg_rt.bundle.model_bytes import ModelBytes
from universeg_rt.bundle.weights import WEIGHTS
from universeg_rt.errors import BundleError, InputError, RunnerError
from universeg_rt.runners import open_runner
from universeg_rt.runners.cpu.native import NativeRunner
from universeg_rt.spec import NetworkSpec

from ....conftest import SMALL_SPEC, discs, native_part


@pytest.fixture
def native():
    return native_part()


def test_the_same_as_onnx_runtime(native, small_bundle):
    images, labels = discs(7)
    support, queries = SupportSet.from_arrays(images[:5], labels[:5]), images[5:]
    predictions = {}
    for name in ("native", "onnxruntime"):
        task = Segmenter.open(small_bundle,
                              runner=name).prepare(support, Ensemble(members=3, support_size=4, replacement=True,
                                                                     seed=1))
        predictions[name] = task.predict_batch(queries)
    for ours, other in zip(*predictions.values()):
        assert np.abs(ours.probability - other.probability).max() < 1e-4
        assert np.abs(ours.spread - other.spread).max() < 1e-4


def test_auto_takes_it(native, small_bundle):
    runner = open_runner(Bundle.open(small_bundle))
    assert runner.name == "native" and "fastest" in runner.reason
    assert runner.device.removeprefix("CPU, ") in native.available()


def test_a_task_from_several_threads(native, small_bundle):
    images, labels = discs(6)
    task = Segmenter.open(small_bundle, runner="native").prepare(SupportSet.from_arrays(images[:4], labels[:4]))
    alone = [task.predict(image).probability for image in images]
    with ThreadPoolExecutor(4) as pool:
        for i, prediction in enumerate(pool.map(task.predict, [images[i % 6] for i in range(24)])):
            assert np.array_equal(prediction.probability, alone[i % 6])


def test_instructions_can_be_forced(native, small_bundle, monkeypatch):
    monkeypatch.setenv("UNIVERSEG_RT_INSTRUCTIONS", "plain")
    assert open_runner(Bundle.open(small_bundle), "native").device == "CPU, plain"
    monkeypatch.setenv("UNIVERSEG_RT_INSTRUCTIONS", "sse9")
    with pytest.raises(InputError, match="'sse9'; accepted here: auto, .*plain"):
        open_runner(Bundle.open(small_bundle), "native")


def test_instructions_that_this_processor_lacks(native, small_bundle, monkeypatch):
    missing = [name for name in ("avx512", "avx2") if name not in native.available()]
    if not missing:
        pytest.skip("this processor has all of them")
    monkeypatch.setenv("UNIVERSEG_RT_INSTRUCTIONS", missing[0])
    with pytest.raises(InputError, match=f"'{missing[0]}'; this processor runs"):
        open_runner(Bundle.open(small_bundle), "native")


def test_where_it_is_not_built_another_runs(small_bundle, monkeypatch):
    monkeypatch.setitem(sys.modules, "universeg_rt._native", None)
    monkeypatch.delattr("universeg_rt._native", raising=False)
    with pytest.raises(RunnerError, match="not built here .*C\\+\\+ compiler, or use runner='onnxruntime'"):
        open_runner(Bundle.open(small_bundle), "native")
    runner = open_runner(Bundle.open(small_bundle))
    assert runner.name != "native" and "native (not built here)" in runner.reason


def test_int8_is_its_own_where_the_bundle_has_the_weights(native, typed_bundle, monkeypatch):
    images, labels = discs(5)
    support, probabilities = SupportSet.from_arrays(images[:4], labels[:4]), {}
    for precision in ("auto", "fp32", "int8"):
        segmenter = Segmenter.open(typed_bundle, runner="native", precision=precision)
        assert segmenter.runner.precision == ("int8" if precision == "int8" else "fp32")
        probabilities[precision] = segmenter.prepare(support).predict(images[4]).probability
    assert np.array_equal(probabilities["auto"], probabilities["fp32"])
    assert 0 < np.abs(probabilities["int8"] - probabilities["fp32"]).max() < 0.1
    chosen = open_runner(Bundle.open(typed_bundle), precision="int8")
    assert (chosen.name, chosen.precision) == ("native", "int8")
    monkeypatch.setenv("UNIVERSEG_RT_INSTRUCTIONS", "plain")
    plain = Segmenter.open(typed_bundle, runner="native", precision="int8")
    assert plain.runner.device == "CPU, plain"
    assert np.abs(plain.prepare(support).predict(images[4]).probability - probabilities["int8"]).max() < 0.02


def test_a_bundle_from_before_its_int8(native, typed_bundle, tmp_path):
    folder = shutil.copytree(typed_bundle, tmp_path / "older")
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["files"][manifest["models"]["int8"].pop("native")]
    (folder / "manifest.json").write_text(sealed(manifest))
    with pytest.raises(
            RunnerError,
            match="no native model of int8; .*universeg-export --precision int8, or use runner='onnxruntime'"):
        open_runner(Bundle.open(folder), "native", "int8")
    runner = open_runner(Bundle.open(folder), precision="int8")
    assert (runner.name, runner.precision) == ("onnxruntime", "int8")
    assert "native (the bundle has no int8 weights for it)" in runner.reason
    assert open_runner(Bundle.open(folder)).name == "native"


def test_fp16_is_not_for_it(native, typed_bundle):
    with pytest.raises(RunnerError, match="runs fp32 and int8, not fp16; use runner='onnxruntime'"):
        open_runner(Bundle.open(typed_bundle), "native", "fp16")


def test_sizes(native, small_bundle):
    runner = open_runner(Bundle.open(small_bundle), "native")
    with pytest.raises(InputError, match="30x32; height and width must be multiples of 4"):
        runner.prepare(np.zeros((1, 1, 2, 30, 32), np.float32), np.ones((1, 1), np.float32))
    prepared = runner.prepare(np.zeros((1, 1, 2, 32, 32), np.float32), np.ones((1, 1), np.float32))
    with pytest.raises(InputError, match="prepared at"):
        runner.run(prepared, np.zeros((1, 1, 32, 64), np.float32))


def test_damaged_or_foreign_weights(native, small_bundle):
    good = Bundle.open(small_bundle).load("fp32", "native")
    numbers = good.external[WEIGHTS]
    for data, external, message in ((good.data, numbers[:-400],
                                     "weights.safetensors cannot be used .*does not lie where its shape"),
                                    (good.data, b"", "weights.safetensors cannot be used"),
                                    (good.data[:-9], numbers, "native.json cannot be used"),
                                    (good.data.replace(b"out_conv", b"in_conv"), numbers,
                                     "made of 'in_conv.conv.bias', which weights.safetensors does not hold")):
        with pytest.raises(BundleError, match=message):
            NativeRunner(ModelBytes("native.json", data, {WEIGHTS: external}), SMALL_SPEC)
    with pytest.raises(
            BundleError,
            match="native.json cannot be used .array 2.cross.weight has shape .*, the network needs .8, 10, 3, 3"):
        NativeRunner(good, NetworkSpec("none", (6, 5, 8), (4, 6), "max_pool"))
    with pytest.raises(BundleError, match="600 features; the native runner takes at most 16 and 512"):
        NativeRunner(good, NetworkSpec("none", (6, 600), (4,), "max_pool"))


@pytest.mark.slow
@pytest.mark.parametrize("encoder, decoder", [((16, 64), (16,)), ((32, 64, 128, 256), (128, 64, 32))])
def test_a_pair_whose_second_block_is_wider(native, tmp_path, encoder, decoder):
    """In a process of its own: what wrote past its maps ended the process."""
    pytest.importorskip("torch", reason="the folds need torch's reference: pip install '.[export]'")
    from universeg_rt.export.emit.native import native_arrays
    from universeg_rt.export.folds import fold

    from ....conftest import random_weights, write_native
    from ....kernels.cpu.test_native import expected, inputs

    spec, case = NetworkSpec("none", encoder, decoder, "max_pool"), inputs(5, 128, 128)
    write_native(tmp_path, native_arrays(fold(spec, random_weights(spec))))
    np.savez(tmp_path / "case.npz", **dict(zip(("support", "weights", "query"), case)))
    code = """
import sys, numpy as np
from pathlib import Path
from universeg_rt.bundle.model_bytes import ModelBytes
from universeg_rt.runners.cpu.native import NativeRunner
from universeg_rt.spec import NetworkSpec
folder, spec = Path(sys.argv[1]), NetworkSpec.from_json(sys.argv[2])
runner, case = NativeRunner(ModelBytes.of_file(folder / "native.json"), spec, 2), np.load(folder / "case.npz")
prepared = runner.prepare(case["support"][None], case["weights"][None])
np.save(folder / "logits.npy", runner.run(prepared, case["query"][None]))
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path), spec.to_json()], capture_output=True, text=True)
    assert done.returncode == 0, f"{done.returncode} {done.stderr}"
    want = expected(spec, *case)
    assert np.abs(np.load(tmp_path / "logits.npy")[0, 0, 0] - want).max() < 5e-5 * max(1.0, np.abs(want).max())


def test_a_network_it_cannot_run_has_no_weights_for_it():
    pytest.importorskip("onnx", reason="exporting needs onnx: pip install '.[export]'")
    from universeg_rt.export.emit.native import native_arrays
    from universeg_rt.export.folds import fold

    from ....conftest import random_weights

    for spec in (NetworkSpec("leaky_relu", (5, 6), (4,), "max_pool"), NetworkSpec("none", (5, 6), (4,), "bilinear")):
        assert native_arrays(fold(spec, random_weights(spec))) is None


def test_the_memory_estimate_grows_with_the_support(native, small_bundle):
    runner = open_runner(Bundle.open(small_bundle), "native")
    assert runner.peak_bytes(64, 1, 128, 128) > runner.peak_bytes(1, 1, 128, 128) > 1e7


@pytest.mark.slow
def test_int8_takes_far_less_memory_and_says_so(native, tmp_path):
    """In a process of its own, for a network whose maps are most of it."""
    pytest.importorskip("torch", reason="the folds need torch's reference: pip install '.[export]'")
    if not Path("/proc/self/status").exists():
        pytest.skip("this system does not say how much memory a process has taken")
    from universeg_rt.export.emit.native import native_arrays
    from universeg_rt.export.emit.quantise import Quantisation, entry_convolutions
    from universeg_rt.export.folds import fold

    from ....conftest import random_weights, write_native

    spec = NetworkSpec("none", (64,) * 3, (64,) * 2, "max_pool")
    network, code = fold(spec, random_weights(spec)), """
import sys, numpy as np
from universeg_rt.bundle.model_bytes import ModelBytes
from universeg_rt.runners.cpu.native import NativeRunner
from universeg_rt.spec import NetworkSpec
runner = NativeRunner(ModelBytes.of_file(sys.argv[1]), NetworkSpec.from_json(sys.argv[2]), 2)
support = np.zeros((1, 150, 2, 128, 128), np.float32)
support[:, :, :, ::2] = 1
runner.run(runner.prepare(support, np.full((1, 150), 1 / 150, np.float32)), np.zeros((1, 1, 128, 128), np.float32))
peak = next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(runner.precision, peak, runner.peak_bytes(150, 1, 128, 128))
"""
    scales = {name: np.full(128 if name.startswith("dec") and name.endswith("term") else 64, 0.05, np.float32)
              for name in entry_convolutions(network)}
    took = {}
    whole = Quantisation({}, channels=scales)
    for quantisation in (None, whole.without("dec0"), whole):
        write_native(tmp_path, native_arrays(network, quantisation))
        done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "native.json"), spec.to_json()], check=True,
                              capture_output=True, text=True)
        precision, peak, said = done.stdout.split()
        took[precision] = int(peak)
        assert 0.75 < int(peak) / int(said) < 1.1, done.stdout
    assert took["int8"] < 0.65 * took["fp32"]
