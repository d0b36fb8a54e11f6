"""`universeg-evaluate`: the paper's protocol on any bundle and runner (section 5.1), and its curves (Fig. 7, 8 and 9).

Queries are the test split's images, supports are drawn with replacement from the support split, anew for every query;
predictions of K supports of S entries are averaged. Dice is averaged over the images of a task, the tasks of a data
set, and the data sets. The spread is the standard deviation over bootstrap repetitions that draw each task's subjects
anew.
The same seeds draw the same supports, so bundles, precisions and runners meet the same tasks. Data sets of a few images
have no splits worth the name: with --leave-one-out each subject is a query once, and all others its support.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from universeg_rt.training.evaluation.figures import figure, save, seeded
from universeg_rt.training.evaluation.pools import PoolProtocol, evaluate_pools, pool_plot, pool_table, summarise_pools
from universeg_rt.training.tasks.datasets import add_data_root, load_datasets
from universeg_rt.training.tasks.score import query_dice
from universeg_rt.training.tasks.tasks import Task

from universeg_rt import Ensemble, Segmenter, SupportSet
from universeg_rt.cli.common import add_runner_options, run_command
from universeg_rt.errors import InputError
from universeg_rt.storage.atomic import write_json

EXAMPLE = """example:
  universeg-evaluate training/data_sets/report/wbc1.yaml --data-root DATA --output evaluation.json
  universeg-evaluate training/data_sets/report/*.yaml --data-root DATA --support-sizes 1 4 16 64 --members 1 5 --plot
  curves.png"""


@dataclass(frozen=True)
class Protocol:
    """support_sizes and members: every S and K to report. queries: largest number a task (None: all of the test split).

    bootstrap: repetitions. seed: of supports, choice of queries, and bootstrap. leave_one_out: each subject is a query,
    the other subjects are its support, in place of the splits.
    """

    support_sizes: tuple[int, ...] = (64,)
    members: tuple[int, ...] = (5,)
    queries: int | None = None
    bootstrap: int = 1000
    seed: int = 0
    leave_one_out: bool = False

    def __post_init__(self) -> None:
        for name in ("support_sizes", "members"):
            values = getattr(self, name)
            if not values or min(values) < 1:
                raise InputError(f"{name} is {list(values)}; give positive integers")
        if self.queries is not None and self.queries < 1 or self.bootstrap < 1:
            raise InputError(f"queries ({self.queries}) and bootstrap ({self.bootstrap}) must be positive")


@dataclass(frozen=True)
class TaskScores:
    """Dice (queries, S, K) of one task, and the subject of each query."""

    task: str
    dataset: str
    subjects: np.ndarray
    dice: np.ndarray


def evaluate_task(segmenter: Segmenter, task: Task, protocol: Protocol) -> TaskScores:
    """Every S and K on one task; the K members are the first K of the largest ensemble."""
    rows, subjects = [], []
    for support, query, seed in _cases(task, protocol):
        scores = np.empty((len(protocol.support_sizes), len(protocol.members)))
        for s, size in enumerate(protocol.support_sizes):
            ensemble = Ensemble(max(protocol.members), size, replacement=True, seed=seed + size)
            members = segmenter.prepare(support, ensemble).member_probabilities(query.images[0])
            for k, count in enumerate(protocol.members):
                scores[s, k] = query_dice(members[:count], query.labels[0])
        rows.append(scores)
        subjects.append(query.subjects[0])
    return TaskScores(task.name, task.dataset or task.name, np.array(subjects), np.array(rows))


def _cases(task: Task, protocol: Protocol) -> Iterator[tuple[SupportSet, Task, int]]:
    """Support to draw from, a query (a task of one entry) and the seed of its supports, one after another."""
    test = task if protocol.leave_one_out else task.split("test")
    pool = None if protocol.leave_one_out else SupportSet.from_arrays(*_arrays(task.split("support")))
    for query in seeded(task.name, protocol.seed, "queries").permutation(len(test))[: protocol.queries]:
        support = pool or SupportSet.from_arrays(
            *_arrays(task.select(np.flatnonzero(task.subjects != test.subjects[query]))))
        seed = int(seeded(task.name, protocol.seed, f"supports of {query}").integers(2**31))
        yield support, test.select(np.array([query])), seed


def _arrays(task: Task) -> tuple[np.ndarray, np.ndarray]:
    return task.images, task.labels


def summarise(results: Sequence[TaskScores], protocol: Protocol) -> dict:
    """Mean Dice and bootstrap standard deviation for each task, data set and over data sets, for every S and K."""
    datasets = list(dict.fromkeys(r.dataset for r in results))

    def means(weights: dict[str, np.ndarray]) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], np.ndarray]:
        tasks = {r.task: np.average(r.dice, axis=0, weights=weights[r.task]) for r in results}
        sets = {d: np.mean([tasks[r.task] for r in results if r.dataset == d], axis=0) for d in datasets}
        return tasks, sets, np.mean(list(sets.values()), axis=0)

    tasks, sets, overall = means({r.task: np.ones(len(r.dice)) for r in results})
    random = seeded("", protocol.seed, "bootstrap")
    repeated = [means({r.task: _resample(r.subjects, random) for r in results}) for _ in range(protocol.bootstrap)]

    def cells(mean: np.ndarray, repeats: Iterable[np.ndarray]) -> list[dict]:
        spread = np.std(list(repeats), axis=0)
        return [{"support_size": size, "members": count, "dice": float(mean[s, k]), "spread": float(spread[s, k])}
                for s, size in enumerate(protocol.support_sizes) for k, count in enumerate(protocol.members)]

    return {
        "tasks": {r.task: {"dataset": r.dataset, "queries": len(r.dice), "subjects": len(set(r.subjects)),
                           "cells": cells(tasks[r.task], (b[0][r.task] for b in repeated))} for r in results},
        "datasets": {d: {"cells": cells(sets[d], (b[1][d] for b in repeated))} for d in datasets},
        "overall": {"cells": cells(overall, (b[2] for b in repeated))},
    }


def table(summary: dict) -> str:
    """Markdown: a row for each task, data set of several tasks, and the mean over data sets; Dice ± spread."""
    head = [f"S = {c['support_size']}, K = {c['members']}" for c in summary["overall"]["cells"]]
    lines = ["| | queries | " + " | ".join(head) + " |", "| --- | ---: |" + " ---: |" * len(head)]

    def row(name: str, queries: object, cells: list[dict]) -> str:
        return f"| {name} | {queries} | " + " | ".join(f"{c['dice']:.3f} ± {c['spread']:.3f}" for c in cells) + " |"

    for name, entry in summary["tasks"].items():
        lines.append(row(name, entry["queries"], entry["cells"]))
    for name, entry in summary["datasets"].items():
        if sum(t["dataset"] == name for t in summary["tasks"].values()) > 1:
            lines.append(row(f"**{name}**, mean of its tasks", "", entry["cells"]))
    if len(summary["datasets"]) > 1:
        lines.append(row("**mean over data sets**", "", summary["overall"]["cells"]))
    return "\n".join(lines)


def plot(summary: dict, path: Path) -> None:
    """Dice against support size, a line for each ensemble size, with the bootstrap spread (Fig. 7 and 9)."""
    drawn, axes = figure()
    cells = summary["overall"]["cells"]
    for count in dict.fromkeys(c["members"] for c in cells):
        mine = [c for c in cells if c["members"] == count]
        axes.errorbar([c["support_size"] for c in mine], [c["dice"] for c in mine], [c["spread"] for c in mine],
                      marker="o", capsize=3, label=f"K = {count}")
    axes.set(xlabel="support size S", ylabel="Dice, mean over data sets")
    save(drawn, axes, path, [c["support_size"] for c in cells])


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(prog="universeg-evaluate", epilog=EXAMPLE, description=__doc__,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("datasets", type=Path, nargs="+", help="YAML files of data sets (training/README.md)")
    add_data_root(p)
    add_runner_options(p)
    p.add_argument("--tasks", nargs="+", metavar="NAME", help="only these tasks")
    p.add_argument("--support-sizes", type=int, nargs="+", default=[64], metavar="S")
    p.add_argument("--members", type=int, nargs="+", default=[5], metavar="K")
    p.add_argument("--queries", type=int, help="at most so many test images a task (all)")
    p.add_argument("--bootstrap", type=int, default=1000, help="repetitions (1000)")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--leave-one-out", action="store_true",
                   help="for a few images: each subject a query, all others its support")
    p.add_argument("--pools", type=int, nargs="+", metavar="N",
                   help="instead, Dice with only N labelled examples, all of them the support (Fig. 8)")
    p.add_argument("--repetitions", type=int, default=20, help="pools drawn for each N (20)")
    p.add_argument("--output", type=Path, help="JSON file for all figures")
    p.add_argument("--plot", type=Path, help="PNG of Dice against support size, or against N")
    return p


def main(arguments: list[str] | None = None) -> int:
    return run_command(_main, parser(), arguments)


def _main(args: argparse.Namespace) -> int:
    from tqdm import tqdm

    protocol = Protocol(tuple(args.support_sizes), tuple(args.members), args.queries, args.bootstrap, args.seed,
                        args.leave_one_out)
    pools = PoolProtocol(tuple(args.pools), args.repetitions, args.queries, args.seed) if args.pools else None
    tasks = load_datasets(args.datasets, args.data_root)
    if args.tasks:
        unknown = set(args.tasks) - {t.name for t in tasks}
        if unknown:
            raise InputError(f"no tasks {', '.join(sorted(unknown))}; there are {', '.join(t.name for t in tasks)}")
        tasks = [t for t in tasks if t.name in args.tasks]
    segmenter = Segmenter.open(args.bundle, runner=args.runner, precision=args.precision, threads=args.threads)
    bar = tqdm(tasks, desc="tasks", unit="task")
    if pools:
        scores = {task.name: evaluate_pools(segmenter, task, pools) for task in bar}
        summary = summarise_pools(scores, {t.name: t.dataset or t.name for t in tasks}, pools)
        print(pool_table(summary, pools.sizes))
        said = {
            "pools": args.pools, "repetitions": args.repetitions, "queries": args.queries, "seed": args.seed,
            "split": "test"
        }
    else:
        summary = summarise([evaluate_task(segmenter, task, protocol) for task in bar], protocol)
        print(table(summary))
        said = {
            "support_sizes": args.support_sizes, "members": args.members, "queries": args.queries,
            "bootstrap": args.bootstrap, "seed": args.seed,
            "split": "leave one subject out" if args.leave_one_out else "test", "replacement": True
        }
    if args.output:
        manifest = segmenter.bundle.manifest
        out = {
            "bundle": {
                "name": manifest.name, "sha256": segmenter.bundle.sha256, "weights_sha256": manifest.weights_sha256
            },
            "runner": segmenter.runner.name,
            "precision": args.precision,
            "protocol": said,
            **summary,
        }
        write_json(args.output, out)
    if args.plot:
        (pool_plot if pools else plot)(summary, args.plot)
    return 0


def _resample(subjects: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """How often each query counts when its task's subjects are drawn anew with replacement."""
    names, index = np.unique(subjects, return_inverse=True)
    drawn = np.bincount(random.integers(len(names), size=len(names)), minlength=len(names))
    return drawn[index].astype(np.float64)


if __name__ == "__main__":
    sys.exit(main())
