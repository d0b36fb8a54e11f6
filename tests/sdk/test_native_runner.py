"""The native runner behind the SDK: the same masks as ONNX Runtime's, chosen first, refused by name."""

from __future__ import annotations

import shutil
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from universeg_rt import Bundle, Ensemble, Segmenter, SupportSet
from universeg_rt.errors import BundleError, InputError, RunnerError
from universeg_rt.runners import open_runner
from universeg_rt.runners.native import NativeRunner
from universeg_rt.spec import NetworkSpec

from ..conftest import SMALL_SPEC, discs


@pytest.fixture
def native():
    return pytest.importorskip(
        "universeg_rt._native", reason="the native runner is not built here: reinstall where there is a C++ compiler")


def test_the_same_as_onnx_runtime(native, small_bundle):
    images, labels = discs(7)
    support, queries = SupportSet.from_arrays(images[:5], labels[:5]), images[5:]
    predictions = {}
    for name in ("native", "onnxruntime"):
        task = Segmenter.open(small_bundle, runner=name).prepare(support, Ensemble(members=3, support_size=4, replacement=True, seed=1))
        predictions[name] = task.predict_batch(queries)
    for ours, other in zip(*predictions.values()):
        assert np.abs(ours.probability - other.probability).max() < 1e-4
        assert np.abs(ours.spread - other.spread).max() < 1e-4


def test_auto_takes_it(native, small_bundle):
    runner = open_runner(Bundle.open(small_bundle))
    assert runner.name == "native" and "fastest" in runner.reason and native.available()[0] in runner.device


def test_a_task_from_several_threads(native, small_bundle):
    images, labels = discs(6)
    task = Segmenter.open(small_bundle, runner="native").prepare(SupportSet.from_arrays(images[:4], labels[:4]))
    alone = [task.predict(image).probability for image in images]
    with ThreadPoolExecutor(4) as pool:
        for i, prediction in enumerate(pool.map(task.predict, [images[i % 6] for i in range(24)])):
            assert np.array_equal(prediction.probability, alone[i % 6])


def test_instructions_can_be_forced(native, small_bundle, monkeypatch):
    monkeypatch.setenv("UNIVERSEG_INSTRUCTIONS", "plain")
    assert open_runner(Bundle.open(small_bundle), "native").device == "CPU, plain"
    monkeypatch.setenv("UNIVERSEG_INSTRUCTIONS", "sse9")
    with pytest.raises(InputError, match="'sse9'; accepted here: auto, .*plain"):
        open_runner(Bundle.open(small_bundle), "native")


def test_instructions_that_this_processor_lacks(native, small_bundle, monkeypatch):
    missing = [name for name in ("avx512", "avx2") if name not in native.available()]
    if not missing:
        pytest.skip("this processor has all of them")
    monkeypatch.setenv("UNIVERSEG_INSTRUCTIONS", missing[0])
    with pytest.raises(InputError, match=f"'{missing[0]}'; this processor runs"):
        open_runner(Bundle.open(small_bundle), "native")


def test_where_it_is_not_built_another_runs(small_bundle, monkeypatch):
    monkeypatch.setitem(sys.modules, "universeg_rt._native", None)
    monkeypatch.delattr("universeg_rt._native", raising=False)
    with pytest.raises(RunnerError, match="not built here .*C\\+\\+ compiler, or use runner='onnxruntime'"):
        open_runner(Bundle.open(small_bundle), "native")
    runner = open_runner(Bundle.open(small_bundle))
    assert runner.name != "native" and "native (not built here)" in runner.reason


def test_only_float32(native, typed_bundle):
    with pytest.raises(RunnerError, match="fp32 only, not int8"):
        open_runner(Bundle.open(typed_bundle), "native", "int8")
    runner = open_runner(Bundle.open(typed_bundle), precision="int8")
    assert runner.precision == "int8" and "native" in runner.reason


def test_sizes(native, small_bundle):
    runner = open_runner(Bundle.open(small_bundle), "native")
    with pytest.raises(InputError, match="30x32; height and width must be multiples of 4"):
        runner.prepare(np.zeros((1, 1, 2, 30, 32), np.float32), np.ones((1, 1), np.float32))
    prepared = runner.prepare(np.zeros((1, 1, 2, 32, 32), np.float32), np.ones((1, 1), np.float32))
    with pytest.raises(InputError, match="prepared at"):
        runner.run(prepared, np.zeros((1, 1, 32, 64), np.float32))


def test_damaged_or_foreign_weights(native, small_bundle, tmp_path):
    source = Bundle.open(small_bundle).model("fp32", "native")
    (tmp_path / "short.npz").write_bytes(source.read_bytes()[:-400])
    with pytest.raises(BundleError, match="short.npz cannot be used"):
        NativeRunner(tmp_path / "short.npz", SMALL_SPEC)
    shutil.copy(source, tmp_path / "other.npz")
    with pytest.raises(BundleError, match="another shape"):
        NativeRunner(tmp_path / "other.npz", NetworkSpec("none", (6, 5, 8), (4, 6), "max_pool"))


def test_a_network_it_cannot_run_has_no_weights_for_it():
    pytest.importorskip("onnx", reason="exporting needs onnx: pip install 'universeg_rt[export]'")
    from universeg_rt.export.emit.native import emit_native
    from universeg_rt.export.folds import fold

    from ..conftest import random_weights

    for spec in (NetworkSpec("leaky_relu", (5, 6), (4,), "max_pool"), NetworkSpec("none", (5, 6), (4,), "bilinear")):
        assert emit_native(fold(spec, random_weights(spec))) is None


def test_the_memory_estimate_grows_with_the_support(native, small_bundle):
    runner = open_runner(Bundle.open(small_bundle), "native")
    assert runner.peak_bytes(64, 1, 128, 128) > runner.peak_bytes(1, 1, 128, 128) > 1e7
