"""The runner of ONNX Runtime's CUDA provider, its binding of inputs and outputs run on the CPU provider's device."""

from __future__ import annotations

import gc
import importlib.util
from dataclasses import replace

import numpy as np
import pytest

from universeg_rt.bundle.model_bytes import ModelBytes
from universeg_rt.errors import BundleError, InputError, RunnerError
from universeg_rt.runners import libraries, open_runner
from universeg_rt.runners.gpu import onnxruntime as onnxruntime_cuda
from universeg_rt.runners.gpu import provider as starting
from universeg_rt.runners.gpu.onnxruntime import OnnxRuntimeCuda

from ....conftest import in_threads
from ..conftest import queries, support

ort = pytest.importorskip("onnxruntime")
CPU = "CPUExecutionProvider"


def on_cpu(bundle, pair: bool = True, **options) -> OnnxRuntimeCuda:
    if not pair:
        return OnnxRuntimeCuda(bundle.load("fp32", "whole"), None, provider=CPU, **options)
    return OnnxRuntimeCuda(bundle.load("fp32", "predict"), bundle.load("fp32", "prepare"), provider=CPU, **options)


@pytest.mark.parametrize("pair", [True, False])
def test_logits_are_the_cpu_runners_whatever_the_shapes(plain_bundle, expected, pair):
    runner = on_cpu(plain_bundle, pair)
    for sets, entries, count in [(1, 1, 1), (2, 5, 3), (3, 2, 2)]:
        given = support(sets, entries)
        prepared = runner.prepare(*given)
        for turn in range(3):
            asked = queries(count, seed=turn)
            out = runner.run(prepared, asked)
            assert out.shape == (count, sets, 1, 32, 32) and np.abs(out - expected(given, asked)).max() < 1e-4
    with pytest.raises(InputError, match="the support was prepared at"):
        runner.run(prepared, np.zeros((1, 1, 16, 16), np.float32))


def test_results_and_inputs_are_the_callers_own(plain_bundle):
    runner = on_cpu(plain_bundle)
    given = support(1, 2)
    prepared = runner.prepare(*given)
    asked = queries(1)
    first = runner.run(prepared, asked)
    kept = first.copy()
    given[0][...] = 0
    asked[...] = 0
    runner.run(prepared, asked)
    assert np.array_equal(first, kept)
    assert np.array_equal(runner.run(prepared, queries(1)), kept)


def test_many_queries_run_in_parts_that_bound_memory(plain_bundle, expected, monkeypatch):
    monkeypatch.setattr(onnxruntime_cuda, "MAPS", 12)
    runner = on_cpu(plain_bundle)
    given = support(2, 3)
    prepared = runner.prepare(*given)
    assert np.abs(runner.run(prepared, queries(5)) - expected(given, queries(5))).max() < 1e-4
    assert sorted(shape[0] for shape in prepared.value.bound) == [1, 2]


def test_few_shapes_are_kept(plain_bundle):
    runner = on_cpu(plain_bundle)
    prepared = runner.prepare(*support(1, 1))
    for n in range(1, 12):
        runner.run(prepared, queries(n))
    assert len(prepared.value.bound) == onnxruntime_cuda.SHAPES


@pytest.fixture
def annotations(monkeypatch):
    """The graph annotation of every run so far."""
    seen = []

    class Options(ort.RunOptions):
        def add_run_config_entry(self, key, value):
            assert key == "gpu_graph_id"
            seen.append(int(value))
            super().add_run_config_entry(key, value)

    monkeypatch.setattr(ort, "RunOptions", Options)
    return seen


def test_each_support_and_shape_has_a_graph_of_its_own_from_its_second_run_on(plain_bundle, annotations, monkeypatch):
    monkeypatch.setattr(onnxruntime_cuda, "GRAPHS", 2)
    runner = on_cpu(plain_bundle)
    first, second = runner.prepare(*support(1, 2)), runner.prepare(*support(2, 2))
    del annotations[:]
    for _ in range(3):
        runner.run(first, queries(1))
    runner.run(first, queries(2))
    for _ in range(2):
        runner.run(second, queries(1))
        runner.run(first, queries(2))
    # The first run of a shape allocates; a third graph is not made, since ONNX Runtime frees none.
    assert annotations == [-1, 1, 1, -1, -1, 2, -1, 2]
    assert runner.graph_failure == "" and runner.notes == ()


@pytest.mark.parametrize("pair", [True, False])
def test_supports_that_follow_one_another_run_by_the_graphs_of_those_before(plain_bundle, annotations, expected, pair,
                                                                            monkeypatch):
    """ONNX Runtime keeps 16 graphs for life: a support of the same shape takes the memory that they read."""
    monkeypatch.setattr(onnxruntime_cuda, "GRAPHS", 1)
    runner = on_cpu(plain_bundle, pair)
    for seed in range(4):
        given = support(2, 3, seed=seed)
        prepared = runner.prepare(*given)
        for turn in range(2):
            asked = queries(1, seed=turn)
            assert np.abs(runner.run(prepared, asked) - expected(given, asked)).max() < 1e-4
        assert annotations[-1] == 1
        if seed:
            assert annotations[-2:] == [1, 1]
        del prepared
        gc.collect()
    held = runner.prepare(*support(2, 3))
    other = runner.prepare(*support(2, 3, seed=9))  # while another lives its memory is not taken
    before = runner.run(held, queries(1))
    runner.run(other, queries(1))
    assert np.array_equal(runner.run(held, queries(1)), before) and len(runner._retired) == 0


def test_where_no_graph_can_be_captured_runs_go_on_without(plain_bundle, annotations, expected):
    runner = on_cpu(plain_bundle)
    given = support(1, 2)
    prepared = runner.prepare(*given)
    session = runner._predict_session

    class Refusing:
        def __getattr__(self, name):
            return getattr(session, name)

        def run_with_iobinding(self, binding, options):
            if annotations[-1] >= 0:
                raise RuntimeError("CUDA failure 901: operation failed due to a previous error during capture")
            session.run_with_iobinding(binding, options)

    runner._predict_session = Refusing()
    for turn in range(4):
        asked = queries(1, seed=turn)
        assert np.abs(runner.run(prepared, asked) - expected(given, asked)).max() < 1e-4
    assert "CUDA failure 901" in runner.graph_failure and "CUDA failure 901" in runner.notes[0]
    assert sum(a >= 0 for a in annotations) == 1


def test_nothing_is_collected_in_a_run_and_a_forked_process_is_told_so(plain_bundle, monkeypatch):
    runner = on_cpu(plain_bundle)
    prepared, session, collecting = runner.prepare(*support(1, 2)), runner._predict_session, []

    class Watched:
        def __getattr__(self, name):
            return getattr(session, name)

        def run_with_iobinding(self, binding, options):
            collecting.append(gc.isenabled())
            session.run_with_iobinding(binding, options)

    runner._predict_session = Watched()
    runner.run(prepared, queries(1))
    assert collecting == [False] and gc.isenabled()
    monkeypatch.setattr(onnxruntime_cuda.os, "getpid", lambda: -1)
    for call in (lambda: runner.run(prepared, queries(1)), lambda: runner.prepare(*support(1, 2))):
        with pytest.raises(RunnerError, match="forked from one that uses the GPU.*spawn"):
            call()
    assert len(collecting) == 1


def test_threads_share_it(plain_bundle, expected):
    runner = on_cpu(plain_bundle)
    given = [support(k, 2) for k in (1, 2)]
    prepared = [runner.prepare(*g) for g in given]
    wanted = {(i, seed): expected(given[i], queries(2, seed=seed)) for i in range(2) for seed in range(3)}
    wrong = []

    def work(n: int) -> None:
        for turn in range(9):
            i, seed = (n + turn) % 2, turn % 3
            if np.abs(runner.run(prepared[i], queries(2, seed=seed)) - wanted[i, seed]).max() > 1e-4:
                wrong.append((n, turn))

    in_threads(work, 4)
    assert wrong == []


def test_errors_of_the_library_are_typed(plain_bundle, tmp_path):
    runner = on_cpu(plain_bundle)
    full = RuntimeError("Failed to allocate memory for requested buffer of size 9")
    assert "no GPU memory left" in str(runner._failed(full))
    assert str(runner._failed(RuntimeError("CUDA error 700\nmore"))) == "ONNX Runtime failed on CPU: CUDA error 700"
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    with pytest.raises(RunnerError, match="cannot load broken.onnx"):
        OnnxRuntimeCuda(ModelBytes.of_file(tmp_path / "broken.onnx"), None, provider=CPU)


def test_a_prepared_support_is_freed_with_its_last_holder(plain_bundle):
    runner = on_cpu(plain_bundle)
    prepared = runner.prepare(*support(1, 2))
    runner.run(prepared, queries(1))
    import weakref

    value = weakref.ref(next(iter(prepared.value.tensors.values())))
    del prepared
    gc.collect()
    assert value() is None


def test_the_memory_estimate_grows_with_the_support(plain_bundle):
    runner = on_cpu(plain_bundle)
    small, large = runner.peak_bytes(1, 1, 128, 128), runner.peak_bytes(64, 5, 128, 128)
    kept = 64 * 5 * 6 * 128 * 128 * 4  # the prepared term of 6 features
    assert 0 < small < large and large - small > 2 * kept


# Starting, without the CUDA provider ----------------------------------------------------------------------------------


def test_without_the_provider_the_package_is_named(plain_bundle):
    if starting.PROVIDER in ort.get_available_providers():
        pytest.skip("onnxruntime-gpu is installed")
    with pytest.raises(RunnerError, match="has no CUDAExecutionProvider; pip install onnxruntime-gpu") as caught:
        open_runner(plain_bundle, "onnxruntime-cuda")
    assert caught.value.short == "onnxruntime-gpu is not installed"


def test_what_cannot_run_is_not_even_imported(plain_bundle, monkeypatch, tmp_path):
    """An onnxruntime that comes with the provider, on a machine without the driver."""
    monkeypatch.setattr(starting, "import_onnxruntime", lambda: pytest.fail("imported"))
    monkeypatch.setattr(starting, "has_driver", lambda: False)
    (tmp_path / "onnxruntime" / "capi").mkdir(parents=True)
    (tmp_path / "onnxruntime" / "__init__.py").write_text("")
    spec = importlib.util.spec_from_file_location("onnxruntime", tmp_path / "onnxruntime" / "__init__.py",
                                                  submodule_search_locations=[str(tmp_path / "onnxruntime")])
    monkeypatch.setattr(libraries, "find_spec", lambda name: spec)
    for provider, short in ((None, "onnxruntime-gpu is not installed"), ("libonnxruntime_providers_cuda.so",
                                                                         "no NVIDIA driver")):
        if provider:
            (tmp_path / "onnxruntime" / "capi" / provider).write_bytes(b"")
        with pytest.raises(RunnerError) as caught:
            open_runner(plain_bundle, "onnxruntime-cuda")
        assert caught.value.short == short


def test_a_provider_that_falls_back_to_the_cpu_is_refused(plain_bundle, monkeypatch):
    """As onnxruntime-gpu does where the driver or cuDNN is missing: a warning, and a session on the CPU."""
    monkeypatch.setattr(ort, "get_available_providers", lambda: [starting.PROVIDER, CPU])
    monkeypatch.setattr(starting, "has_cuda_provider", lambda: True)
    monkeypatch.setattr(starting, "has_driver", lambda: True)
    session = ort.InferenceSession
    asked = []

    def cpu_session(path, options, providers):
        asked.append(providers)
        return session(path, options, providers=[CPU])

    monkeypatch.setattr(ort, "InferenceSession", cpu_session)
    with pytest.raises(RunnerError, match="did not start CUDAExecutionProvider.*onnxruntime-gpu.cuda,cudnn.") as caught:
        open_runner(plain_bundle, "onnxruntime-cuda")
    assert caught.value.short == "CUDA or cuDNN does not load"
    (name, options), = asked[0]
    assert name == starting.PROVIDER and options["use_tf32"] == "0" and options["device_id"] == "0"


def test_the_pair_is_taken_where_the_bundle_has_it_and_the_precision_that_there_is(plain_bundle, monkeypatch):
    taken = []
    monkeypatch.setattr(onnxruntime_cuda, "onnxruntime_with", lambda provider: ort)
    monkeypatch.setattr(OnnxRuntimeCuda, "__init__", lambda self, *given, **options: taken.append((*given, options)))
    runner = open_runner(plain_bundle, "onnxruntime-cuda")
    assert [p.name for p in taken[0][:2]] == ["predict.onnx", "prepare.onnx"] and runner.precision == "fp32"
    models = plain_bundle.manifest.models
    old = replace(plain_bundle, manifest=replace(plain_bundle.manifest, models={
        "fp32": replace(models["fp32"], prepare=None, predict=None), "fp16": models["fp32"]}))
    monkeypatch.setenv("UNIVERSEG_RT_TF32", "1")
    assert open_runner(old, "onnxruntime-cuda").precision == "fp16"
    open_runner(old, "onnxruntime-cuda", "fp32")
    assert taken[-1][0].name == "model.onnx" and taken[-1][1] is None and taken[-1][2]["tf32"] is True
    with pytest.raises(BundleError, match="holds no int8 models"):
        open_runner(plain_bundle, "onnxruntime-cuda", "int8")
