"""Importing the SDK is cheap and starts nothing."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("torch", "onnx", "onnxruntime", "tensorrt", "pycuda", "cuda", "openvino", "PIL",
         "universeg_rt.export", "universeg_rt.training", "universeg_rt.benchmarks", "universeg_rt.kernels")


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout


def test_loads_neither_torch_nor_a_gpu_library_nor_the_other_folders():
    loaded = run(f"import sys, universeg_rt; print([m for m in {HEAVY!r} if m in sys.modules])")
    assert loaded.strip() == "[]"


def test_takes_well_under_half_a_second():
    """Of the processor, so that whatever else the machine does changes nothing."""
    resource = pytest.importorskip("resource", reason="this system does not say what a child process used")

    def used(code: str) -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        run(code)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    assert min(used("import universeg_rt") - used("pass") for _ in range(5)) < 0.4


def test_the_public_names_exist():
    import universeg_rt

    assert all(hasattr(universeg_rt, name) for name in universeg_rt.__all__)
