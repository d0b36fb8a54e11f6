"""What the studies of quality have in common: options, supports, rows, and means with their intervals."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from universeg_rt import Segmenter, SupportSet, left_out
from universeg_rt.storage.atomic import write_json

if TYPE_CHECKING:
    from universeg_rt.training.tasks.tasks import Task

FAR = 0.04  # Dice: a loss above it is counted apart
Row = dict[str, float | str]


def add_study_options(parser: argparse.ArgumentParser, queries: int) -> None:
    """Data sets, and `add_network_options`."""
    parser.add_argument("datasets", type=Path, nargs="+", help="YAML files of data sets (training/README.md)")
    parser.add_argument("--data-root", type=Path, required=True, help="folder of their files")
    add_network_options(parser)
    add_query_options(parser, queries)


def add_query_options(parser: argparse.ArgumentParser, queries: int) -> None:
    """At most `queries` a task where nothing else is asked for, and draws."""
    parser.add_argument("--queries", type=int, default=queries, help=f"at most so many a task ({queries})")
    parser.add_argument("--draws", type=int, default=3, help="supports drawn for each task, or image (3)")


def add_network_options(parser: argparse.ArgumentParser) -> None:
    """Bundle, threads, S, seed, output."""
    parser.add_argument("--bundle", type=Path, help="bundle folder (the shipped one)")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--support-size", type=int, default=16, help="S (16)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, help="JSON file for all rows")


def made_with(segmenter: Segmenter) -> str:
    """The weights and the runner, for the line above a table."""
    return f"weights {segmenter.bundle.manifest.weights_sha256[:12]}, {segmenter.runner.name}"


def rows_of_tasks(args: argparse.Namespace, rows_of: Callable[[Task], Iterable[Row]]) -> list[Row]:
    """The rows of every task of the data sets; --output holds those so far, since a study takes long."""
    from universeg_rt.training.tasks.datasets import load_datasets

    rows: list[Row] = []
    for task in load_datasets(args.datasets, args.data_root):
        rows += rows_of(task)
        if args.output:
            write_json(args.output, rows)
    return rows


def supports_to_freeze(segmenter: Segmenter, task: Task, size: int, draws: int, seed: int
                       ) -> Iterator[tuple[int, SupportSet]]:
    """Supports of up to `size` entries of the task's support split, drawn `draws` times, with which draw each is; those
    of too few different images to leave some out are passed over. None of a task with fewer subjects than splits."""
    from universeg_rt.training.evaluation.figures import seeded
    from universeg_rt.training.tasks.tasks import SPLITS

    if len(set(task.subjects)) < len(SPLITS):
        return
    pool = task.split("support")
    for draw in range(draws):
        entries = seeded(task.name, seed, f"price {draw}").permutation(len(pool))[:size]
        support = SupportSet.from_arrays(pool.images[entries], pool.labels[entries] > 0)
        if left_out.differing(support.on_grid(segmenter.grid, "stretch")[:, 0]) >= left_out.FEWEST:
            yield draw, support


def mean_text(values: Sequence[float], units: Sequence[str], *, scale: float = 1, digits: int = 3, sign: str = ""
              ) -> str:
    """The mean of values, and its 95 % interval over units where there are enough; sign `+`: of differences."""
    from universeg_rt.training.evaluation.intervals import interval

    if not len(values):
        return "-"
    how = f"{sign}.{digits}f"
    text = f"{scale * float(np.mean(values)):{how}}"
    found = interval(np.asarray(values, float), np.asarray(units))
    return text if found is None else f"{text} ({scale * found[0]:{how}} to {scale * found[1]:{how}})"
