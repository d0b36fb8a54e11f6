"""Dice against how many labelled examples there are at all (paper Fig. 8): small pools, each used whole as the
support."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from universeg_rt.training.evaluation.figures import figure, save, seeded
from universeg_rt.training.tasks.score import query_dice
from universeg_rt.training.tasks.tasks import Task

from universeg_rt import Segmenter, SupportSet
from universeg_rt.errors import InputError


@dataclass(frozen=True)
class PoolProtocol:
    """sizes: N of the pools. repetitions: pools drawn for each N. queries: largest number a task (None: the test
    split)."""

    sizes: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64)
    repetitions: int = 20
    queries: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.sizes or min(self.sizes) < 1:
            raise InputError(f"pool sizes are {list(self.sizes)}; give positive integers")
        if self.repetitions < 1 or self.queries is not None and self.queries < 1:
            raise InputError(f"repetitions ({self.repetitions}) and queries ({self.queries}) must be positive")


def evaluate_pools(segmenter: Segmenter, task: Task, protocol: PoolProtocol) -> np.ndarray:
    """Dice (sizes, repetitions) of a task, each the mean over its test images with one pool of the support split.

    Pools are drawn without replacement; repetition r of a larger N holds that of a smaller one, as when a user labels
    more images. Sizes larger than the support split are NaN.
    """
    support, test = task.split("support"), task.split("test")
    chosen = seeded(task.name, protocol.seed, "queries").permutation(len(test))[: protocol.queries]
    scores = np.full((len(protocol.sizes), protocol.repetitions), np.nan)
    for repetition in range(protocol.repetitions):
        order = seeded(task.name, protocol.seed, f"pool {repetition}").permutation(len(support))
        for row, size in enumerate(protocol.sizes):
            if size > len(support):
                continue
            pool = support.select(order[:size])
            prepared = segmenter.prepare(SupportSet.from_arrays(pool.images, pool.labels))
            scores[row, repetition] = np.mean([
                query_dice(prepared.member_probabilities(test.images[q]), test.labels[q]) for q in chosen])
    return scores


def summarise_pools(scores: dict[str, np.ndarray], datasets: dict[str, str], protocol: PoolProtocol) -> dict:
    """Mean, standard deviation, least and largest Dice over repetitions, for each task and data set and every N.

    `datasets` names each task's data set; its Dice in a repetition is the mean over its tasks.
    """
    groups = {name: np.mean([scores[t] for t in scores if datasets[t] == name], axis=0)
              for name in dict.fromkeys(datasets[t] for t in scores)}

    def cells(values: np.ndarray) -> list[dict]:
        return [{"pool": size, "dice": float(row.mean()), "spread": float(row.std()), "least": float(row.min()),
                 "largest": float(row.max())} for size, row in zip(protocol.sizes, values) if not np.isnan(row).any()]

    return {"tasks": {t: {"dataset": datasets[t], "cells": cells(v)} for t, v in scores.items()},
            "datasets": {d: {"cells": cells(v)} for d, v in groups.items()}}


def pool_table(summary: dict, sizes: Sequence[int]) -> str:
    """Markdown: a row a task and data set, mean ± standard deviation over repetitions; a dash where N is too large."""
    lines = ["| | " + " | ".join(f"N = {n}" for n in sizes) + " |", "| --- |" + " ---: |" * len(sizes)]
    rows = [*summary["tasks"].items(), *((f"**{d}**, mean of its tasks", e) for d, e in summary["datasets"].items()
                                         if sum(t["dataset"] == d for t in summary["tasks"].values()) > 1)]
    for name, entry in rows:
        known = {c["pool"]: f"{c['dice']:.3f} ± {c['spread']:.3f}" for c in entry["cells"]}
        lines.append(f"| {name} | " + " | ".join(known.get(n, "–") for n in sizes) + " |")
    return "\n".join(lines)


def pool_plot(summary: dict, path: Path) -> None:
    """Dice against N, a line a data set with its standard deviation, and the range over repetitions as a band (Fig. 8)."""
    drawn, axes = figure()
    for name, entry in summary["datasets"].items():
        sizes = [c["pool"] for c in entry["cells"]]
        line = axes.errorbar(sizes, [c["dice"] for c in entry["cells"]], [c["spread"] for c in entry["cells"]],
                             marker="o", capsize=3, label=name)
        axes.fill_between(sizes, [c["least"] for c in entry["cells"]], [c["largest"] for c in entry["cells"]],
                          alpha=0.12, color=line[0].get_color())
    axes.set(xlabel="labelled examples N, all of them the support", ylabel="Dice, mean over a data set's tasks")
    save(drawn, axes, path, [c["pool"] for e in summary["datasets"].values() for c in e["cells"]])
