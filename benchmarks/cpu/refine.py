"""What a closer look gives: `Task.refine` beside the task as it is, on real tasks.

    python -m universeg_rt.benchmarks.cpu.refine training/data_sets/tune/*.yaml --data-root DATA

Queries are the dev split's images, supports of S entries are drawn from the support split. For each task: mean Dice as
it is (`off`), in a window around the first mask, with the threshold that entries left out choose, as `auto` chooses,
and in a window around the true label, as a user would give it; what `auto` took, and what it expected. Beside them what
needs no network: the atlas. Gains have 95 % intervals over subjects.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter

import numpy as np

from universeg_rt import Ensemble, Segmenter, SupportSet
from universeg_rt.answers.thresholds import THRESHOLD
from universeg_rt.benchmarks.cpu.quality import Row, add_study_options, made_with, mean_text
from universeg_rt.cli.common import importing, run_command
from universeg_rt.imaging.metrics import dice
from universeg_rt.storage.atomic import write_json

PROGRAM = "universeg_rt.benchmarks.cpu.refine"

with importing(__name__, PROGRAM):
    from universeg_rt import refining
    from universeg_rt.training.evaluation.baselines import atlas
    from universeg_rt.training.evaluation.figures import seeded
    from universeg_rt.training.tasks.datasets import load_datasets
    from universeg_rt.training.tasks.tasks import Task

HOWS = ("off", "window", "threshold", "auto", "true window", "atlas")


def rows_of(segmenter: Segmenter, task: Task, size: int, queries: int, draws: int, seed: int) -> list[Row]:
    """Dice of each way for up to `queries` dev images, with each of `draws` supports."""
    dev, pool = task.split("dev"), task.split("support")
    chosen = seeded(task.name, seed, "queries").permutation(len(dev))[:queries]
    images, truths = dev.images[chosen], dev.labels[chosen] > 0
    rows: list[Row] = []
    for draw in range(draws):
        entries = seeded(task.name, seed, f"support {draw}").permutation(len(pool))[:size]
        support = SupportSet.from_arrays(pool.images[entries], pool.labels[entries])
        prepared = segmenter.prepare(support)
        left = refining.measure(prepared, segmenter, support, Ensemble(), seed)
        taken, cut = refining.decide(left, "auto"), refining.decide(left, "threshold")
        window = prepared.refine("window")
        placed = prepared.place(images)
        off = prepared.predict_placed(placed)
        again = window.look_again(placed, off, THRESHOLD)
        true = window.predict_in(images, list(truths))
        share, best = atlas(pool.labels[entries] > 0, Ensemble().draw(len(entries)))
        for i, truth in enumerate(truths):
            scores = {
                "off": dice(off[i].mask, truth), "window": dice(again[i].mask, truth),
                "threshold": dice(off[i].probability >= cut.threshold, truth),
                "true window": dice(true[i].mask, truth), "atlas": dice(share >= best, truth),
            }
            rows.append({"task": task.name, "unit": f"{task.name}/{dev.subjects[chosen[i]]}", "draw": draw, **scores,
                         "auto": scores[taken.kind], "took": taken.kind, "threshold taken": cut.threshold,
                         **{f"expected {k}": taken.dice[k] - taken.dice["off"] for k in ("window", "threshold")}})
    return rows


def table(rows: list[Row]) -> str:
    """Markdown: a row a task and one for all; gains over `off` with their intervals."""
    lines = ["| task | " + " | ".join(HOWS) + " | auto took | window, expected and found | threshold, likewise |",
             "| --- |" + " ---: |" * (len(HOWS) + 3)]
    names = list(dict.fromkeys(row["task"] for row in rows))

    def mean(part: list[Row], how: str) -> float:
        return float(np.mean([row[how] for row in part]))

    for name in names:
        part = [row for row in rows if row["task"] == name]
        took = Counter(row["took"] for row in {row["draw"]: row for row in part}.values())
        cells = [f"{mean(part, how):.3f}" for how in HOWS]
        cells.append(", ".join(f"{kind} {count}" for kind, count in took.most_common()))
        cells += [f"{mean(part, f'expected {kind}'):+.3f}, {mean(part, kind) - mean(part, 'off'):+.3f}"
                  for kind in ("window", "threshold")]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    # Each task counts alike, and its subjects within it.
    means = {how: np.mean([mean([r for r in rows if r["task"] == n], how) for n in names]) for how in HOWS}
    lines.append("| **mean of tasks** | " + " | ".join(f"{means[how]:.3f}" for how in HOWS) + " | | | |")
    units = [str(row["unit"]) for row in rows]
    gains = [f"{how} {mean_text([float(row[how]) - float(row['off']) for row in rows], units, sign='+')}"
             for how in HOWS[1:]]
    return "\n".join(lines) + "\n\nGain over off, mean of images: " + "; ".join(gains)


def _main(args: argparse.Namespace) -> int:
    segmenter = Segmenter.open(args.bundle, threads=args.threads)
    rows = [row for task in load_datasets(args.datasets, args.data_root)
            for row in rows_of(segmenter, task, args.support_size, args.queries, args.draws, args.seed)]
    print(f"{len(rows)} answers, S = {args.support_size}, {args.draws} supports a task, {made_with(segmenter)}")
    print(table(rows))
    if args.output:
        write_json(args.output, rows)
    return 0


def main(arguments: list[str] | None = None) -> int:
    p = argparse.ArgumentParser(prog=PROGRAM, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_study_options(p, 12)
    return run_command(_main, p, arguments)


if __name__ == "__main__":
    sys.exit(main())
