"""Which contenders of the GPU benchmark start."""

from __future__ import annotations

import pytest

pytest.importorskip("torch", reason="the benchmark needs torch")
pytest.importorskip("onnx", reason="emitting the models needs onnx")

from universeg_rt.benchmarks.gpu import contenders

from .state import make_state

pytestmark = pytest.mark.torch


def test_compiling_is_for_those_who_name_it(tmp_path):
    for options in ({"contenders": ["torch.compile"]}, {"compile": True}):
        state, entry = make_state(tmp_path), {}
        for key, value in options.items():
            setattr(state["options"], key, value)
        contenders.run_contenders(state, entry)
        assert {"torch.compile tf32", "torch.compile fp16"} <= set(entry["started"])


def test_what_is_left_out_does_not_start_and_says_so(tmp_path):
    state, entry = make_state(tmp_path), {}
    state["options"].contenders, state["options"].leave_out = ["folded torch fp32", "reference fp32"], ["kernels"]
    contenders.run_contenders(state, entry)
    assert entry["started"] == ["reference fp32", "folded torch fp32"]
    assert entry["skipped"]["folded torch fp32 kernels"] == "left out by --leave-out"
    assert entry["skipped"]["reference fp16"] == "left out by --contenders"
