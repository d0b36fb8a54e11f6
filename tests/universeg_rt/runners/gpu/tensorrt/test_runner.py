"""The TensorRT runners on a stand-in GPU and TensorRT: numbers, shapes, threads, graphs, memory, errors."""

from __future__ import annotations

import gc
import re
import shutil

import numpy as np
import pytest

from universeg_rt import Ensemble, Segmenter, SupportSet
from universeg_rt.bundle.bundle import Bundle
from universeg_rt.bundle.engine import Profile
from universeg_rt.errors import EngineError, InputError, RunnerError
from universeg_rt.runners import open_runner

from .....conftest import discs, in_threads
from .....fakes import tensorrt
from ...conftest import add_engines, queries, support

FLAVOURS = ("8.5.3", "10.14.1", "rtx")


def flavoured(bundle, flavour: str, *models: str):
    if flavour == "rtx":
        return add_engines(bundle, *models, builder="tensorrt-rtx", builder_version="1.7.1", gpu="",
                           compute_capability="8.0+")
    return add_engines(bundle, *models, builder_version=flavour)


def close(a: np.ndarray, b: np.ndarray) -> bool:
    return a.shape == b.shape and float(np.abs(a - b).max()) < 1e-4


@pytest.mark.parametrize("flavour", FLAVOURS)
@pytest.mark.parametrize("models", [("prepare", "predict"), ("whole",)])
def test_logits_are_the_cpu_runners_whatever_the_shapes(plain_bundle, opener, expected, flavour, models):
    runner, device, _ = opener(flavoured(plain_bundle, flavour, *models), flavour)
    assert runner.precision == "fp32" and runner.device == "Stand-in GPU (stand-in)"
    for sets, entries, count in [(1, 1, 1), (2, 5, 3), (3, 2, 2), (1, 6, 1), (2, 5, 3)]:
        given, asked = support(sets, entries), queries(count)
        prepared = runner.prepare(*given)
        for turn in range(4):  # plainly, then captured, then as a graph
            asked = queries(count, seed=turn)
            assert close(runner.run(prepared, asked), expected(given, asked)), (sets, entries, count, turn)
    assert bool(device.calls.get("launch")) == (flavour != "rtx") and runner.graph_failures == []


def test_a_support_that_runs_once_is_not_captured_whatever_ran_before(engine_bundle, opener):
    runner, device, _ = opener(engine_bundle)
    for seed in range(4):
        runner.run(runner.prepare(*support(1, 2, seed=seed)), queries(1))
    assert "capture" not in device.calls
    prepared = runner.prepare(*support(1, 2))
    for _ in range(3):
        runner.run(prepared, queries(1))
    assert device.calls["capture"] == 1 and device.calls["launch"] == 1


def test_more_queries_than_the_profile_takes_run_in_parts(plain_bundle, opener, expected):
    bundle = add_engines(plain_bundle, "prepare", "predict", profile=Profile((2, 2, 3), (1, 1, 3), (1, 2, 6), (32, 32)))
    runner, _, _ = opener(bundle)
    given = support(1, 2)
    prepared = runner.prepare(*given)
    for count in (1, 4, 7):
        assert close(runner.run(prepared, queries(count)), expected(given, queries(count)))


def test_a_request_outside_the_profile_names_the_range(engine_bundle, opener):
    runner, device, _ = opener(engine_bundle)
    before = device.used
    with pytest.raises(InputError, match=r"7 support entries in a set; this engine was built for 1 to 6"):
        runner.prepare(*support(1, 7))
    with pytest.raises(InputError, match=r"4 support sets .*; this engine was built for 1 to 3"):
        runner.prepare(*support(4, 2))
    with pytest.raises(InputError, match="images of 16x16; this engine was built for 32x32"):
        runner.prepare(np.zeros((1, 1, 2, 16, 16), np.float32), np.ones((1, 1), np.float32))
    with pytest.raises(InputError, match="the support was prepared at"):
        runner.run(runner.prepare(*support(1, 1)), np.zeros((1, 1, 16, 16), np.float32))
    gc.collect()
    assert device.used == before


def test_of_several_engines_the_one_whose_profile_fits_runs(plain_bundle, opener, expected):
    small = add_engines(plain_bundle, "prepare", "predict", profile=Profile((1, 1, 1), (1, 1, 1), (1, 2, 2), (32, 32)))
    runner, _, _ = opener(
        add_engines(small, "prepare", "predict", profile=Profile((1, 1, 1), (1, 1, 1), (3, 4, 6), (32, 32))))
    for entries in (2, 5):
        given = support(1, entries)
        assert close(runner.run(runner.prepare(*given), queries(1)), expected(given, queries(1)))
    with pytest.raises(InputError, match="built for 3 to 6"):
        runner.prepare(*support(1, 8))


def test_fewer_entries_than_an_engine_takes_are_filled_up_with_such_of_no_weight(plain_bundle, opener, expected):
    runner, _, _ = opener(
        add_engines(plain_bundle, "prepare", "predict", profile=Profile((1, 1, 1), (1, 1, 2), (4, 4, 6), (32, 32))))
    for entries in (1, 3, 4, 5):
        given = support(2, entries)
        prepared = runner.prepare(*given)
        assert prepared.value.entries == max(4, entries)
        assert close(runner.run(prepared, queries(1)), expected(given, queries(1)))


@pytest.mark.parametrize("fact, value, said", [
    ("gpu", "Another GPU", "gpu: built for 'Another GPU', here is 'Stand-in GPU'"),
    ("compute_capability", "8.6", "compute_capability: built for '8.6', here is '9.0'"),
    ("builder_version", "10.3.0", "builder_version: built for '10.3.0', here is '10.14.1'"),
    ("cuda", "14.1", "cuda: built for '14.1', here is '13.0'"),
    ("onnx_sha256", "0" * 64, "onnx_sha256: built for '0000"),
    ("plugin_sha256", "1" * 64, "no such library (name it in Segmenter.open(plugin=...) or UNIVERSEG_RT_PLUGIN)"),
])
def test_an_engine_of_something_else_is_refused_by_the_name_of_the_field(plain_bundle, opener, fact, value, said):
    bundle = add_engines(plain_bundle, "prepare", "predict", **{fact: value})
    with pytest.raises(EngineError,
                       match=re.escape(said) + ".*: build one on this machine with universeg-export --engine tensorrt"):
        opener(bundle)


def test_a_bundle_without_a_fitting_engine_says_so(plain_bundle, typed_bundle, opener, tmp_path):
    with pytest.raises(RunnerError, match="holds no tensorrt engine.*universeg-export --engine tensorrt"):
        opener(plain_bundle)
    with pytest.raises(EngineError, match="prepare and predict are needed"):
        opener(add_engines(plain_bundle, "predict"))
    with_models = add_engines(Bundle.open(shutil.copytree(typed_bundle, tmp_path / "typed")), "whole")
    with pytest.raises(RunnerError, match="no tensorrt engine of int8 .fp32."):
        opener(with_models, precision="int8")


def test_a_plan_that_tensorrt_refuses_is_one_line(engine_bundle, opener, monkeypatch):
    monkeypatch.setattr(tensorrt, "MAGIC", b"other")
    with pytest.raises(EngineError,
                       match="refuses the engine engines/prepare.*magic tag does not match; build it again") as caught:
        opener(engine_bundle)
    assert "\n" not in str(caught.value)


def test_threads_run_side_by_side_in_contexts_of_their_own(engine_bundle, opener, expected):
    runner, _, trt = opener(engine_bundle)
    given = [support(k, s) for k, s in [(1, 1), (2, 3), (3, 6)]]
    prepared = [runner.prepare(*g) for g in given]
    wanted = {(i, turn): expected(g, queries(2, seed=turn)) for i, g in enumerate(given) for turn in range(4)}
    wrong, before = [], trt.contexts

    def work(first: int) -> None:
        for turn in range(12):
            i, seed = (first + turn) % 3, turn % 4
            try:
                if not close(runner.run(prepared[i], queries(2, seed=seed)), wanted[i, seed]):
                    wrong.append((first, turn))
                again = runner.prepare(*given[i])
                if not close(runner.run(again, queries(2, seed=seed)), wanted[i, seed]):
                    wrong.append((first, turn, "prepared here"))
            except BaseException as error:
                wrong.append(error)
                raise

    in_threads(work, 5)
    assert wrong == []
    assert trt.contexts - before == 5 * 3  # three shapes a thread


def test_everything_is_freed_with_what_needed_it(engine_bundle, opener):
    runner, device, _ = opener(engine_bundle)
    first = runner.prepare(*support(2, 4))
    runner.run(first, queries(1))
    with_one = device.used
    second = runner.prepare(*support(2, 4, seed=1))
    for _ in range(3):
        runner.run(second, queries(1))
    graphs = device.calls["capture"]
    assert device.used > with_one and graphs == 1
    del second
    gc.collect()
    assert device.used == with_one
    third = runner.prepare(*support(2, 4, seed=2))  # may get the addresses of the second: its graph must be gone
    for _ in range(3):
        out = runner.run(third, queries(1))
    assert not np.array_equal(out, runner.run(first, queries(1)))
    del first, third, runner
    gc.collect()
    assert device.used == 0


def test_many_shapes_keep_few_buffers(engine_bundle, opener):
    runner, device, _ = opener(engine_bundle)
    prepared = [runner.prepare(*support(k, s)) for k in (1, 2, 3) for s in range(1, 7)]
    for p in prepared:
        runner.run(p, queries(1))
    blocks = len(device.blocks)
    for p in prepared:
        runner.run(p, queries(1))
    assert len(device.blocks) == blocks


def test_a_shape_that_cannot_be_captured_runs_without_a_graph_and_says_why(engine_bundle, opener, expected):
    runner, device, _ = opener(engine_bundle)
    device.capture_fails = "cuStreamEndCapture failed: CUDA_ERROR_STREAM_CAPTURE_INVALIDATED"
    given = support(1, 3)
    prepared = runner.prepare(*given)
    for turn in range(5):
        assert close(runner.run(prepared, queries(1, seed=turn)), expected(given, queries(1, seed=turn)))
    assert device.calls["capture"] == 1 and "launch" not in device.calls
    assert len(runner.graph_failures) == 1 and "CAPTURE_INVALIDATED" in runner.notes[0]


def test_graphs_are_captured_again_when_scratch_memory_moves(engine_bundle, opener, expected):
    runner, device, _ = opener(engine_bundle)
    small, large = support(1, 1), support(3, 6)
    first, second = runner.prepare(*small), runner.prepare(*large)
    for _ in range(3):
        runner.run(first, queries(1))
    assert device.calls["capture"] == 1
    runner.run(second, queries(3))  # needs more
    for turn in range(3):
        assert close(runner.run(first, queries(1, seed=turn)), expected(small, queries(1, seed=turn)))
    assert device.calls["capture"] == 2


def test_no_memory_left_says_how_much_is_needed_and_free_and_the_runner_lives_on(engine_bundle, opener, expected):
    runner, device, _ = opener(engine_bundle)
    gc.collect()
    device.total = device.used + 400_000
    with pytest.raises(RunnerError,
                       match=r"no GPU memory left: .* needs \S+ MB, 0\.\d+ MB of \d+\.\d+ MB are free on Stand-in GPU"):
        runner.prepare(*support(3, 6))
    gc.collect()
    given = support(1, 1)
    assert close(runner.run(runner.prepare(*given), queries(1)), expected(given, queries(1)))


def test_no_context_for_want_of_memory(engine_bundle, opener):
    runner, device, trt = opener(engine_bundle)
    prepared = runner.prepare(*support(1, 2))
    trt.no_context = True
    with pytest.raises(RunnerError, match="no execution context for the engine .*: CUDA out of memory"):
        runner.run(prepared, queries(2))
    device.total = device.used + 1000
    with pytest.raises(RunnerError, match=r"no GPU memory left: running the engine .* needs \d.\d MB, 0.0 MB"):
        runner.run(prepared, queries(2))


@pytest.mark.parametrize("after", [0, 1, 2])
def test_an_error_in_a_run_is_typed_and_passes(engine_bundle, opener, expected, after):
    """In the first run, in the capture, and where a graph is there already."""
    runner, _, trt = opener(engine_bundle)
    given = support(2, 3)
    prepared = runner.prepare(*given)
    for _ in range(after):
        runner.run(prepared, queries(1))
    trt.fail = "Cuda Runtime (an illegal memory access was encountered)"
    if after < 2:
        with pytest.raises(RunnerError, match="engines/predict.* failed to run: Cuda Runtime"):
            runner.run(prepared, queries(1))
    for turn in range(3):
        assert close(runner.run(prepared, queries(1, seed=turn)), expected(given, queries(1, seed=turn)))


def test_weights_that_an_engine_cannot_take_are_not_ignored(engine_bundle, opener):
    runner, _, _ = opener(engine_bundle)
    del runner._networks[0].prepare.inputs["weights"]
    with pytest.raises(EngineError, match="takes no weights, and these differ"):
        runner.prepare(*support(1, 3))


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_the_memory_estimate_covers_what_is_used(plain_bundle, opener, flavour):
    runner, device, _ = opener(flavoured(plain_bundle, flavour, "prepare", "predict"), flavour)
    prepared = runner.prepare(*support(2, 5))
    runner.run(prepared, queries(1))
    gc.collect()
    lowest = 0.1 if flavour == "rtx" else 0.6  # TensorRT-RTX takes its scratch memory unseen
    assert lowest < device.used / runner.peak_bytes(5, 2, 32, 32) < 1.05
    assert runner.peak_bytes(6, 3, 32, 32) > runner.peak_bytes(1, 1, 32, 32) > 0


@pytest.mark.parametrize("entries", [(1, 2, 6), (3, 3, 3), (5, 6, 9)])
def test_a_segmenter_over_engines_estimates_and_predicts(plain_bundle, opener, entries):
    """The whole way of a user; the estimate's own runs stay within the profile."""
    bundle = add_engines(plain_bundle, "prepare", "predict", profile=Profile((1, 1, 1), (1, 1, 2), entries, (32, 32)))
    runner, _, _ = opener(bundle)
    cpu = Segmenter(bundle, open_runner(bundle, "onnxruntime", "fp32", 1))
    segmenter = Segmenter(bundle, runner)
    assert runner.support_sizes == (entries[0], entries[2]) and segmenter.estimate(entries[0]).seconds > 0
    images, labels = discs(6)
    ensemble = Ensemble(2, entries[0], False, 0)
    ours, theirs = (s.prepare(SupportSet.from_arrays(images, labels), ensemble).predict(images[0])
                    for s in (segmenter, cpu))
    assert np.abs(ours.probability - theirs.probability).max() < 1e-4
