"""Dice against how many labelled examples there are at all (paper Fig. 8): small pools, each used whole as the
support by the network and by what needs none."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from universeg_rt.training.evaluation.baselines import ATLAS, COPY, atlas, copy
from universeg_rt.training.evaluation.figures import figure, over_sizes, save, seeded
from universeg_rt.training.tasks.score import mask_of
from universeg_rt.training.tasks.tasks import Task

from universeg_rt import Ensemble, Segmenter, SupportSet
from universeg_rt.errors import InputError
from universeg_rt.imaging.metrics import dice

METHODS = ("network", ATLAS, COPY)


@dataclass(frozen=True)
class PoolProtocol:
    """sizes: N of the pools. repetitions: pools drawn for each N. queries: largest number a task (None: all of the
    `splits`)."""

    sizes: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64)
    repetitions: int = 20
    queries: int | None = None
    seed: int = 0
    splits: tuple[str, ...] = ("dev",)

    def __post_init__(self) -> None:
        if not self.sizes or min(self.sizes) < 1:
            raise InputError(f"pool sizes are {list(self.sizes)}; give positive integers")
        if self.repetitions < 1 or self.queries is not None and self.queries < 1:
            raise InputError(f"repetitions ({self.repetitions}) and queries ({self.queries}) must be positive")


def evaluate_pools(segmenter: Segmenter, task: Task, protocol: PoolProtocol) -> np.ndarray:
    """Dice (METHODS, sizes, repetitions) of a task, each the mean over its queries with one pool of the support split.

    Pools are drawn without replacement; repetition r of a larger N holds that of a smaller one, as when a user labels
    more images. Sizes larger than the support split are NaN.
    """
    support, asked = task.split("support"), task.split(*protocol.splits)
    chosen = seeded(task.name, protocol.seed, "queries").permutation(len(asked))[: protocol.queries]
    scores = np.full((len(METHODS), len(protocol.sizes), protocol.repetitions), np.nan)
    for repetition in range(protocol.repetitions):
        order = seeded(task.name, protocol.seed, f"pool {repetition}").permutation(len(support))
        for row, size in enumerate(protocol.sizes):
            if size <= len(support):
                masks = _masks(segmenter, support.select(order[:size]), asked.images[chosen])
                scores[:, row, repetition] = np.mean(
                    [[dice(mask, truth > 0) for mask in found] for found, truth in zip(masks, asked.labels[chosen])], 0)
    return scores


def _masks(segmenter: Segmenter, pool: Task, images: np.ndarray) -> Iterator[tuple[np.ndarray, ...]]:
    """For each of images (N,H,W) the masks (H,W) bool of METHODS."""
    prepared, labels = segmenter.prepare(SupportSet.from_arrays(pool.images, pool.labels)), pool.labels > 0
    whole = Ensemble().draw(len(pool))
    share, threshold = atlas(labels, whole)
    for image in images:
        yield (mask_of(prepared.member_probabilities(image)), share >= threshold,
               copy(image, pool.images, labels, whole) >= 0.5)


def summarise_pools(scores: dict[str, np.ndarray], datasets: dict[str, str], protocol: PoolProtocol) -> dict:
    """Mean, standard deviation, least and largest Dice over repetitions, and the baselines' mean, for each task and
    data set and every N.

    `datasets` names each task's data set; its Dice in a repetition is the mean over its tasks.
    """
    groups = {name: np.mean([scores[t] for t in scores if datasets[t] == name], axis=0)
              for name in dict.fromkeys(datasets[t] for t in scores)}

    def cells(values: np.ndarray) -> list[dict]:
        return [{"pool": size, "dice": float(row.mean()), "spread": float(row.std()), "least": float(row.min()),
                 "largest": float(row.max()), **{m: float(r.mean()) for m, r in zip(METHODS[1:], others)}}
                for size, (row, *others) in zip(protocol.sizes, values.swapaxes(0, 1)) if not np.isnan(row).any()]

    return {"tasks": {t: {"dataset": datasets[t], "cells": cells(v)} for t, v in scores.items()},
            "datasets": {d: {"cells": cells(v)} for d, v in groups.items()}}


def pool_table(summary: dict, sizes: Sequence[int]) -> str:
    """Markdown: a row a task and data set, mean ± standard deviation over repetitions, and below it one for each
    baseline's mean; a dash where N is too large."""
    lines = ["| | " + " | ".join(f"N = {n}" for n in sizes) + " |", "| --- |" + " ---: |" * len(sizes)]
    rows = [*summary["tasks"].items(), *((f"**{d}**, mean of its tasks", e) for d, e in summary["datasets"].items()
                                         if sum(t["dataset"] == d for t in summary["tasks"].values()) > 1)]
    for name, entry in rows:
        known = {c["pool"]: f"{c['dice']:.3f} ± {c['spread']:.3f}" for c in entry["cells"]}
        lines.append(f"| {name} | " + " | ".join(known.get(n, "–") for n in sizes) + " |")
        for method in METHODS[1:]:
            known = {c["pool"]: f"{c[method]:.3f}" for c in entry["cells"]}
            lines.append(f"| {method} | " + " | ".join(known.get(n, "–") for n in sizes) + " |")
    return "\n".join(lines)


def pool_plot(summary: dict, path: Path) -> None:
    """Dice against N, a line a data set with its standard deviation, the range over repetitions as a band (Fig. 8), and
    its baselines."""
    drawn, axes = figure()
    for name, entry in summary["datasets"].items():
        sizes = [c["pool"] for c in entry["cells"]]
        line = axes.errorbar(sizes, [c["dice"] for c in entry["cells"]], [c["spread"] for c in entry["cells"]],
                             marker="o", capsize=3, label=name)
        axes.fill_between(sizes, [c["least"] for c in entry["cells"]], [c["largest"] for c in entry["cells"]],
                          alpha=0.12, color=line[0].get_color())
        for method, style in zip(METHODS[1:], ("--", ":")):
            axes.plot(sizes, [c[method] for c in entry["cells"]], style, color=line[0].get_color(),
                      label=f"{name}, {method}")
    axes.set(xlabel="labelled examples N, all of them the support", ylabel="Dice, mean over a data set's tasks")
    over_sizes(axes, [c["pool"] for e in summary["datasets"].values() for c in e["cells"]])
    save(drawn, axes, path)
