"""Frozen tasks on a CPU beside the exact task and the reference network, and what freezing itself costs.

    python -m universeg_rt.benchmarks.cpu.frozen [--support-size 64] [--batch 16] [--threads 2] [--repeats 7] [--json
    FILE]

All sides take turns on one random task of the shipped bundle's size: an image on the grid to logits. Ratios are those
of each turn, median (smallest to largest). The reference is eager PyTorch, where it is installed.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from universeg_rt import Segmenter, SupportSet
from universeg_rt.benchmarks.harness.machine import environment
from universeg_rt.cli.common import run_command
from universeg_rt.errors import InputError
from universeg_rt.frozen_task import FrozenTask
from universeg_rt.storage.atomic import write_json
from universeg_rt.task import Task

RUNNERS = ("native", "onnxruntime", "openvino")


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(prog="python -m universeg_rt.benchmarks.cpu.frozen", description=__doc__,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default, what in (("support-size", 64, "entries"), ("batch", 16, "queries of the batched sides"),
                                ("threads", 2, "of every side"),
                                ("repeats", 7, "timed turns, after one that warms up")):
        p.add_argument(f"--{name}", type=int, default=default, help=f"{what} ({default})")
    p.add_argument("--bundle", type=Path, help="bundle folder (the shipped one)")
    p.add_argument("--json", type=Path, metavar="FILE", help="write the figures here too")
    return p


def main(arguments: list[str] | None = None) -> int:
    return run_command(_main, parser(), arguments)


def _main(args: argparse.Namespace) -> int:
    if min(args.support_size, args.batch, args.threads, args.repeats) < 1:
        raise InputError("sizes, threads and repeats are at least 1")
    if args.support_size < 3:
        raise InputError("a task of fewer than 3 entries cannot be priced; give a larger --support-size")
    segmenter = Segmenter.open(args.bundle, runner="native", threads=args.threads)
    task = segmenter.prepare(random_support(args.support_size, segmenter.grid))
    queries = np.random.default_rng(1).random((args.batch, 1, *segmenter.grid), np.float32)
    with tempfile.TemporaryDirectory() as folder:
        sides, sizes = _sides(task, queries, args.threads, Path(folder))
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    order = list(sides)
    for turn in range(args.repeats + 1):
        for name in order[turn % len(order) :] + order[: turn % len(order)]:
            images, step = sides[name]
            start = time.perf_counter()
            step()
            if turn:
                seconds[name].append((time.perf_counter() - start) / images)
    print(f"S = {args.support_size}, K = 1, {segmenter.grid[0]}x{segmenter.grid[1]}, {args.threads} threads")
    for name, times in seconds.items():
        line = f"{name:28s} {1e3 * statistics.median(times):9.2f} ms an image"
        for other in ("exact", "reference"):
            if other in seconds and name != other:
                ratios = [a / b for a, b in zip(seconds[other], times, strict=True)]
                line += f"  {statistics.median(ratios):7.2f} ({min(ratios):.2f} to {max(ratios):.2f}) times {other}"
        print(line)
    print(", ".join(f"{name} {size / 1e6:.1f} MB" for name, size in sizes.items()))
    if args.json:
        case = {key: value for key, value in vars(args).items() if key not in ("json", "bundle")}
        found = {"environment": environment(args.threads), "case": case, "seconds": seconds, "bytes": sizes}
        write_json(args.json, found)
    return 0


def random_support(entries: int, grid: tuple[int, int]) -> SupportSet:
    """Random images with labels of large squares, as masks are: constant over most windows."""
    random = np.random.default_rng(0)
    coarse = random.random((entries, 8, 8)) > 0.7
    labels = coarse.repeat(-(-grid[0] // 8), 1).repeat(-(-grid[1] // 8), 2)[:, : grid[0], : grid[1]]
    return SupportSet.from_arrays(random.random((entries, *grid), np.float32), labels)


def _sides(task: Task, queries: np.ndarray, threads: int,
           folder: Path) -> tuple[dict[str, tuple[int, Callable[[], object]]], dict[str, int]]:
    """For each side how many images a call takes and the call; sizes of the files in bytes."""
    segmenter, one, count = task.segmenter, queries[:1], len(queries)
    sides: dict[str, tuple[int, Callable[[], object]]] = {
        "exact": (1, lambda: segmenter.run(task.prepared, one)),
        f"exact, batch {count}": (count, lambda: segmenter.run(task.prepared, queries)),
        "freezing": (1, lambda: task.freeze(kind="static")),
    }
    sizes = {}
    for half in (True, False):
        file = folder / f"{half}.onnx"
        task.freeze(kind="static", half=half).save(file)
        sizes["half constants" if half else "float constants"] = os.path.getsize(file)
    task.freeze(kind="exact").save(folder / "exact.onnx")
    for side, file, names in (("exact file", "exact.onnx", RUNNERS[:2]), ("static", "True.onnx", RUNNERS)):
        for name in names:
            try:
                frozen = FrozenTask.open(folder / file, runner=name, threads=threads)
            except Exception as error:
                print(f"{side} {name}: left out ({error})")
                continue
            sides[f"{side} {name}"] = (1, lambda frozen=frozen: frozen.runner.run(one))
            if side == "static":
                sides[f"static {name}, batch {count}"] = (count, lambda frozen=frozen: frozen.runner.run(queries))
    reference = _reference(task, one, threads)
    if reference is not None:
        sides["reference"] = (1, reference)
    return sides, sizes


def _reference(task: Task, query: np.ndarray, threads: int) -> Callable[[], object] | None:
    """Eager PyTorch, as published; None where torch is not installed."""
    try:
        import torch

        from universeg_rt.training.network.reference import UniverSeg
    except ImportError:
        return None
    torch.set_num_threads(threads)
    bundle = task.segmenter.bundle
    network = UniverSeg(bundle.manifest.spec)
    network.load_state_dict({key: torch.from_numpy(value.copy()) for key, value in bundle.weights().items()})
    entries = torch.from_numpy(task.support.on_grid(task.segmenter.grid, task.aspect, task.normalise))[None]
    asked = torch.from_numpy(query)

    def step() -> object:
        with torch.inference_mode():
            return network(asked, entries[:, :, :1], entries[:, :, 1:])

    return step


if __name__ == "__main__":
    raise SystemExit(main())
