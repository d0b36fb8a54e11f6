"""The state of a run of the GPU benchmark at toy sizes on the CPU."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch", reason="the benchmark needs torch")
pytest.importorskip("onnx", reason="emitting the models needs onnx")

from universeg_rt.benchmarks.gpu import artefacts

from ...conftest import SMALL_SPEC


def make_state(tmp_path, **more) -> dict:
    options = SimpleNamespace(checkpoint=None, spec=None, steps=[], contenders=None, leave_out=None,
                              compile_backend="eager", plugin=None, no_int8=True, kernels_build=None, compile=False,
                              cpu_reference=False, references=None)
    state = {
        "options": options, "device": "cpu", "grid": (32, 32), "support_sizes": [2], "members": [2], "rounds": 2,
        "budget": 0.0, "threads": 1, "work": tmp_path, "say": lambda line: None, "write": lambda: None,
        "deadline": time.monotonic() + 600, "torch": torch, "small_spec": SMALL_SPEC, **more
    }
    artefacts.run_network(state, {})
    state["copy"], state["matrix"] = 1e9, dict.fromkeys(("fp32", "tf32", "fp16", "int8"), 1e9)
    return state
