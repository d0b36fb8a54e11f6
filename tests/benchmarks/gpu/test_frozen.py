"""Frozen tasks side by side: what their time limit does."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("torch", reason="the benchmark needs torch")
pytest.importorskip("onnx", reason="emitting the models needs onnx")

from universeg_rt.benchmarks.gpu import frozen

from .steps.conftest import upload  # noqa: F401  fixture

pytestmark = pytest.mark.torch


def test_a_runner_whose_turn_comes_too_late_is_skipped_and_said(upload, tmp_path):  # noqa: F811
    out = tmp_path / "frozen.json"
    given = [str(upload / "task.onnx"), "--out", str(out), "--work", str(tmp_path), "--device", "cpu"]
    assert frozen.main([*given, "--time-limit", "0"]) == 1
    entry = json.loads(out.read_text())["tasks"]["task.onnx"]
    assert entry["right"] == {} and entry["rows"] == []
    assert {entry["skipped"][name] for name in ("onnxruntime", "torch nchw")} == {"the time limit was reached"}
