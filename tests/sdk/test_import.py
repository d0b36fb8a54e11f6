"""Importing the SDK is cheap and starts nothing."""

from __future__ import annotations

import subprocess
import sys
import time

HEAVY = ("torch", "onnx", "onnxruntime", "tensorrt", "pycuda", "cuda", "openvino", "PIL",
         "universeg_rt.export", "universeg_rt.training", "universeg_rt.benchmarks", "universeg_rt.kernels")


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout


def test_loads_neither_torch_nor_a_gpu_library_nor_the_other_folders():
    loaded = run(f"import sys, universeg_rt; print([m for m in {HEAVY!r} if m in sys.modules])")
    assert loaded.strip() == "[]"


def test_takes_well_under_half_a_second():
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        run("import universeg_rt")
        with_import = time.perf_counter() - start
        start = time.perf_counter()
        run("pass")
        seconds.append(with_import - (time.perf_counter() - start))
    assert min(seconds) < 0.4


def test_the_public_names_exist():
    import universeg_rt

    assert all(hasattr(universeg_rt, name) for name in universeg_rt.__all__)
