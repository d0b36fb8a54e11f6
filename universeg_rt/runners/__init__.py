"""Backends behind one contract (`base.Runner`), and the choice among them.

A backend is a module of this folder with a class that fulfils `Runner` and has a class method
`open(bundle, precision, threads)`; it imports its library there and not before. A new one is a line in `BACKENDS`.
"""

from __future__ import annotations

from importlib import import_module

from ..bundle.bundle import Bundle
from ..errors import BundleError, EngineError, InputError, RunnerError
from ..precision import PRECISIONS
from .base import Runner
from .cpu.threads import check_threads

# name -> (module, class), the fastest first: the order in which `auto` tries them.
BACKENDS = {
    "tensorrt": ("gpu.tensorrt.runner", "TensorRT"),
    "tensorrt-rtx": ("gpu.tensorrt.runner", "TensorRTRTX"),
    "onnxruntime-cuda": ("gpu.onnxruntime", "OnnxRuntimeCuda"),
    "native": ("cpu.native", "NativeRunner"),
    "onnxruntime": ("cpu.onnxruntime", "StreamedOnnxRuntime"),
    "openvino": ("cpu.openvino", "StreamedOpenVino"),
}
RUNNERS = tuple(BACKENDS)

__all__ = ["RUNNERS", "Runner", "open_runner"]


def open_runner(bundle: Bundle, runner: str = "auto", precision: str = "auto", threads: int | None = None) -> Runner:
    """Start a runner on a bundle; `auto` takes the first of RUNNERS that starts here and says why in `Runner.reason`, and
    why not those before it in `Runner.passed`.

    precision `auto` is the backend's own choice. Raises InputError for an unknown runner or precision or a bad number of
    threads, BundleError where the bundle lacks the precision, RunnerError where the runner cannot start; with `auto` only
    where none can, and then it says of each why.
    """
    if runner not in ("auto", *RUNNERS):
        raise InputError(f"runner is {runner!r}; accepted: auto, {', '.join(RUNNERS)}")
    if precision not in ("auto", *PRECISIONS):
        raise InputError(f"precision is {precision!r}; accepted: auto, {', '.join(PRECISIONS)}")
    check_threads(threads)
    if precision != "auto":
        bundle.stages(precision)  # the bundle must have it, whatever runs
    if runner != "auto":
        chosen = _backend(runner).open(bundle, precision, threads)
        chosen.reason = "; ".join(("asked for", *chosen.notes))
        return chosen
    errors: dict[str, Exception] = {}
    for name in RUNNERS:
        try:
            chosen = _backend(name).open(bundle, precision, threads)
        except (RunnerError, EngineError, BundleError) as error:
            errors[name] = error
            continue
        chosen.passed = {name: str(error) for name, error in errors.items()}
        reasons = ["the fastest that starts here"]
        if errors:
            reasons.append("not " + ", ".join(f"{name} ({_short(error)})" for name, error in errors.items()))
        chosen.reason = "; ".join((*reasons, *chosen.notes))
        return chosen
    always = errors["onnxruntime"]  # installed with the SDK: where it fails too, the bundle is at fault
    if isinstance(always, BundleError):
        raise always
    raise RunnerError("no runner starts here: " + "; ".join(f"{name}: {error}" for name, error in errors.items()))


def _short(error: Exception) -> str:
    """A few words of an error, for a line that lists several."""
    text = getattr(error, "short", None) or str(error).split(";")[0]
    return text if len(text) <= 60 else f"{text[:57]}..."


def _backend(name: str) -> type[Runner]:
    module, cls = BACKENDS[name]
    return getattr(import_module(f".{module}", __name__), cls)
