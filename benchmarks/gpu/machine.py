"""What this machine is and how fast it copies and multiplies: the ceilings that every figure is held against."""

from __future__ import annotations

import statistics
import time
from contextlib import contextmanager
from functools import partial
from importlib.metadata import PackageNotFoundError, version

from universeg_rt.errors import RunnerError
from universeg_rt.kernels.support_mean.check.machine import describe

from .arithmetic import FLOATS, torch_type

PACKAGES = ("universeg_rt", "numpy", "torch", "triton", "onnx", "onnxscript", "onnxruntime", "onnxruntime-gpu",
            "tensorrt", "tensorrt-rtx", "pycuda", "cuda-bindings", "nvidia-cudnn-cu13", "nvidia-cudnn-cu12")
REPEATS = 10


def run_machine(state: dict, entry: dict) -> None:
    """Names and versions. RunnerError where a GPU is asked for and there is none."""
    import torch

    entry["machine"] = describe()
    entry["packages"] = {name: found for name in PACKAGES if (found := _version(name))}
    entry["device"] = state["device"]
    if state["device"] == "cuda" and not torch.cuda.is_available():
        raise RunnerError(
            "PyTorch sees no GPU; run this on a machine with one, or with --device cpu, which checks this program")
    state["torch"] = torch
    if state["device"] == "cpu":
        torch.set_num_threads(state["threads"])
    torch.manual_seed(0)
    torch.backends.cudnn.benchmark = True


def run_ceilings(state: dict, entry: dict) -> None:
    """Copy bandwidth in bytes a second (read and written); FLOP a second of a square matrix product in each type."""
    torch, small = state["torch"], state["device"] == "cpu"
    count = 1 << 20 if small else 1 << 31
    source = torch.randint(0, 255, (count,), dtype=torch.uint8, device=state["device"])
    target = torch.empty_like(source)
    entry["copy_bytes_per_second"] = 2 * count / seconds(state, partial(target.copy_, source))
    entry["passed"] = bool(torch.equal(source, target))
    del source, target
    entry["matrix_flop_per_second"] = {}
    side = 256 if small else 8192
    for name in FLOATS:
        dtype = torch_type(torch, name)
        a = torch.randn(side, side, device=state["device"]).to(dtype)
        b = torch.randn(side, side, device=state["device"]).to(dtype)
        with tf32(torch, name == "tf32"):
            entry["matrix_flop_per_second"][name] = 2 * side**3 / seconds(state, partial(torch.matmul, a, b))
        del a, b
    free(state)
    copy, rates = entry["copy_bytes_per_second"], entry["matrix_flop_per_second"]
    state["copy"], state["matrix"] = copy, {**rates, "int8": rates["fp16"]}
    products = ", ".join(f"{name} {rate / 1e12:.1f}" for name, rate in rates.items())
    state["say"](f"copy {copy / 1e9:.0f} GB/s; matrix product {products} TFLOP/s")


def seconds(state: dict, function) -> float:
    """Median of REPEATS calls after two that warm up, the device waited for."""
    times = []
    for repeat in range(REPEATS + 2):
        synchronize(state)
        start = time.perf_counter()
        function()
        synchronize(state)
        if repeat > 1:
            times.append(time.perf_counter() - start)
    return statistics.median(times)


@contextmanager
def tf32(torch, on: bool):
    """Whether float32 products and convolutions of PyTorch may be rounded to TF32."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    set_tf32(torch, on)
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def set_tf32(torch, on: bool) -> None:
    torch.backends.cuda.matmul.allow_tf32 = on
    torch.backends.cudnn.allow_tf32 = on


def synchronize(state: dict) -> None:
    if state["device"] == "cuda":
        state["torch"].cuda.synchronize()


def free(state: dict) -> None:
    """Give back what PyTorch keeps, so that the others find it."""
    if state["device"] == "cuda":
        state["torch"].cuda.empty_cache()


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
