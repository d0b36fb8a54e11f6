"""The choice among the backends: the first that starts, and for each other the reason why not."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from importlib import import_module

from ..bundle.bundle import Bundle
from ..errors import BundleError, EngineError, InputError, RunnerError
from ..precision import PRECISIONS
from .base import Runner
from .options import Options

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

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunnerState:
    """Whether a runner starts on this machine; reason: why not, with the cure, empty where it starts. device: where it
    starts on a GPU, which one, and by what its memory is managed, where the runner says so."""

    name: str
    starts: bool
    reason: str = ""
    device: str = ""

    def __str__(self) -> str:
        if not self.starts:
            return f"{self.name}: {self.reason}"
        return f"{self.name}: starts here" + (f" on {self.device}" if self.device else "")


def available_runners(options: Options | None = None) -> list[RunnerState]:
    """Of every runner whether it starts here, the fastest first. Opens no bundle, which may still lack what a runner
    needs: a precision, or an engine for this GPU. Imports the runtimes that are installed."""
    options = Options() if options is None else options
    out = []
    for name in RUNNERS:
        try:
            out.append(RunnerState(name, True, device=backend(name).check_here(options) or ""))
        except (RunnerError, InputError) as error:
            out.append(RunnerState(name, False, str(error)))
    return out


def open_runner(
    bundle: Bundle,
    runner: str = "auto",
    precision: str = "auto",
    threads: int | None = None,
    *,
    options: Options | None = None,
) -> Runner:
    """Start a runner on a bundle; `auto` takes the first of RUNNERS that starts here and says why in `Runner.reason`,
    and why not those before it in `Runner.passed`.

    precision `auto` is the backend's own choice. threads: short for Options(threads=...), not together with options.
    Raises InputError for an unknown runner or precision or a bad option, BundleError where the bundle lacks the
    precision, RunnerError where the runner cannot start; with `auto` only where none can, and then it says of each
    why.
    """
    if runner not in ("auto", *RUNNERS):
        raise InputError(f"runner is {runner!r}; accepted: auto, {', '.join(RUNNERS)}")
    if precision not in ("auto", *PRECISIONS):
        raise InputError(f"precision is {precision!r}; accepted: auto, {', '.join(PRECISIONS)}")
    if options is not None and threads is not None:
        raise InputError("threads and options are both given; give Options(threads=...)")
    options = Options(threads) if options is None else options
    if precision != "auto":
        bundle.stages(precision)  # the bundle must have it, whatever runs
    if runner != "auto":
        return _chosen(backend(runner).open(bundle, precision, options), ["asked for"])
    errors: dict[str, Exception] = {}
    for name in RUNNERS:
        try:
            started = backend(name).open(bundle, precision, options)
        except (RunnerError, EngineError, BundleError) as error:
            log.info("the runner %s does not start: %s", name, error)
            errors[name] = error
            continue
        started.passed = {name: str(error) for name, error in errors.items()}
        reasons = ["the fastest that starts here"]
        if errors:
            reasons.append("not " + ", ".join(f"{name} ({_short(error)})" for name, error in errors.items()))
        return _chosen(started, reasons)
    always = errors["onnxruntime"]  # installed with the SDK: where it fails too, the bundle is at fault
    if isinstance(always, BundleError):
        raise always
    raise RunnerError("no runner starts here: " + "; ".join(f"{name}: {error}" for name, error in errors.items()))


def _chosen(runner: Runner, reasons: list[str]) -> Runner:
    runner.reason = "; ".join((*reasons, *runner.notes))
    log.info("the runner %s (%s, %s): %s", runner.name, runner.precision, runner.place, runner.reason)
    return runner


def _short(error: Exception) -> str:
    """A few words of an error, for a line that lists several."""
    text = getattr(error, "short", None) or str(error).split(";")[0]
    return text if len(text) <= 60 else f"{text[:57]}..."


def backend(name: str) -> type[Runner]:
    """The class of a runner; imports its module, and not the library that it runs on."""
    module, cls = BACKENDS[name]
    found: type[Runner] = getattr(import_module(f".{module}", __package__), cls)
    return found
