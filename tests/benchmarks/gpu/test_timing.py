"""Timing in turns, its deadline, and what is called wrong."""

from __future__ import annotations

import time

import numpy as np
import pytest

pytest.importorskip("torch", reason="the benchmark needs torch")
pytest.importorskip("onnx", reason="emitting the models needs onnx")

from universeg_rt.benchmarks.gpu import artefacts, contenders, timing
from universeg_rt.spec import NetworkSpec

from .state import make_state

pytestmark = pytest.mark.torch


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


def test_what_warms_up_leaves_half_of_the_time_to_what_is_warm(tmp_path):
    state = make_state(tmp_path, deadline=time.monotonic() + 10)
    reference, began = contenders.TorchReference(state, "fp32"), time.monotonic()

    class Slow(contenders.TorchReference):
        def prepare(self, support, weights):
            time.sleep(max(0.0, began + 5.5 - time.monotonic()))
            return super().prepare(support, weights)

    state["contenders"] = {"reference fp32": reference, "slow": Slow(state, "fp32"), "late": reference}
    entry = {}
    timing.run_timing(state, entry)
    assert {s["contender"]: s["why"] for s in entry["skipped"]} == {"late": "the time limit was reached"}
    assert {row["contender"] for row in entry["rows"]} == {"reference fp32", "slow"}


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
