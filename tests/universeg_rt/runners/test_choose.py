"""`auto` among all runners: what it takes on a machine without a GPU, how fast, and what it says."""

from __future__ import annotations

import subprocess
import sys

import pytest

from universeg_rt.errors import BundleError, EngineError, RunnerError
from universeg_rt.runners import choose, open_runner


class Fails:
    def __init__(self, error):
        self.error = error

    def open(self, *_):
        raise self.error


def test_without_a_gpu_the_cpu_runs_and_the_reason_is_one_short_line(small_bundle):
    code = f"""
import sys, time
from universeg_rt import Segmenter
segmenter = Segmenter.open({str(small_bundle)!r})
print(segmenter.runner.name)
print(segmenter.runner.reason)
for name, why in segmenter.runner.passed.items():
    print(name, why)
print([m for m in ("torch", "tensorrt", "tensorrt_rtx", "pycuda", "cuda", "onnx") if m in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    name, reason, *passed, loaded = done.stdout.splitlines()
    if name not in ("native", "onnxruntime"):
        pytest.skip(f"this machine runs {name}")
    assert reason.startswith(
        "the fastest that starts here; not tensorrt (not installed), tensorrt-rtx (not installed), "
        "onnxruntime-cuda (")
    assert len(reason) < 260 and loaded == "[]"
    assert any(line.startswith("onnxruntime-cuda") and "pip install onnxruntime-gpu" in line for line in passed)


def test_reasons_are_kept_whole_and_told_in_short(small_bundle, monkeypatch):
    from universeg_rt.bundle.bundle import Bundle

    backends = {
        "tensorrt": Fails(
            EngineError("engines/a.plan does not fit here; gpu: built for 'A', here is 'B': build it here")),
        "tensorrt-rtx": Fails(RunnerError("a very long reason " * 20)),
        "onnxruntime-cuda": Fails(RunnerError("whatever", short="no NVIDIA driver")),
    }
    real = choose.backend
    monkeypatch.setattr(choose, "backend", lambda name: backends.get(name) or real(name))
    runner = open_runner(Bundle.open(small_bundle))
    assert runner.name in ("native", "onnxruntime") and "here is 'B'" in runner.passed["tensorrt"]
    assert "not tensorrt (engines/a.plan does not fit here), tensorrt-rtx (a very long" in runner.reason
    assert "onnxruntime-cuda (no NVIDIA driver)" in runner.reason and "\n" not in runner.reason


def test_where_nothing_starts_every_reason_is_given(small_bundle, monkeypatch):
    from universeg_rt.bundle.bundle import Bundle

    errors = {name: RunnerError(f"{name} is broken") for name in choose.RUNNERS}
    monkeypatch.setattr(choose, "backend", lambda name: Fails(errors[name]))
    with pytest.raises(
            RunnerError,
            match="no runner starts here: tensorrt: tensorrt is broken; .*onnxruntime: onnxruntime is broken"):
        open_runner(Bundle.open(small_bundle))
    errors["onnxruntime"] = BundleError("the bundle holds no int8 models")
    with pytest.raises(BundleError, match="^the bundle holds no int8 models"):
        open_runner(Bundle.open(small_bundle))
