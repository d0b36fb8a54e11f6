"""Backends behind one contract (`base.Runner`), and the choice among them."""

from __future__ import annotations

from ..bundle import Bundle
from ..errors import InputError
from .base import Runner
from .streamed import StreamedOnnxRuntime

RUNNERS = ("onnxruntime",)
PRECISIONS = ("fp32",)

__all__ = ["RUNNERS", "Runner", "open_runner"]


def open_runner(bundle: Bundle, runner: str = "auto", precision: str = "auto", threads: int | None = None) -> Runner:
    """Start a runner on a bundle; `auto` takes the best that runs here and says why in `Runner.reason`.

    Raises InputError for an unknown runner or precision, BundleError where the bundle lacks the precision, RunnerError
    where the runner cannot start.
    """
    if runner not in ("auto", *RUNNERS):
        raise InputError(f"runner is {runner!r}; accepted: auto, {', '.join(RUNNERS)}")
    if precision not in ("auto", *PRECISIONS):
        raise InputError(f"precision is {precision!r}; accepted: auto, {', '.join(PRECISIONS)}")
    chosen = StreamedOnnxRuntime(bundle.stages("fp32" if precision == "auto" else precision), threads)
    chosen.reason = "asked for" if runner != "auto" else "the embedded default: ONNX Runtime on the CPU"
    return chosen
