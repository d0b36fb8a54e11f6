"""What `universeg-support prune` gives: Dice with the entries that it leaves, on real tasks.

    python -m universeg_rt.benchmarks.cpu.pruned training/data_sets/tune/*.yaml --data-root DATA

Of each task a support of --support-size entries is drawn from the support split, as it is, and with a fault planted
into the labels of some (--faulty of them: inverted, turned, or moved). Dice of the dev split's images with all entries,
with those that `prune` leaves, with as many drawn at random, and without the planted ones, as who knows them would do;
and the atlas of all, and of those left, which need no network. Gains have 95 % intervals over subjects.
"""

from __future__ import annotations

import argparse
import sys

import numpy as np

from universeg_rt import Ensemble, Segmenter, SupportSet
from universeg_rt.benchmarks.cpu.quality import Row, add_study_options, made_with, mean_text, rows_of_tasks
from universeg_rt.cli.common import importing, run_command
from universeg_rt.errors import InputError
from universeg_rt.imaging.metrics import dice
from universeg_rt.supports.prune import LEAST, prune

PROGRAM = "universeg_rt.benchmarks.cpu.pruned"

with importing(__name__, PROGRAM):
    from universeg_rt.training.evaluation.baselines import atlas
    from universeg_rt.training.evaluation.figures import seeded
    from universeg_rt.training.evaluation.planted import label_faults
    from universeg_rt.training.tasks.tasks import Task

AS_IT_IS, FAULTY = "as it is", "with faults"
WAYS = ("all", "pruned", "at random", "without faults", "atlas", "atlas pruned")


def rows_of(
    segmenter: Segmenter, task: Task, size: int, queries: int, draws: int, share: float, seed: int
) -> list[Row]:
    """Dice of each way for up to `queries` dev images, with each of `draws` supports; none for a task of too few
    entries."""
    dev, pool = task.split("dev"), task.split("support")
    chosen = seeded(task.name, seed, "queries").permutation(len(dev))[:queries]
    rows: list[Row] = []
    if min(size, len(pool)) <= LEAST:
        return rows
    for draw in range(draws):
        rng = seeded(task.name, seed, f"prune {draw}")
        entries = rng.permutation(len(pool))[:size]
        images, right = pool.images[entries], pool.labels[entries] > 0
        wrong = _spoiled(right, round(share * len(entries)), rng)
        for kind, labels in ((AS_IT_IS, right), (FAULTY, wrong)):
            spoiled = [i for i in range(len(entries)) if (labels[i] != right[i]).any()]
            names = [str(i) for i in range(len(entries))]
            found = prune(SupportSet.from_arrays(images, labels, names), segmenter, seed=seed)
            gone = [int(each.name) for each in found.dropped]
            without = {"all": [], "pruned": gone, "at random": list(rng.permutation(len(entries))[: len(gone)]),
                       "without faults": spoiled}
            scores = {way: _scores(segmenter, images, labels, out, dev, chosen) for way, out in without.items()}
            scores["atlas"] = _atlas(labels, [], dev, chosen)
            scores["atlas pruned"] = _atlas(labels, gone, dev, chosen)
            rows += [{"task": task.name, "unit": f"{task.name}/{dev.subjects[q]}", "draw": draw, "support": kind,
                      "entries": len(entries), "faults": len(spoiled), "dropped": len(gone),
                      "dropped rightly": len(set(gone) & set(spoiled)),
                      **{way: scores[way][place] for way in WAYS}} for place, q in enumerate(chosen)]
    return rows


def _spoiled(labels: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Labels (N,H,W) of which `count` have one of the faults that change them."""
    out = labels.copy()
    for i in rng.permutation(len(labels))[:count]:
        if faults := list(label_faults(labels[i], rng).values()):
            out[i] = faults[rng.integers(len(faults))]
    return out


def _kept(count: int, out: list[int]) -> list[int]:
    return [i for i in range(count) if i not in out]


def _scores(segmenter: Segmenter, images: np.ndarray, labels: np.ndarray, out: list[int], dev: Task,
            chosen: np.ndarray) -> list[float]:
    kept = _kept(len(images), out)
    with segmenter.prepare(SupportSet.from_arrays(images[kept], labels[kept])) as task:
        found = task.predict_batch(dev.images[chosen])
    return [dice(each.mask, truth > 0) for each, truth in zip(found, dev.labels[chosen])]


def _atlas(labels: np.ndarray, out: list[int], dev: Task, chosen: np.ndarray) -> list[float]:
    kept = labels[_kept(len(labels), out)]
    share, threshold = atlas(kept, Ensemble().draw(len(kept)))
    return [dice(share >= threshold, truth > 0) for truth in dev.labels[chosen]]


def table(rows: list[Row]) -> str:
    """Markdown: a row a task and kind of support, and one for all of a kind; then the gains with their intervals."""
    lines = ["| support | " + " | ".join(WAYS) + " | entries | faults | dropped | of them faults |",
             "| --- |" + " ---: |" * (len(WAYS) + 4)]
    gains = []
    for kind in (AS_IT_IS, FAULTY):
        of_kind = [row for row in rows if row["support"] == kind]
        for name in dict.fromkeys(str(row["task"]) for row in of_kind):
            lines.append(_line(f"{name}, {kind}", [row for row in of_kind if row["task"] == name]))
        lines.append(_line(f"**all images, {kind}**", of_kind))
        units = [str(row["unit"]) for row in of_kind]
        for way, to in (("pruned", "all"), ("pruned", "at random"), ("without faults", "all"),
                        ("atlas pruned", "atlas")):
            values = [float(row[way]) - float(row[to]) for row in of_kind]
            gains.append(f"- {kind}: {way} over {to} {mean_text(values, units, sign='+')}")
    return "\n".join([*lines, "", *gains])


def _line(name: str, rows: list[Row]) -> str:
    supports = list({(row["task"], row["draw"]): row for row in rows}.values())
    cells = [f"{np.mean([float(row[way]) for row in rows]):.3f}" for way in WAYS]
    cells += [str(sum(int(row[key]) for row in supports)) for key in ("entries", "faults", "dropped",
                                                                     "dropped rightly")]
    return f"| {name} | " + " | ".join(cells) + " |"


def _main(args: argparse.Namespace) -> int:
    if not 0 <= args.faulty <= 0.5:
        raise InputError(f"--faulty is {args.faulty:g}; accepted: 0 to 0.5, a share of the entries")
    segmenter = Segmenter.open(args.bundle, threads=args.threads)
    rows = rows_of_tasks(args, lambda task: rows_of(
        segmenter, task, args.support_size, args.queries, args.draws, args.faulty, args.seed))
    if not rows:
        raise InputError(f"every task has at most {LEAST} entries to draw, which prune keeps; give larger ones")
    print(f"{len(rows)} answers, {args.draws} supports of up to {args.support_size} entries a task, "
          f"{made_with(segmenter)}\n\n{table(rows)}")
    return 0


def main(arguments: list[str] | None = None) -> int:
    p = argparse.ArgumentParser(prog=PROGRAM, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_study_options(p, 12)
    p.add_argument("--faulty", type=float, default=0.2, help="share of the entries that a fault is planted into (0.2)")
    return run_command(_main, p, arguments)


if __name__ == "__main__":
    sys.exit(main())
