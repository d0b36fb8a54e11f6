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
from universeg_rt.benchmarks.cpu.quality import FAR, add_study_options, made_with, mean_text, supports_to_freeze
from universeg_rt.cli.common import importing, run_command
from universeg_rt.errors import InputError
from universeg_rt.imaging.metrics import dice
from universeg_rt.predictor import Predictor
from universeg_rt.storage.atomic import write_json

PROGRAM = "universeg_rt.benchmarks.cpu.proxies"
WAYS = {"neither": {"LARGE": 0, "SMOOTH": 0}, "turned": {"SMOOTH": 0}, "smoothed": {"LARGE": 0},
        "both": {"SMOOTH": proxies.SMOOTH}}  # what each changes of the module
EXACT = "exact"

with importing(__name__, PROGRAM):
    from universeg_rt.training.evaluation.figures import seeded
    from universeg_rt.training.evaluation.protocol import QUERY_SPLITS
    from universeg_rt.training.tasks.datasets import load_datasets
    from universeg_rt.training.tasks.tasks import SPLITS, Task

Row = dict[str, float | str]


def rows_of(segmenter: Segmenter, task: Task, args: argparse.Namespace) -> Iterator[Row]:
    """The mean Dice on queries, exact and by each of WAYS, for each support that can be frozen."""
    asked = task.split(args.split)
    chosen = seeded(task.name, args.seed, "queries").permutation(len(asked))[: args.queries]

    def score(frozen: Predictor) -> float:
        return float(np.mean([dice(frozen.predict(asked.images[i]).mask, asked.labels[i] > 0) for i in chosen]))

    for draw, support in supports_to_freeze(segmenter, task, args.support_size, args.draws, args.seed):
        with segmenter.prepare(support) as exact:
            row: Row = {"task": task.name, "draw": draw, EXACT: score(exact)}
            for name, changed in WAYS.items():
                with patch.multiple(proxies, **changed), exact.freeze(kind="static") as static:
                    row[name] = score(static)
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


def _main(args: argparse.Namespace) -> int:
    segmenter = Segmenter.open(args.bundle, threads=args.threads)
    rows: list[Row] = []
    for task in load_datasets(args.datasets, args.data_root):
        if len(set(task.subjects)) >= len(SPLITS):  # fewer cannot be split
            rows += rows_of(segmenter, task, args)
        if args.output:  # so far: it takes long
            write_json(args.output, rows)
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
