"""Frozen tasks side by side: what their time limit does."""

from __future__ import annotations

import json
import time
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("torch", reason="the benchmark needs torch")
pytest.importorskip("onnx", reason="emitting the models needs onnx")

from universeg_rt.benchmarks.gpu import deadline, frozen, timing

from .steps.conftest import upload  # noqa: F401  fixture

pytestmark = pytest.mark.torch


def test_a_runner_whose_turn_comes_too_late_is_skipped_and_said(upload, tmp_path):  # noqa: F811
    out = tmp_path / "frozen.json"
    given = [str(upload / "task.onnx"), "--out", str(out), "--work", str(tmp_path), "--device", "cpu"]
    assert frozen.main([*given, "--time-limit", "0"]) == 1
    entry = json.loads(out.read_text())["tasks"]["task.onnx"]
    assert entry["right"] == {} and entry["rows"] == []
    assert {entry["skipped"][name] for name in ("onnxruntime", "torch nchw")} == {
        "1 queries: the time limit was reached"}


def test_slow_checks_leave_time_for_each_task_and_row(upload, tmp_path, monkeypatch):  # noqa: F811
    """By a clock that a check of more than one query moves beyond half of a task's time."""
    now = [0.0]
    clock = SimpleNamespace(monotonic=lambda: now[0], perf_counter=time.perf_counter)
    for module in (frozen, deadline, timing):
        monkeypatch.setattr(module, "time", clock)
    check = frozen._check

    def slow(runner, queries, *given):
        now[0] += 30 if len(queries) > 1 else 1
        check(runner, queries, *given)

    monkeypatch.setattr(frozen, "_check", slow)
    tasks = [str(upload / name) for name in ("task.onnx", "task_fp16.onnx")]
    given = [*tasks, "--out", str(tmp_path / "f.json"), "--work", str(tmp_path), "--device", "cpu", "--rounds", "1"]
    frozen.main([*given, "--time-limit", "100"])
    found = json.loads((tmp_path / "f.json").read_text())["tasks"]
    for entry in found.values():
        checked = {row["runner"] for row in entry["rows"] if row["batch"] == 1}
        assert checked == set(entry["right"]) and {"onnxruntime", "torch nchw"} <= checked
        late = {row["runner"] for row in entry["rows"] if row["batch"] == 2}
        assert len(late) == 1 and "2 queries: the time limit was reached" in entry["skipped"].values()


def test_a_replay_that_keeps_its_first_query_is_not_right():
    truth, queries, first, entry = np.ones((1, 1, 4, 4), np.float32), np.full((1, 1, 4, 4), 0.9, np.float32), [], {}

    def run(given):
        first.append(given)
        return first[min(len(first), 2) - 1] * 2 - 1  # the second run's, from then on

    frozen._check(SimpleNamespace(run=run), queries, truth, entry, False)
    assert entry["within"] is False and entry["flipped"] == 1
    entry = {}
    frozen._check(SimpleNamespace(run=lambda given: given * 2 - 1), queries, truth, entry, False)
    assert entry["within"] is True
