"""What static tasks lose by the ways in which their constants are made (universeg_rt/proxies.py): with and without the
entries that run once more, turned, and with and without smoothing.

    python -m universeg_rt.benchmarks.cpu.proxies training/data_sets/train/*.yaml --data-root DATA --split test

Each task is frozen from supports of --support-size entries in each of the four ways, and these and the exact task
answer up to --queries images of a split. The weights may have seen the dev split of a data set of the group train, not
its test split. The table says what each way loses in Dice, the mean over supports, and what it gains over the first on
the same supports, with 95 % intervals over tasks; the largest loss, and how many lose more than four points.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from unittest.mock import patch

import numpy as np

from universeg_rt import Segmenter, proxies
from universeg_rt.benchmarks.cpu.quality import (
    FAR,
    Row,
    add_study_options,
    made_with,
    mean_text,
    rows_of_tasks,
    supports_to_freeze,
)
from universeg_rt.cli.common import importing, run_command
from universeg_rt.errors import InputError
from universeg_rt.imaging.metrics import dice
from universeg_rt.predictor import Predictor

PROGRAM = "universeg_rt.benchmarks.cpu.proxies"
WAYS = {"neither": {"LARGE": 0, "SMOOTH": 0}, "turned": {"LARGE": sys.maxsize, "SMOOTH": 0}, "smoothed": {"LARGE": 0},
        "both": {"LARGE": sys.maxsize}}  # what each changes of the module
EXACT = "exact"

with importing(__name__, PROGRAM):
    from universeg_rt.training.evaluation.figures import seeded
    from universeg_rt.training.evaluation.protocol import QUERY_SPLITS
    from universeg_rt.training.tasks.tasks import Task


def rows_of(segmenter: Segmenter, task: Task, args: argparse.Namespace) -> Iterator[Row]:
    """The mean Dice on queries, exact and by each of WAYS, for each support that can be frozen."""
    for draw, support in supports_to_freeze(segmenter, task, args.support_size, args.draws, args.seed):
        asked = task.split(args.split)
        asked = asked.select(seeded(task.name, args.seed, "queries").permutation(len(asked))[: args.queries])
        with segmenter.prepare(support) as exact:
            row: Row = {"task": task.name, "draw": draw, EXACT: _score(exact, asked)}
            for name, changed in WAYS.items():
                with patch.multiple(proxies, **changed), exact.freeze(kind="static") as static:
                    row[name] = _score(static, asked)
        yield row


def table(rows: list[Row]) -> str:
    """Markdown: a row a way."""
    exact, tasks = np.array([float(row[EXACT]) for row in rows]), [str(row["task"]) for row in rows]
    found = {name: np.array([float(row[name]) for row in rows]) for name in WAYS}
    lines = ["| the constants | lost | gained | at most | more than four points |",
             "| --- | ---: | ---: | ---: | ---: |"]
    for name, scores in found.items():
        lost, first = exact - scores, next(iter(found.values()))
        gained = "" if scores is first else mean_text(list(scores - first), tasks, digits=4, sign="+")
        lines.append(f"| {name} | {mean_text(list(lost), tasks, digits=4)} | {gained} | {lost.max():.3f} | "
                     f"{(lost > FAR).sum()} |")
    return "\n".join(lines)


def _score(frozen: Predictor, asked: Task) -> float:
    """Mean Dice on its images."""
    return float(np.mean([dice(frozen.predict(image).mask, label > 0)
                          for image, label in zip(asked.images, asked.labels)]))


def _main(args: argparse.Namespace) -> int:
    segmenter = Segmenter.open(args.bundle, threads=args.threads)
    rows = rows_of_tasks(args, lambda task: rows_of(segmenter, task, args))
    if not rows:
        raise InputError("no task has a support that can be frozen: three entries, and three subjects in all")
    print(f"{len(rows)} supports of up to {args.support_size} entries, {len({row['task'] for row in rows})} tasks, "
          f"queries of {args.split}, {made_with(segmenter)}\n\n{table(rows)}")
    return 0


def main(arguments: list[str] | None = None) -> int:
    p = argparse.ArgumentParser(prog=PROGRAM, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_study_options(p, 8)
    p.add_argument("--split", choices=QUERY_SPLITS, default="dev", help="whose images are queries (dev)")
    return run_command(_main, p, arguments)


if __name__ == "__main__":
    sys.exit(main())
