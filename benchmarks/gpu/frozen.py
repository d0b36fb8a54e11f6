"""Static frozen tasks on every runner that starts: right first, then timed side by side, image on the host to logits.

    python -m universeg_rt.benchmarks.gpu.frozen task.onnx task_fp16.onnx --out frozen.json

A file is run by ONNX Runtime on the CPU for the truth, by the SDK's runners where it is a frozen task of ours, by
PyTorch, and by engines that are built here where TensorRT or TensorRT-RTX is installed.
"""

from __future__ import annotations

import argparse
import importlib.util
import shutil
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from universeg_rt.bundle.engine import BUILDERS
from universeg_rt.bundle.onnx_bind import query_size
from universeg_rt.bundle.onnx_file import metadata
from universeg_rt.cli.common import importing, run_command
from universeg_rt.errors import UniverSegError
from universeg_rt.export.engine.process import MODULES
from universeg_rt.frozen import engine_file
from universeg_rt.frozen.base import FrozenRunner
from universeg_rt.frozen.gpu import CudaFrozen
from universeg_rt.frozen.record import KEY, STATIC
from universeg_rt.frozen.runners import RUNNERS, OnnxRuntime
from universeg_rt.kernels.support_mean.check.steps import one_line
from universeg_rt.precision import GPU_AUTO
from universeg_rt.runners.options import Options
from universeg_rt.spec import NetworkSpec
from universeg_rt.storage.atomic import make_folder, write_json

from . import deadline as times
from .timing import figures, interleave

with importing(__name__, "universeg_rt.benchmarks.gpu.frozen"):
    from .torch_frozen import FORMATS, TorchFrozen

BATCHES, TOY = (1, 16), (1, 2)  # on a GPU; in a rehearsal on a CPU
FLIPPED = {"fp32": 1e-3, "fp16": 5e-3}  # share of pixels whose mask may differ, as the export's gate has it
TIMED = ("queries (B,1,H,W) float32 on the host to logits on the host: both copies, the network up to its sigmoid, "
         "which nobody computes, and what the runner adds")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="frozen", description=__doc__.split("\n")[0])
    parser.add_argument("tasks", type=Path, nargs="*", help="frozen files, or static networks bound to their constants")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("build/gpu_frozen"), help="folder for engines (%(default)s)")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu: the CPU's runners alone")
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--time-limit", type=float, default=100, help="seconds after which nothing is begun")
    return run_command(_run, parser, arguments)


def _run(options: argparse.Namespace) -> int:
    deadline = time.monotonic() + options.time_limit
    values: dict = {"device": options.device, "timed": TIMED, "tasks": {}, "passed": None}
    write_json(options.out, values)
    for number, task in enumerate(options.tasks):
        entry = values["tasks"][task.name] = {"skipped": {}, "right": {}, "rows": []}
        now = time.monotonic()  # each of those left gets as much of the time that is left
        share = min(deadline, now + max(0.0, deadline - now) / (len(options.tasks) - number))
        _measure(task, entry, options, share, lambda: write_json(options.out, values))
    right = [ok["within"] for entry in values["tasks"].values() for ok in entry["right"].values()]
    values["passed"] = bool(right) and all(right) and time.monotonic() < deadline
    write_json(options.out, values)
    return 0 if values["passed"] else 1


def _measure(task: Path, entry: dict, options: argparse.Namespace, deadline: float, write) -> None:
    model = task.read_bytes()
    said = metadata(model)
    spec, precision = NetworkSpec.from_json(said["universeg.spec"]), said.get("universeg.precision", "fp32")
    found = _start(task, model, spec, KEY in said, entry, options, deadline)
    batches = TOY if options.device == "cpu" else BATCHES
    queries = np.random.default_rng(0).random((max(batches), 1, *query_size(model)), np.float32)
    reference, checked = OnnxRuntime(model, STATIC, spec, Options()), times.half(deadline)
    right: dict[int, dict] = {batch: {} for batch in batches}  # to be timed: what was checked in time
    for batch in batches:
        given = queries[:batch]
        truth = reference.run(given) if time.monotonic() <= checked else None
        for name, runner in list(found.items()):
            try:
                if truth is None or time.monotonic() > checked:
                    raise times.OutOfTime("the time limit was reached")
                _check(runner, given, truth, entry["right"].setdefault(name, {}), "fp16" in (precision, *name.split()))
            except Exception as error:  # each library has errors of its own
                entry["skipped"].setdefault(name, f"{batch} queries: {one_line(error)}")
                if not entry["right"].get(name):
                    entry["right"].pop(name, None)
                del found[name]
                continue
            right[batch][name] = runner
            write()
    for batch in batches:
        calls = {name: partial(runner.run, queries[:batch]) for name, runner in right[batch].items()}
        for call in calls.values():  # the first runs of a shape find its kernels and capture its graph
            for _ in range(3):
                if time.monotonic() < deadline:
                    call()
        for name, seconds in interleave(calls, 0.4, options.rounds, deadline).items():
            entry["rows"].append({"runner": name, "batch": batch, **figures(seconds)})
        write()


def _check(runner, queries: np.ndarray, truth: np.ndarray, entry: dict, half: bool) -> None:
    """The first run, and one of those after it, which replay its graph: on other queries in between."""
    flipped, error = entry.get("flipped", 0.0), entry.get("logit_error", 0.0)
    for turn in range(4):
        logits = runner.run(1 - queries if turn in (1, 2) else queries)
        if turn in (0, 3):
            flipped = max(flipped, float(((logits > 0) != (truth > 0)).mean()))
            error = max(error, float(np.nan_to_num(np.abs(logits - truth), nan=np.inf).max()))
    entry.update(logit_error=error, flipped=flipped,
                 within=bool(flipped <= FLIPPED["fp16" if half else "fp32"] and np.isfinite(error)))


def _start(task: Path, model: bytes, spec: NetworkSpec, ours: bool, entry: dict, options: argparse.Namespace,
           deadline: float) -> dict[str, FrozenRunner | TorchFrozen]:
    found: dict[str, FrozenRunner | TorchFrozen] = {}
    engines: tuple[Path, ...] = ()
    if options.device == "cuda" and ours:  # what is timed next wants half of the time
        engines = _build(task, entry, options, times.half(deadline))

    def start(label: str, kind: Callable, *given: object) -> None:
        try:
            found[label] = kind(model, *given)
        except Exception as error:  # as above
            entry["skipped"][label] = one_line(error)

    for name, kind in RUNNERS.items():
        if not ours and kind not in (CudaFrozen, OnnxRuntime):
            continue
        for engine in [e for e in engines if f".{name}." in e.name] or [None]:
            label = name if engine is None else f"{name} {engine.suffixes[-2][1:]}"
            start(label, kind, STATIC, spec, Options(engines=() if engine is None else (engine,)))
    for layout in FORMATS:
        start(f"torch {layout}", TorchFrozen, options.device, layout)
    return found


def _build(task: Path, entry: dict, options: argparse.Namespace, deadline: float) -> tuple[Path, ...]:
    """Engines of the task in both precisions, beside a copy of it; those of an earlier run stay."""
    from universeg_rt.bundle.engine import Profile
    from universeg_rt.export.engine.build import EngineOptions
    from universeg_rt.export.engine.frozen import build_frozen

    copy = make_folder(options.work) / task.name
    shutil.copyfile(task, copy)
    for precision in GPU_AUTO:
        for builder in BUILDERS:
            if importlib.util.find_spec(MODULES[builder]) is None or time.monotonic() > deadline:
                continue
            if engine_file.place(copy, builder, precision).exists():
                continue
            wanted = EngineOptions(builder, (precision,), profile=Profile((1, 1, max(BATCHES))))
            try:
                build_frozen(copy, wanted, None, None, partial(times.build_until, deadline), lambda line: None)
            except (UniverSegError, OSError) as error:
                entry["skipped"][f"{builder} {precision}"] = one_line(error)
    return engine_file.beside(copy)


if __name__ == "__main__":
    sys.exit(main())
