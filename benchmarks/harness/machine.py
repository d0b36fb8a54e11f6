"""What a benchmark runs on: the processor and versions, a process's peak memory, the matrix-product rate."""

from __future__ import annotations

import os
import platform
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

INSTRUCTIONS = ("avx2", "fma", "avx512f", "avx512_vnni", "avx_vnni", "amx_tile", "asimd", "sve")
PACKAGES = ("universeg_rt", "numpy", "onnxruntime", "onnx", "openvino", "torch")


def environment(threads: int) -> dict:
    """Processor, instruction sets, cores, threads used, system, and versions of what is installed."""
    facts = dict(line.split(":", 1) for line in _read("/proc/cpuinfo").splitlines() if ":" in line)
    facts = {key.strip(): value.strip() for key, value in facts.items()}
    flags = (facts.get("flags") or facts.get("Features") or "").split()
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            pass
    return {
        "processor": facts.get("model name") or platform.processor() or platform.machine(),
        "instructions": [f for f in INSTRUCTIONS if f in flags], "cores": os.cpu_count(), "threads": threads,
        "system": f"{platform.system()} {platform.machine()}", "python": platform.python_version(), "versions": versions
    }


def peak_bytes() -> int | None:
    """Largest resident memory of this process since its program started; None where the system does not say.

    The accounting of getrusage would include what the process was forked from.
    """
    for line in _read("/proc/self/status").splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024
    return None


def matrix_rate(threads: int, side: int = 2048, repeats: int = 3) -> float:
    """FLOP/s of a float32 matrix product, the fastest of a few: PyTorch's, or NumPy's where PyTorch is missing."""
    try:
        import torch
    except ImportError:
        import numpy

        a, b = (numpy.random.default_rng(i).random((side, side), numpy.float32) for i in range(2))
    else:
        torch.set_num_threads(threads)
        a, b = torch.rand(side, side), torch.rand(side, side)
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        a @ b
        best = min(best, time.perf_counter() - start)
    return 2 * side**3 / best


def settle(quiet: float = 0.02, limit: float = 1.0) -> None:
    """Return when this process's threads have stopped spinning, or after `limit` seconds."""
    end = time.perf_counter() + limit
    while time.perf_counter() < end:
        before = time.process_time()
        time.sleep(quiet)
        if time.process_time() - before < quiet / 4:
            return


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""
