"""Which number tells a bad mask without the truth: candidates for `Prediction.confidence`, against Dice on real tasks.

    python -m universeg_rt.benchmarks.cpu.confidence training/data_sets/tune/*.yaml --data-root DATA

Queries are the dev split's images, supports are drawn from the support split. For each candidate: AUROC for finding
masks of Dice under 0.5, and Spearman's rank correlation with Dice, over all queries, each with its bootstrap standard
deviation: whole images are drawn, with all draws of their supports.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence

import numpy as np

from universeg_rt import Ensemble, Segmenter, SupportSet
from universeg_rt.benchmarks.cpu.quality import add_study_options
from universeg_rt.cli.common import importing, run_command
from universeg_rt.errors import InputError
from universeg_rt.imaging.metrics import BAD_DICE, auroc, dice, expected_dice, mean_inside, rank_correlation
from universeg_rt.storage.atomic import write_file

PROGRAM = "universeg_rt.benchmarks.cpu.confidence"

with importing(__name__, PROGRAM):
    from universeg_rt.training.evaluation.figures import seeded
    from universeg_rt.training.tasks.datasets import load_dataset
    from universeg_rt.training.tasks.score import mask_of, query_dice
    from universeg_rt.training.tasks.tasks import Task

REPETITIONS = 500


def expected(members: np.ndarray) -> float:
    """`Prediction.confidence` of members' probabilities (K,H,W)."""
    return expected_dice(members.mean(axis=0), mask_of(members))


def inside(members: np.ndarray) -> float:
    """Mean probability inside the mask."""
    return mean_inside(members.mean(axis=0), mask_of(members))


def agreement(members: np.ndarray) -> float:
    """Mean Dice of each member's mask with the mask of the mean."""
    mask = mask_of(members)
    return float(np.mean([dice(mask_of(member[None]), mask) for member in members]))


def mean_spread(members: np.ndarray) -> float:
    """Minus the members' standard deviation, mean over the image."""
    return -float(members.std(axis=0).mean())


CANDIDATES: dict[str, Callable[[np.ndarray], float]] = {
    "expected Dice": expected,
    "mean probability inside": inside,
    "agreement": agreement,
    "mean spread": mean_spread,
}


def rows_of(
    segmenter: Segmenter, task: Task, queries: int, ensembles: Sequence[Ensemble], seed: int
) -> list[dict[str, float | str]]:
    """Dice and every candidate's value for up to `queries` images of a task, each with every ensemble."""
    dev, support = task.split("dev"), task.split("support")
    pool = SupportSet.from_arrays(support.images, support.labels)
    prepared = [segmenter.prepare(pool, ensemble) for ensemble in ensembles]
    out: list[dict[str, float | str]] = []
    for query in seeded(task.name, seed, "queries").permutation(len(dev))[:queries]:
        for each in prepared:
            members = each.member_probabilities(dev.images[query])
            out.append(
                {
                    "task": task.name,
                    "image": f"{task.name} {query}",
                    "dice": query_dice(members, dev.labels[query]),
                    **{name: candidate(members) for name, candidate in CANDIDATES.items()},
                }
            )
    return out


def summarise(rows: Sequence[dict[str, float | str]]) -> dict[str, dict[str, float]]:
    """AUROC and Spearman's correlation of each candidate, and their standard deviations `auroc_sd`, `spearman_sd`."""
    scores = np.array([row["dice"] for row in rows], float)
    images = np.array([row["image"] for row in rows])
    places, random = [np.flatnonzero(images == image) for image in np.unique(images)], seeded("", 0, "bootstrap")
    drawn = [
        np.concatenate([places[i] for i in random.integers(len(places), size=len(places))]) for _ in range(REPETITIONS)
    ]
    out = {}
    for name in CANDIDATES:
        values = np.array([row[name] for row in rows], float)
        repeated = [(auroc(values[d], scores[d] < BAD_DICE), rank_correlation(values[d], scores[d])) for d in drawn]
        sd = np.nanstd(repeated, axis=0)
        out[name] = {
            "auroc": auroc(values, scores < BAD_DICE),
            "spearman": rank_correlation(values, scores),
            "auroc_sd": float(sd[0]),
            "spearman_sd": float(sd[1]),
        }
    return out


def _main(args: argparse.Namespace) -> int:
    segmenter = Segmenter.open(args.bundle, runner=args.runner, threads=args.threads)
    ensembles = [
        Ensemble(args.members, args.support_size, replacement=True, seed=args.seed + i) for i in range(args.draws)
    ]
    rows: list[dict[str, float | str]] = []
    for task in (task for path in args.datasets for task in load_dataset(path, args.data_root)):
        rows += rows_of(segmenter, task, args.queries, ensembles, args.seed)
    if len(rows) < 2:
        raise InputError("fewer than two queries; give data sets with images in their dev split")
    summary = summarise(rows)
    bad = sum(float(row["dice"]) < BAD_DICE for row in rows)
    print(
        f"{len(rows)} queries, {bad} of Dice under {BAD_DICE}; K = {args.members}, S = {args.support_size}, "
        f"{segmenter.runner.name}"
    )
    print("| candidate | AUROC | Spearman |\n| --- | ---: | ---: |")
    for name, figures in summary.items():
        cells = (f"{figures[key]:.3f} ± {figures[f'{key}_sd']:.3f}" for key in ("auroc", "spearman"))
        print(f"| {name} | {' | '.join(cells)} |")
    if args.output:
        with write_file(args.output) as file:
            file.write((json.dumps({"summary": summary, "rows": rows}, indent=2) + "\n").encode())
    return 0


def main(arguments: list[str] | None = None) -> int:
    p = argparse.ArgumentParser(
        prog=PROGRAM,
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_study_options(p, 19)
    p.add_argument("--runner", default="auto")
    p.add_argument("--members", type=int, default=5, help="K (5)")
    return run_command(_main, p, arguments)


if __name__ == "__main__":
    sys.exit(main())
