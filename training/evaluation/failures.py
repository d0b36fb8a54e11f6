"""Where a bundle fails: its worst images of every task, what they have in common, as a table and a sheet of pictures.

Each image of the dev split is segmented once with one support set (no ensemble) and described by what is known of its
target; the worst third of a task is set against the rest. Pictures are drawn of the tasks that `--show` names: whoever
publishes a sheet needs the right to show their images. Data sets of the group report are refused.
"""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from universeg_rt import Segmenter, SupportSet
from universeg_rt.cli.common import importing, run_command
from universeg_rt.errors import InputError
from universeg_rt.imaging.metrics import dice, rank_correlation
from universeg_rt.storage.atomic import write_file

PROGRAM = "python -m universeg_rt.training.evaluation.failures"

with importing(__name__, PROGRAM):
    import torch

    from universeg_rt.training.episodes.augment import dilate, erode
    from universeg_rt.training.evaluation.figures import seeded
    from universeg_rt.training.evaluation.protocol import check_closed
    from universeg_rt.training.evaluation.sheet import draw_sheet
    from universeg_rt.training.tasks.datasets import load_dataset
    from universeg_rt.training.tasks.score import mask_of
    from universeg_rt.training.tasks.tasks import Task

FACTS = {
    "size": "target's share of the image",
    "contrast": "grey inside the target less grey of a ring 3 pixels wide around it, without its sign, image in [0, 1]",
    "noise": "standard deviation in that ring over the contrast",
    "thin": "share of the target within a pixel of its rim",
    "overlap": "greatest Dice of the target with a support entry's mask: how far copying gets",
    "polarity": "share of support entries whose target is brighter, or darker, than its ring, as the query's is",
}


@dataclass(frozen=True)
class Case:
    """One query: images (H,W) in [0, 1], masks (H,W) bool, one entry of its support, Dice and facts."""

    task: str
    image: np.ndarray
    truth: np.ndarray
    predicted: np.ndarray
    support_image: np.ndarray
    support_mask: np.ndarray
    dice: float
    facts: dict[str, float]


def cases_of(segmenter: Segmenter, task: Task, support_size: int, queries: int | None, seed: int) -> list[Case]:
    """Dev images of a task, each with its own support of up to `support_size` entries of the support split."""
    pool, asked = task.split("support"), task.split("dev")
    out = []
    for query in seeded(task.name, seed, "queries").permutation(len(asked))[:queries]:
        picks = seeded(task.name, seed, f"support of {query}").permutation(len(pool))[:support_size]
        support = pool.select(picks)
        prepared = segmenter.prepare(SupportSet.from_arrays(support.images, support.labels))
        predicted = mask_of(prepared.member_probabilities(asked.images[query]))
        image, truth = scaled(asked.images[query]), asked.labels[query] > 0
        out.append(Case(task.name, image, truth, predicted, scaled(support.images[0]), support.labels[0] > 0,
                        dice(predicted, truth), facts_of(image, truth, support)))
    return out


def facts_of(image: np.ndarray, truth: np.ndarray, support: Task) -> dict[str, float]:
    """The values of FACTS for an image (H,W) in [0, 1] and its target (H,W) bool."""
    step, noise = contrast(image, truth)
    others = [contrast(scaled(i), m > 0)[0] for i, m in zip(support.images, support.labels)]
    mask = torch.from_numpy(truth)[None, None].float()
    return {
        "size": float(truth.mean()),
        "contrast": abs(step),
        "noise": noise / max(abs(step), 1e-3),
        "thin": 1.0 - float(erode(mask, 1).sum() / mask.sum()),
        "overlap": max(dice(truth, m > 0) for m in support.labels),
        "polarity": float(np.mean([(o > 0) == (step > 0) for o in others])),
    }


def contrast(image: np.ndarray, mask: np.ndarray) -> tuple[float, float]:
    """Mean of image (H,W) within the mask less the mean of a ring 3 pixels wide, and that ring's standard deviation."""
    ring = (dilate(torch.from_numpy(mask)[None, None].float(), 3)[0, 0].numpy() > 0) & ~mask
    if not ring.any() or not mask.any():
        return 0.0, 0.0
    return float(image[mask].mean() - image[ring].mean()), float(image[ring].std())


def scaled(image: np.ndarray) -> np.ndarray:
    """(H,W) to [0, 1] by its own least and largest value."""
    image = image.astype(np.float64)
    return (image - image.min()) / max(image.max() - image.min(), 1e-9)


def common_table(cases: list[Case]) -> str:
    """Markdown: for each task the median facts of the worst third | of the rest; below, each fact's rank correlation
    with Dice over tasks (of their means) and within tasks (mean over tasks with 5 images or more)."""
    tasks = list(dict.fromkeys(c.task for c in cases))
    lines = [
        "| task | images | Dice, worst third / rest | " + " | ".join(FACTS) + " |",
        "| --- | ---: | ---: |" + " ---: |" * len(FACTS)
    ]
    within: dict[str, list[float]] = {fact: [] for fact in FACTS}
    for task in tasks:
        mine = sorted((c for c in cases if c.task == task), key=lambda c: c.dice)
        worst, rest = mine[: max(1, len(mine) // 3)], mine[max(1, len(mine) // 3) :] or mine
        cells = [f"{np.mean([c.dice for c in part]):.2f}" for part in (worst, rest)]
        pairs = [" / ".join(f"{np.median([c.facts[f] for c in part]):.2g}" for part in (worst, rest)) for f in FACTS]
        lines.append(f"| {task} | {len(mine)} | {' / '.join(cells)} | " + " | ".join(pairs) + " |")
        if len(mine) >= 5:
            for fact in FACTS:
                within[fact].append(rank_correlation([c.facts[fact] for c in mine], [c.dice for c in mine]))

    def mean(of: str, task: str) -> float:
        return float(np.mean([c.dice if of == "dice" else c.facts[of] for c in cases if c.task == task]))

    over = [
        rank_correlation([mean(f, t) for t in tasks], [mean("dice", t) for t in tasks]) if len(tasks) > 2 else np.nan
        for f in FACTS
    ]
    inside = [np.nanmean(within[f]) if np.isfinite(within[f]).any() else np.nan for f in FACTS]
    for name, values in (("rank correlation with Dice, over tasks", over), ("rank correlation with Dice, within tasks",
                                                                            inside)):
        lines.append(f"| {name} | | | " + " | ".join("–" if np.isnan(v) else f"{v:+.2f}" for v in values) + " |")
    return "\n".join(lines)


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(prog=PROGRAM, description=__doc__,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("datasets", type=Path, nargs="+", help="YAML files of data sets")
    p.add_argument("--data-root", default=os.environ.get("UNIVERSEG_RT_DATA", ""))
    p.add_argument("--bundle", type=Path, help="bundle folder (the shipped one)")
    p.add_argument("--runner", default="auto")
    p.add_argument("--precision", default="auto")
    p.add_argument("--threads", type=int)
    p.add_argument("--support-size", type=int, default=16)
    p.add_argument("--queries", type=int, default=10, help="at most so many dev images a task")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--show", nargs="*", default=[], metavar="TASK", help="tasks drawn on the sheet")
    p.add_argument("--worst", type=int, default=3, help="cases of each on the sheet")
    p.add_argument("--sheet", type=Path, help="PNG file for the pictures")
    p.add_argument("--table", type=Path, help="markdown file for the table, which is also printed")
    return p


def main(arguments: list[str] | None = None) -> int:
    return run_command(_main, parser(), arguments)


def _main(args: argparse.Namespace) -> int:
    if not args.data_root:
        raise InputError("say where the data sets' files are with --data-root or UNIVERSEG_RT_DATA")
    if min(args.support_size, args.queries, args.worst) < 1:
        raise InputError("support-size, queries and worst must be positive")
    check_closed(args.datasets)
    tasks = [task for path in args.datasets for task in load_dataset(path, args.data_root)]
    unknown = set(args.show) - {t.name for t in tasks}
    if unknown:
        raise InputError(f"no tasks {', '.join(sorted(unknown))} to show; there are {', '.join(t.name for t in tasks)}")
    segmenter = Segmenter.open(args.bundle, runner=args.runner, precision=args.precision, threads=args.threads)
    cases = [c for task in tasks for c in cases_of(segmenter, task, args.support_size, args.queries, args.seed)]
    text = common_table(cases) + "\n\n" + "\n".join(f"- {name}: {meaning}" for name, meaning in FACTS.items()) + "\n"
    print(text, end="")
    if args.table:
        with write_file(args.table) as file:
            file.write(text.encode())
    if args.sheet:
        rows = [sorted((c for c in cases if c.task == t), key=lambda c: c.dice)[: args.worst] for t in args.show]
        if not rows:
            raise InputError("a sheet needs --show with the tasks that may be drawn")
        draw_sheet(rows, args.sheet)
    return 0


if __name__ == "__main__":
    sys.exit(main())
