"""Contenders and the reference, held against the reference on the CPU."""

from __future__ import annotations

import time

import pytest

pytest.importorskip("torch", reason="the benchmark needs torch")
pytest.importorskip("onnx", reason="emitting the models needs onnx")

from universeg_rt.benchmarks.gpu import contenders, machine, parity

from .state import make_state

pytestmark = pytest.mark.torch


def test_parity_ends_between_two_inputs_of_a_contender(tmp_path):
    """Half of the time that is left, where timing comes after it."""
    state = make_state(tmp_path, support_sizes=[1, 2], deadline=time.monotonic() + 1)
    state["options"].steps = ["parity", "timing"]
    calls = []

    class Slow(contenders.TorchReference):
        def run(self, prepared, queries):
            calls.append(queries.shape)
            while time.monotonic() < state["deadline"] - 0.4:
                time.sleep(0.05)
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


@pytest.mark.parametrize("timed, compared", [([1], (1,)), ([1, 5], (1, 3))])
def test_where_one_member_alone_is_timed_no_more_are_compared(tmp_path, monkeypatch, timed, compared):
    """A GPU's libraries search their kernels anew for each shape."""
    state, seen = make_state(tmp_path, members=timed), []

    def compare(models, tolerance, cases, *given):
        seen.append(cases.members)
        raise parity.deadline.OutOfTime

    monkeypatch.setattr(parity, "compare", compare)
    monkeypatch.setattr(parity, "_DeviceReference", lambda *given: None)
    state["contenders"], state["device"] = {"folded": contenders.TorchFolded(state, "fp32")}, "cuda"
    parity.run_parity(state, {})
    assert seen == [compared]


def test_replays_and_several_members_are_compared_too(tmp_path, monkeypatch):
    """A graph that keeps the query of its capture, or two members in place of three, is over tolerance."""
    state = make_state(tmp_path, support_sizes=[1, 2], members=[1])

    class Kept(contenders.TorchFolded):
        def prepare(self, support, weights):
            return [super().prepare(support, weights), None, len(support)]

        def run(self, prepared, queries):
            prepared[1] = queries if prepared[1] is None else prepared[1]
            return super().run(prepared[0], prepared[1])

    class Wrong(contenders.TorchFolded):
        def run(self, prepared, queries):
            logits = super().run(prepared, queries)
            logits[:, 1:] += 1
            return logits

    state["contenders"] = {"right": contenders.TorchFolded(state, "fp32"), "kept": Kept(state, "fp32"),
                           "wrong": Wrong(state, "fp32")}
    entry = {}
    parity.run_parity(state, entry)
    assert entry["failed"] == ["kept replayed", "wrong members"] and entry["passed"] is False
    assert {name: found["within"] for name, found in entry["contenders"].items()} == {
        "right": True, "kept": False, "wrong": False}
    right = entry["contenders"]["right"]
    assert (right["cases"], right["replayed"]["cases"], right["members"]["cases"]) == (4, 2, 1)
