"""Which number tells that a target is not in the image: candidates for `absent_below`, on real tasks and volumes.

    python -m universeg_rt.benchmarks.cpu.absence training/data_sets/train/*.yaml --data-root DATA
    python -m universeg_rt.benchmarks.cpu.absence --volumes FOLDER ... --split test

Of tasks, present: dev images. Absent: dev images of other tasks of the data set that this task has not, because its
label was empty there. Of volumes: slices of subjects that no entry is from, with a label and without. Supports have the
target in all entries, or lack it in --absent of them. For each candidate: at the threshold that costs --cost Dice on
present images (chosen on these images), how many absent ones still have a mask, and the pixels wrongly marked there;
and the same of the rule that `absent_below` goes by, `looks`, at its default. It needs no network, and judges no volume
of another length than the support's; `nearest` needs none either: the similarity to the nearest entry with the target
less that to the nearest without. Intervals of 95 % are over subjects.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import repeat
from pathlib import Path
from typing import NamedTuple

import numpy as np

from universeg_rt import Segmenter, SupportSet
from universeg_rt.answers.absence import ABSENT_BELOW
from universeg_rt.benchmarks.cpu.quality import Row, add_network_options, made_with, mean_text
from universeg_rt.benchmarks.cpu.volume_sets import add_volume_options, volume_sets
from universeg_rt.cli.common import importing, run_command
from universeg_rt.errors import InputError
from universeg_rt.imaging.embedding import embed
from universeg_rt.imaging.metrics import auroc, dice, expected_dice, mean_inside
from universeg_rt.imaging.normalisation import Range
from universeg_rt.storage.atomic import write_json
from universeg_rt.supports.volumes import support_of_volumes

PROGRAM = "universeg_rt.benchmarks.cpu.absence"

with importing(__name__, PROGRAM):
    from universeg_rt.training.evaluation.figures import seeded
    from universeg_rt.training.tasks.datasets import load_datasets
    from universeg_rt.training.tasks.tasks import Task

WITH, SOME = "all with the target", "some without"
INSIDE, LOOKS = "mean probability inside", "looks"
CANDIDATES = ("expected Dice", "probability mass", "area", "greatest probability", INSIDE, "nearest", LOOKS)
RULES = ((LOOKS, ABSENT_BELOW),)



class Query(NamedTuple):
    """image (H,W), truth (H,W) bool, subject; of a slice its place and its volume's range of intensities."""

    image: np.ndarray
    truth: np.ndarray
    subject: str
    place: float | None = None
    limits: Range | None = None


@dataclass(frozen=True)
class Case:
    """A task: supports by kind, and the queries with its target and without."""

    name: str
    dataset: str
    supports: dict[str, SupportSet]
    present: list[Query]
    absent: list[Query]


def cases_of(tasks: list[Task], size: int, absent: int, seed: int) -> Iterator[Case]:
    """A case for each task; without absent images where its data set has no other task that shares them."""
    for task in tasks:
        own = {image.tobytes() for image in task.images}
        without: dict[str, dict[bytes, Query]] = {"support": {}, "dev": {}}
        for other in (each for each in tasks if each.dataset == task.dataset and each is not task):
            for split, found in without.items():
                part = other.split(split)
                found.update({image.tobytes(): Query(image, np.zeros(image.shape, bool), str(subject))
                              for image, subject in zip(part.images, part.subjects) if image.tobytes() not in own})
        support, dev = task.split("support"), task.split("dev")
        order = seeded(task.name, seed, "support").permutation(len(support))
        empty = [each.image for each in without["support"].values()][:absent]
        supports = {}
        for kind, lacking in ((WITH, []), (SOME, empty)):
            if kind == WITH or lacking:
                chosen = order[: size - len(lacking)]
                supports[kind] = SupportSet.from_arrays(
                    [*support.images[chosen], *lacking],
                    [*(support.labels[chosen] > 0), *(np.zeros(image.shape, bool) for image in lacking)])
        queries = [Query(image, label > 0, str(subject)) for image, label, subject
                   in zip(dev.images, dev.labels, dev.subjects)]
        yield Case(task.name, task.dataset, supports, queries, list(without["dev"].values()))


def volume_cases(args: argparse.Namespace) -> Iterator[Case]:
    """A case for each label of the volumes, with a support for it alone: slices with it, and slices without."""
    for volumes, choice in volume_sets(args, 0):
        for value, name in volumes.support.label_names.items():
            supports = {}
            for kind, absent in ((WITH, 0), (SOME, args.absent)):
                taken = replace(choice, slices=args.support_size - absent, absent=absent)
                support = support_of_volumes(volumes.pairs, name, taken)
                if kind == WITH or not all(label.any() for label in support.labels):
                    supports[kind] = support
            queries = [Query(image, label == value, scan.subject, place, scan.limits) for scan in volumes.scans
                       for image, label, place in zip(scan.images, scan.labels, scan.places or repeat(None))]
            yield Case(f"{volumes.name} {name}", volumes.name, supports,
                       [each for each in queries if each.truth.any()],
                       [each for each in queries if not each.truth.any()])


def rows_of(segmenter: Segmenter, case: Case, queries: int, seed: int) -> Iterator[Row]:
    """Every candidate's value for up to `queries` of either kind, with each support."""
    for kind, support in case.supports.items():
        task = segmenter.prepare(support)
        entries = support.on_grid(segmenter.grid, "stretch")
        marked = np.array([label.any() for label in support.labels])
        area = float(np.mean([label.mean() for label in support.labels if label.any()]))
        looks, known = task.looks, embed(entries[:, 0])
        for present, pool in ((1, case.present), (0, case.absent)):
            for i in seeded(case.name, seed, f"queries {present}").permutation(len(pool))[:queries]:
                image, truth, subject, place, limits = pool[i]
                answer = task.predict(image, volume_range=limits)
                if answer.emptied:
                    continue
                judged = looks is not None and (place is not None or not looks.of_volumes)
                p, mask, on_grid = answer.probability, answer.mask, task.on_grid([image])[0, 0]
                alike = known @ embed(on_grid[None])[0]
                yield {
                    "task": case.name, "unit": f"{case.dataset}/{subject}", "support": kind, "present": present,
                    "dice": dice(mask, truth), "marked": float(mask.mean()), "true": float(truth.mean()),
                    "expected Dice": expected_dice(p, mask),
                    "probability mass": float(p.mean()) / area,
                    "area": float(mask.mean()) / area,
                    "greatest probability": float(p.max()),
                    INSIDE: mean_inside(p, mask),
                    "nearest": float(alike[marked].max() - (0 if marked.all() else alike[~marked].max())),
                    LOOKS: looks.presence(image, task.normalise, place) if judged else 1.0,
                }


def threshold_at(rows: list[Row], name: str, cost: float) -> float:
    """The highest threshold below which emptied masks cost at most so much Dice, mean over present images."""
    values = np.array([row[name] for row in rows if row["present"]], float)
    scores = np.array([row["dice"] for row in rows if row["present"]], float)
    order = np.argsort(values)
    lost = np.cumsum(scores[order]) / len(scores)
    within = int(np.searchsorted(lost, cost, side="right"))
    return float(values[order[min(within, len(values) - 1)]])


def effect(rows: list[Row], name: str, threshold: float) -> dict[str, list[float]]:
    """What emptying masks whose value is below the threshold does. images: whether an absent image keeps a mask. area:
    the share of it that is marked. emptied: whether a present image loses its mask. lost: Dice that it loses so."""
    kept = {present: [(row, float(row[name]) >= threshold) for row in rows if row["present"] == present]
            for present in (0, 1)}
    return {
        "images": [float(keeps and row["marked"] > 0) for row, keeps in kept[0]],
        "area": [keeps * float(row["marked"]) for row, keeps in kept[0]],
        "emptied": [float(not keeps and row["marked"] > 0) for row, keeps in kept[1]],
        "lost": [(not keeps) * float(row["dice"]) for row, keeps in kept[1]],
    }


def table(rows: list[Row], cost: float) -> str:
    """Markdown of the rows of one kind of support: every rule at its default, every candidate at what may be lost."""
    absent = np.array([not row["present"] for row in rows])
    units = {present: [str(row["unit"]) for row in rows if row["present"] == present] for present in (0, 1)}
    lines = ["| rule | empties below | absent images with a mask | marked there, % of the image | "
             "present images emptied | Dice lost | AUROC |", "| --- | ---: | ---: | ---: | ---: | ---: | ---: |"]
    tells = [name for name in CANDIDATES if len({row[name] for row in rows}) > 1]
    shown = [("doing nothing", tells[0], -np.inf), *((f"**{name}**", name, at) for name, at in RULES if name in tells),
             *((name, name, threshold_at(rows, name, cost)) for name in tells)]
    for title, name, threshold in shown:
        found = effect(rows, name, threshold)
        cells = [f"{threshold:.3f}", mean_text(found["images"], units[0], digits=2),
                 mean_text(found["area"], units[0], scale=100, digits=2),
                 mean_text(found["emptied"], units[1], digits=2), mean_text(found["lost"], units[1])]
        tell = f"{auroc([float(row[name]) for row in rows], absent):.3f}" if title == name else ""
        lines.append(f"| {title} | {' | '.join(cells)} | {tell} |")
    return "\n".join(lines)


def _main(args: argparse.Namespace) -> int:
    if not 0 < args.absent < args.support_size:
        raise InputError(f"--absent is {args.absent}; accepted: 1 to {args.support_size - 1}, below --support-size")
    segmenter = Segmenter.open(args.bundle, threads=args.threads)
    tasks = load_datasets(args.datasets, args.data_root)
    cases = [*cases_of(tasks, args.support_size, args.absent, args.seed), *volume_cases(args)]
    rows: list[Row] = []
    for case in cases:
        if case.absent:
            rows += rows_of(segmenter, case, args.queries, args.seed)
        if args.output:  # so far: it takes long
            write_json(args.output, rows)
    if not any(not row["present"] for row in rows):
        raise InputError("no absent images; give data sets of several tasks that share images, or --volumes")
    for kind in (WITH, SOME):
        part = [row for row in rows if row["support"] == kind]
        absent = [row for row in part if not row["present"]]
        if not absent or len(absent) == len(part):
            continue
        print(f"\nSupport: {kind}, S = {args.support_size}; {len({row['task'] for row in absent})} tasks, "
              f"{len(part) - len(absent)} present images, mean Dice "
              f"{np.mean([row['dice'] for row in part if row['present']]):.3f}; {len(absent)} absent ones; "
              f"{made_with(segmenter)}\n\n{table(part, args.cost)}")
    return 0


def main(arguments: list[str] | None = None) -> int:
    p = argparse.ArgumentParser(prog=PROGRAM, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("datasets", type=Path, nargs="*", help="YAML files of data sets (training/README.md)")
    p.add_argument("--data-root", type=Path, default=Path(), help="folder of their files")
    add_volume_options(p)
    add_network_options(p)
    p.add_argument("--absent", type=int, default=4, help="of the S entries, those without the target (4)")
    p.add_argument("--queries", type=int, default=10, help="at most so many of either kind a task (10)")
    p.add_argument("--cost", type=float, default=0.01, help="Dice that a candidate may cost on present images (0.01)")
    return run_command(_main, p, arguments)


if __name__ == "__main__":
    sys.exit(main())
