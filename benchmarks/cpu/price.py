"""What a static task's price, known beforehand, tells of the Dice that it loses on queries, and what `auto` would take.

    python -m universeg_rt.benchmarks.cpu.price training/data_sets/{train,tune}/*.yaml --data-root DATA

Each task is frozen from supports of --support-size entries, and exact and static answer up to --queries images of the
dev split. `auto` takes static where the loss on entries left out is at most --max-loss; here the loss is of Dice alone.
The table says how many it takes, what they lose on queries in the mean and at most, and how many lose more than four
points; the same of all, and of a rule that asks for more: that the masks of exact and static agree. All are marked from
0.5 on. Beside it stand the rank correlation of price and loss, and what the thresholds gain that `threshold="choose"`
takes, with which the masks' agreement is measured too.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator

import numpy as np

from universeg_rt import Segmenter
from universeg_rt.answers.thresholds import CHOOSE, THRESHOLD
from universeg_rt.benchmarks.cpu.quality import (
    FAR,
    Row,
    add_study_options,
    made_with,
    rows_of_tasks,
    supports_to_freeze,
)
from universeg_rt.cli.common import importing, run_command
from universeg_rt.errors import InputError
from universeg_rt.imaging.metrics import dice, rank_correlation

PROGRAM = "universeg_rt.benchmarks.cpu.price"
AGREE = 0.9  # Dice between exact and static

with importing(__name__, PROGRAM):
    from universeg_rt.training.evaluation.figures import seeded
    from universeg_rt.training.tasks.tasks import Task

DICE = ("exact from 0.5", "static from 0.5", "exact", "static")  # on queries


def rows_of(segmenter: Segmenter, task: Task, size: int, queries: int, draws: int, seed: int) -> Iterator[Row]:
    """The price and the loss on queries, for each of `draws` supports that can be priced."""
    for draw, support in supports_to_freeze(segmenter, task, size, draws, seed):
        dev = task.split("dev")
        chosen = seeded(task.name, seed, "queries").permutation(len(dev))[:queries]
        with segmenter.prepare(support) as exact, exact.freeze(kind="static", threshold=CHOOSE) as static:
            price = static.price
            if price.exact_at_half is None or price.static_at_half is None or price.agreement is None:
                continue
            scores = []
            for image, truth in ((dev.images[i], dev.labels[i] > 0) for i in chosen):
                exactly, found = exact.predict(image).probability, static.predict(image).probability
                scores.append([dice(exactly >= THRESHOLD, truth), dice(found >= THRESHOLD, truth),
                               dice(exactly >= price.exact_threshold, truth),
                               dice(found >= price.static_threshold, truth)])
        yield {"task": task.name, "draw": draw, "price": price.exact_at_half - price.static_at_half,
               "agreement": price.agreement, **dict(zip(DICE, map(float, np.mean(scores, axis=0)))),
               "exact threshold": price.exact_threshold,
               "static threshold": price.static_threshold, "queries": len(scores)}


def table(rows: list[Row], most: float) -> str:
    """Markdown: a row a rule; then the rank correlation of price and loss, where there is one."""
    price, agreement, exact, static, exact_taken, static_taken = (
        np.array([float(row[key]) for row in rows]) for key in ("price", "agreement", *DICE))
    lost, everyone = exact - static, np.full(len(rows), True)
    lines = ["| static is taken | of | lost on queries | at most | more than four points |",
             "| --- | ---: | ---: | ---: | ---: |"]
    for rule, taken in (("always", everyone), ("**by its price** (`auto`)", price <= most),
                        (f"by its price, and masks agree by {AGREE}", (price <= most) & (agreement >= AGREE))):
        some = lost[taken]
        cells = [f"{some.mean():.3f}", f"{some.max():.3f}"] if len(some) else ["-", "-"]
        lines.append(f"| {rule} | {len(some)} of {len(rows)} | " + " | ".join([*cells, str((some > FAR).sum())]) + " |")
    for kind, gained in (("exact", exact_taken - exact), ("static", static_taken - static)):
        chosen = np.array([row[f"{kind} threshold"] != THRESHOLD for row in rows])
        said = f": {gained[chosen].mean():+.3f} Dice, at worst {gained[chosen].min():+.3f}" if chosen.any() else ""
        lines.append(f"\nAnother threshold of {kind} than {THRESHOLD:g} for {chosen.sum()} of {len(rows)}{said}.")
    if len(rows) > 2:
        lines.append(f"\nRank correlation of price and loss: {rank_correlation(price, lost):.2f}")
    return "\n".join(lines)


def _main(args: argparse.Namespace) -> int:
    segmenter = Segmenter.open(args.bundle, threads=args.threads)
    rows = rows_of_tasks(args, lambda task: rows_of(
        segmenter, task, args.support_size, args.queries, args.draws, args.seed))
    if not rows:
        raise InputError("no task has a support that can be priced: three entries, and three subjects in all")
    print(f"{len(rows)} supports of up to {args.support_size} entries, {len({row['task'] for row in rows})} tasks, "
          f"{args.max_loss:g} may be lost, {made_with(segmenter)}\n\n{table(rows, args.max_loss)}")
    return 0


def main(arguments: list[str] | None = None) -> int:
    p = argparse.ArgumentParser(prog=PROGRAM, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_study_options(p, 8)
    p.add_argument("--max-loss", type=float, default=0.01, help="as `Task.freeze` (0.01)")
    return run_command(_main, p, arguments)


if __name__ == "__main__":
    sys.exit(main())
