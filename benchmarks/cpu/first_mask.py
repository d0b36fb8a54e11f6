"""From the start of a process to its first mask: import, open, prepare, predict. universeg-bench starts it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from universeg_rt import RunnerError, Segmenter
from universeg_rt.cli.common import child_arguments
from universeg_rt.storage.cache import VARIABLE

from ..harness.case import Case


def seconds_to_first_mask(bundle: Path, runner: str, precision: str, case: Case, cache: Path) -> float:
    """Start a process as a user does and wait for its mask; raises RunnerError with the last line of what it said."""
    command = [
        sys.executable, "-m", __name__,
        str(bundle), runner, precision,
        str(case.threads),
        str(case.support_size),
        str(case.size)
    ]
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, VARIABLE: str(cache)})
    seconds = time.perf_counter() - start
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["nothing"])[-1]
        raise RunnerError(
            f"a process with {runner} {precision} ended with status {done.returncode} before its first mask: {said}")
    return seconds


def _main(bundle: str, runner: str, precision: str, threads: str, support_size: str, size: str) -> None:
    case = Case(int(support_size), 1, 1, int(size), int(threads))
    segmenter = Segmenter.open(bundle, runner=runner, precision=precision, threads=case.threads)
    segmenter.prepare(case.support).predict(case.images[0])


if __name__ == "__main__":
    _main(*child_arguments("universeg_rt.benchmarks.cpu.first_mask", "universeg-bench", "BUNDLE", "RUNNER", "PRECISION",
                           "THREADS", "S", "SIZE"))
    sys.stdout.flush()
    os._exit(0)  # the mask is there: taking the process down is not part of the figure
