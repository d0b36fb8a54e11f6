"""A simulation of the native runner on more threads than this machine has: its loops' items, timed one by one.

    python -m universeg_rt.benchmarks.cpu.scaling [--support-size 64] [--batch 16] [--threads 2 4 8 12 16] [--repeats 5]

Opened with N threads, the runner shares each loop out for N, and one thread does the items, the fastest of all repeats
counts. The simulation gives the next item to the thread that is free first, and waits for the last at each loop's end.
Waking threads, work outside loops, and memory and caches that threads share are left out, so a real machine gains less.
`by rows` shares out the items of one thread, which are whole rows: what there would be without output channels.
"""

from __future__ import annotations

import argparse
import heapq
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from universeg_rt import FrozenTask, Segmenter
from universeg_rt.benchmarks.cpu.frozen import random_support
from universeg_rt.cli.common import run_command
from universeg_rt.runners.options import Options

Loop = tuple[int, Sequence[float]]  # the threads that it takes in, and its items' seconds


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(prog="python -m universeg_rt.benchmarks.cpu.scaling", description=__doc__,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--support-size", type=int, default=64, help="entries (64)")
    p.add_argument("--batch", type=int, default=16, help="queries of the batched static task (16)")
    p.add_argument("--threads", type=int, nargs="+", default=[2, 4, 8, 12, 16], help="to simulate (2 4 8 12 16)")
    p.add_argument("--repeats", type=int, default=5, help="of each item (5)")
    p.add_argument("--bundle", type=Path, help="bundle folder (the shipped one)")
    return p


def main(arguments: list[str] | None = None) -> int:
    return run_command(_main, parser(), arguments)


def _main(args: argparse.Namespace) -> int:
    counts = [1, *args.threads]
    opened = [Segmenter.open(args.bundle, runner="native", threads=count) for count in counts]
    support = random_support(args.support_size, opened[0].grid)
    queries = np.random.default_rng(1).random((args.batch, 1, *opened[0].grid), np.float32)
    prepared = opened[0].prepare(support)
    model = prepared.freeze(kind="static").model
    frozen = [FrozenTask.of_bytes(model, "native", Options(count)).runner for count in counts]
    sides: dict[str, list[Callable[[], list[Loop]]]] = {
        f"exact, S = {args.support_size}":
            [lambda s=s: s.runner.loops(prepared.prepared, queries[:1]) for s in opened],
        "static": [lambda f=f: f.loops(queries[:1]) for f in frozen],
        f"static, batch of {args.batch}": [lambda f=f: f.loops(queries) for f in frozen],
    }
    print("Simulated from the times of every loop's items on one thread; not measured on so many threads.")
    for name, runs in sides.items():
        found = fastest(runs, args.repeats)
        one = sum(sum(seconds) for _, seconds in found[0])
        print(f"{name}: {1e3 * one:.1f} ms on one thread, {len(found[0])} loops")
        for count, loops in zip(counts[1:], found[1:]):
            by_rows = one / sum(simulated(seconds, count) for _, seconds in found[0])
            print(f"{count:4d} threads: {one / sum(simulated(seconds, count) for _, seconds in loops):5.1f} times as "
                  f"fast, {by_rows:.1f} by rows")
    return 0


def fastest(runs: Sequence[Callable[[], list[Loop]]], repeats: int) -> list[list[Loop]]:
    """Each run's loops, and of each item the least seconds of all repeats; the runs take turns."""
    found: list[list[Loop]] = [run() for run in runs]
    for _ in range(repeats):
        for i, run in enumerate(runs):
            found[i] = [(threads, np.minimum(a, b)) for (threads, a), (_, b) in zip(found[i], run(), strict=True)]
    return found


def simulated(seconds: Sequence[float], threads: int) -> float:
    """Until the last item of a loop is done, where each goes to the thread that is free first."""
    free = [0.0] * threads
    for each in seconds:
        heapq.heapreplace(free, free[0] + each)
    return max(free)


if __name__ == "__main__":
    raise SystemExit(main())
