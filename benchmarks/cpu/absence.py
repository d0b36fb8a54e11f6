"""Which number tells that a target is not in the image: candidates for `absent_below`, on real tasks.

    python -m universeg_rt.benchmarks.cpu.absence training/data_sets/train/*.yaml --data-root DATA --mni

Present: a task's dev images. Absent: dev images of other tasks of its data set that this task has not, because its
label was empty there. Supports are drawn from the support split, of entries with the target alone, or a quarter of
them without. --mni adds axial slices of nilearn's MNI152 template, with the head around it: grey and white matter.
For each candidate: at the threshold that costs --cost Dice on present images, how many absent images still have a
mask, and the pixels wrongly marked there, with 95 % intervals over subjects.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from universeg_rt import Ensemble, Segmenter, SupportSet
from universeg_rt.cli.common import importing, run_command
from universeg_rt.errors import InputError
from universeg_rt.imaging.metrics import auroc, correlations, dice, expected_dice, mean_inside
from universeg_rt.storage.atomic import write_json

PROGRAM = "universeg_rt.benchmarks.cpu.absence"

with importing(__name__, PROGRAM):
    from universeg_rt.training.evaluation.figures import seeded
    from universeg_rt.training.evaluation.intervals import interval
    from universeg_rt.training.tasks.datasets import load_datasets
    from universeg_rt.training.tasks.score import mask_of
    from universeg_rt.training.tasks.tasks import Task

MEMBERS = 2  # of half the support each
SUPPORTS = ("with the target", "a quarter without")
TEMPLATE = "datasets/data/mni_icbm152_{}_tal_nlin_sym_09a_converted.nii.gz"
LABELLED_EVERY = 12  # slices of the template
QUERIED_EVERY = 4

Row = dict[str, float | str]


@dataclass(frozen=True)
class Case:
    """A task's pools: entries with the target, images (N,H,W) without it; queries likewise, with their subjects."""

    name: str
    dataset: str
    support: tuple[np.ndarray, np.ndarray]
    support_absent: np.ndarray
    present: tuple[np.ndarray, np.ndarray, np.ndarray]
    absent: tuple[np.ndarray, np.ndarray]


def cases_of(tasks: list[Task]) -> Iterator[Case]:
    """A case for each task; without absent images where its data set has no other task."""
    for task in tasks:
        own = {image.tobytes() for image in task.images}
        others: dict[str, dict[bytes, tuple[np.ndarray, str]]] = {"support": {}, "dev": {}}
        for other in tasks:
            if other.dataset == task.dataset and other is not task:
                for split, found in others.items():
                    part = other.split(split)
                    found.update({image.tobytes(): (image, subject) for image, subject
                                  in zip(part.images, part.subjects) if image.tobytes() not in own})
        without = {split: list(found.values()) for split, found in others.items()}
        support, dev = task.split("support"), task.split("dev")
        yield Case(task.name, task.dataset, (support.images, support.labels > 0), _images(without["support"], task),
                   (dev.images, dev.labels > 0, dev.subjects),
                   (_images(without["dev"], task), np.array([subject for _, subject in without["dev"]])))


def _images(found: list[tuple[np.ndarray, str]], task: Task) -> np.ndarray:
    return np.array([image for image, _ in found], np.uint8).reshape(-1, *task.images.shape[1:])


def template_cases() -> Iterator[Case]:
    """Grey and white matter of the template by axial slices; it is one subject, so that runs of slices stand for
    subjects."""
    import nibabel
    import nilearn

    folder = Path(nilearn.__file__).parent

    def read(part: str) -> np.ndarray:
        return np.asarray(nibabel.load(folder / TEMPLATE.format(part)).dataobj)

    t1 = np.moveaxis(read("t1"), 2, 0)
    for part in ("gm", "wm"):
        marked = np.moveaxis(read(part), 2, 0) > 127
        some, seen = marked.sum((1, 2)) > 20, t1.std((1, 2)) > 0
        place = np.arange(len(t1))
        labelled, asked = place % LABELLED_EVERY == 0, place % QUERIED_EVERY == 2
        runs = np.array([f"run {i // 16}" for i in place])
        yield Case(f"template_{part}", "MNI152 template", (t1[labelled & some], marked[labelled & some]),
                   t1[labelled & ~marked.any((1, 2)) & seen],
                   (t1[asked & some], marked[asked & some], runs[asked & some]),
                   (t1[asked & ~marked.any((1, 2)) & seen], runs[asked & ~marked.any((1, 2)) & seen]))


def rows_of(segmenter: Segmenter, case: Case, size: int, queries: int, seed: int) -> Iterator[Row]:
    """Every candidate's value for the queries of a case, with both kinds of support."""
    for kind in SUPPORTS:
        empty = case.support_absent[: size // 4] if kind == SUPPORTS[1] else case.support_absent[:0]
        if kind == SUPPORTS[1] and not len(empty):
            continue
        random = seeded(case.name, seed, "support")
        chosen = random.permutation(len(case.support[0]))[: size - len(empty)]
        images = [*case.support[0][chosen], *empty]
        labels = [*case.support[1][chosen], *np.zeros(empty.shape, bool)]
        # Members draw half of it, so that they differ and none lacks entries of either kind.
        pool = SupportSet.from_arrays(images, labels)
        prepared = segmenter.prepare(pool, Ensemble(MEMBERS, max(1, len(images) // 2)))
        whole = segmenter.prepare(pool)
        area = float(np.mean([label.mean() for label in labels if label.any()]))
        known = np.array(images)
        marks = np.array([label.any() for label in labels])
        for present, (pool, subjects) in ((1, (case.present[0], case.present[2])), (0, case.absent)):
            for i in seeded(case.name, seed, f"queries {present}").permutation(len(pool))[:queries]:
                if pool[i].min() == pool[i].max():
                    continue
                probability = whole.member_probabilities(pool[i])
                members = prepared.member_probabilities(pool[i])
                mask, p = mask_of(probability), probability[0]
                truth = case.present[1][i] if present else np.zeros(mask.shape, bool)
                alike = correlations(pool[i], known)
                yield {
                    "task": case.name, "unit": f"{case.dataset}/{subjects[i]}", "support": kind, "present": present,
                    "dice": dice(mask, truth), "marked": float(mask.mean()), "true": float(truth.mean()),
                    "expected Dice": expected_dice(p, mask),
                    "probability mass": float(p.mean()) / area,
                    "area": float(mask.mean()) / area,
                    "greatest probability": float(p.max()),
                    "mean probability inside": mean_inside(p, mask),
                    "agreement of members": float(np.mean([dice(mask_of(m[None]), mask) for m in members]))
                    if mask.any() else 0.0,
                    "similarity": float(alike[marks].max() - alike[~marks].max()) if not marks.all() else
                    float(alike.max()),
                }


CANDIDATES = ("expected Dice", "probability mass", "area", "greatest probability", "mean probability inside",
              "agreement of members", "similarity")


def threshold_at(rows: list[Row], name: str, cost: float) -> float:
    """The highest threshold below which emptied masks cost at most so much Dice, mean over present images."""
    values = np.array([row[name] for row in rows if row["present"]], float)
    scores = np.array([row["dice"] for row in rows if row["present"]], float)
    order = np.argsort(values)
    lost = np.cumsum(scores[order]) / len(scores)
    within = int(np.searchsorted(lost, cost, side="right"))
    return float(values[order[min(within, len(values) - 1)]])


def effect(rows: list[Row], name: str, threshold: float) -> dict[str, object]:
    """What emptying masks whose value is below the threshold does."""
    absent, present = [r for r in rows if not r["present"]], [r for r in rows if r["present"]]

    def mean(values: list[float], of: list[Row]) -> dict[str, object]:
        found = interval(np.array(values), np.array([r["unit"] for r in of])) if of else None
        return {"mean": float(np.mean(values)) if of else float("nan"), "interval": found}

    kept = [float(r[name]) >= threshold for r in absent]
    return {
        "threshold": threshold,
        "images": mean([float(k and r["marked"] > 0) for k, r in zip(kept, absent)], absent),
        "area": mean([k * float(r["marked"]) for k, r in zip(kept, absent)], absent),
        "lost": mean([float(r["dice"]) * (float(r[name]) < threshold) for r in present], present),
        "auroc": auroc([float(r[name]) for r in rows], np.array([not r["present"] for r in rows])),
    }


def _cell(value: dict[str, object], scale: float = 1, digits: int = 3) -> str:
    text = f"{scale * float(value['mean']):.{digits}f}"  # type: ignore[arg-type]
    if value["interval"] is not None:
        low, high = value["interval"]  # type: ignore[misc]
        text += f" ({scale * low:.{digits}f} to {scale * high:.{digits}f})"
    return text


def _main(args: argparse.Namespace) -> int:
    segmenter = Segmenter.open(args.bundle, threads=args.threads)
    cases = list(cases_of(load_datasets(args.datasets, args.data_root)))
    # Tasks without absent images say only what a rule costs: they are asked for by --present.
    cases = [case for case in cases if len(case.absent[0]) or args.present]
    if args.mni:
        cases += template_cases()
    rows: list[Row] = []
    for case in cases:
        rows += rows_of(segmenter, case, args.support_size, args.queries, args.seed)
        if args.output:  # so far: it takes long
            write_json(args.output, rows)
    if not any(not row["present"] for row in rows):
        raise InputError("no absent images; give data sets of several tasks that share images, or --mni")
    for kind in SUPPORTS:
        part = [row for row in rows if row["support"] == kind]
        absent = [row for row in part if not row["present"]]
        print(f"\nSupport {kind}: {len(part) - len(absent)} present images, mean Dice "
              f"{np.mean([row['dice'] for row in part if row['present']]):.3f}; {len(absent)} absent ones; "
              f"{len({row['task'] for row in absent})} tasks, S = {args.support_size}, {segmenter.runner.name}")
        print("| rule | empties below | absent images with a mask | marked there, % of the image | Dice lost | AUROC |")
        print("| --- | ---: | ---: | ---: | ---: | ---: |")
        found = {"doing nothing": effect(part, CANDIDATES[0], -np.inf)}
        found.update({name: effect(part, name, threshold_at(part, name, args.cost)) for name in CANDIDATES})
        found.update({f"{name} {t:g}": effect(part, name, t) for name in args.rules for t in args.thresholds})
        for name, each in found.items():
            shown = f"{each['auroc']:.3f}" if name in CANDIDATES else ""
            print(f"| {name} | {each['threshold']:.3f} | {_cell(each['images'], digits=2)} | "  # type: ignore[arg-type]
                  f"{_cell(each['area'], 100, 2)} | {_cell(each['lost'])} | {shown} |")  # type: ignore[arg-type]
    return 0


def main(arguments: list[str] | None = None) -> int:
    p = argparse.ArgumentParser(prog=PROGRAM, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("datasets", type=Path, nargs="*", help="YAML files of data sets (training/README.md)")
    p.add_argument("--data-root", type=Path, default=Path(), help="folder of their files")
    p.add_argument("--mni", action="store_true", help="add the MNI152 template's slices")
    p.add_argument("--present", action="store_true", help="add tasks without absent images")
    p.add_argument("--bundle", type=Path, help="bundle folder (the shipped one)")
    p.add_argument("--threads", type=int)
    p.add_argument("--support-size", type=int, default=16, help="S (16)")
    p.add_argument("--queries", type=int, default=10, help="at most so many of either kind a task (10)")
    p.add_argument("--cost", type=float, default=0.01, help="Dice that a rule may cost on present images (0.01)")
    p.add_argument("--rules", nargs="*", default=["mean probability inside"], help="shown at several thresholds")
    p.add_argument("--thresholds", type=float, nargs="*", default=[0.55, 0.6, 0.65, 0.7, 0.75])
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--output", type=Path, help="JSON file for all rows")
    return run_command(_main, p, arguments)


if __name__ == "__main__":
    sys.exit(main())
