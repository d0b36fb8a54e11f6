"""How many faults planted into labelled examples `universeg-support show` finds, and how often it suspects what is
right.

Of each task up to --entries examples are drawn, each with a fault at a time: its label inverted, turned, or moved, or
its image replaced by one of another task. A fault that leaves the label nearly as it is (Dice above 0.8) is none and
does not count. The other entries stay as they are.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from universeg_rt.cli.common import importing, run_command

with importing(__name__, "universeg_rt.training.evaluation.planted"):
    import numpy as np

    from universeg_rt import Segmenter, SupportSet
    from universeg_rt.errors import InputError
    from universeg_rt.imaging.metrics import dice
    from universeg_rt.left_out import others, predicted
    from universeg_rt.supports.inspect import MOVED, SUPPORT_SIZE, TURNS, against, other_modality
    from universeg_rt.training.evaluation.figures import seeded
    from universeg_rt.training.evaluation.protocol import check_closed, files_of
    from universeg_rt.training.tasks.datasets import add_data_root, load_datasets

SAME = 0.8  # Dice of a changed label with what it was
STEPS = (12, 24)  # pixels by which a label is moved
MODALITY, NONE, INVERTED = "other modality", "none", "inverted"


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(prog="python -m universeg_rt.training.evaluation.planted", description=__doc__,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("datasets", type=Path, nargs="*", help="YAML files of data sets")
    p.add_argument("--group", default="tune", help="all data sets of a group (tune)")
    add_data_root(p)
    p.add_argument("--tasks", nargs="+", metavar="NAME", help="only these")
    p.add_argument("--entries", type=int, default=16, help="examples of a task (16)")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--threads", type=int)
    return p


def main(arguments: list[str] | None = None) -> int:
    return run_command(_main, parser(), arguments)


def _main(args: argparse.Namespace) -> int:
    files = files_of(args.group if not args.datasets else None, args.datasets)
    check_closed(files)
    tasks = [t for t in load_datasets(files, args.data_root) if not args.tasks or t.name in args.tasks]
    if not tasks:
        raise InputError("no task of that name is in the data sets")
    segmenter = Segmenter.open(threads=args.threads)
    drawn = {}
    for task in tasks:
        order = seeded(task.name, args.seed, "planted").permutation(len(task))[: args.entries]
        drawn[task.name] = SupportSet.from_arrays(task.images[order], task.labels[order]).on_grid(
            segmenter.grid, "stretch")
    found: Counter[tuple[str, str]] = Counter()
    for name in drawn:
        rng = seeded(name, args.seed, "faults")
        for fault, seen in (*_labels(segmenter, drawn[name], rng), *_images(drawn, name, rng)):
            found[fault, "planted"] += 1
            found[fault, "suspected"] += bool(seen)
            found[fault, "named"] += fault in seen
    print(_table(found, len(tasks)))
    return 0


def _labels(segmenter: Segmenter, entries: np.ndarray, rng: np.random.Generator) -> Iterator[tuple[str, list[str]]]:
    """(fault, kinds suspected) of each entry's label as it is and with each fault."""
    areas = entries[:, 1].mean(axis=(1, 2))
    for i, (_, label) in enumerate(entries):
        label = label >= 0.5
        chosen = others(entries[:, 0], i, SUPPORT_SIZE, rng)
        probability = predicted(segmenter.runner, entries, i, chosen)
        for fault, given in {NONE: label, **label_faults(label, rng)}.items():
            kinds = [each.kind for each in against(given, probability, np.delete(areas, i))]
            yield fault, [fault if fault.startswith(kind) else kind for kind in kinds]


def label_faults(label: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """By fault a label (H,W) bool with it: inverted, turned, or moved; without those that leave it nearly as it is, or
    change the shape of one that is not square."""
    angle = rng.uniform(0, 2 * np.pi)
    changed = {INVERTED: ~label, **{name: turn(label) for name, turn in TURNS.items()}}
    for step in STEPS:
        moved = np.roll(label, (round(step * np.sin(angle)), round(step * np.cos(angle))), (0, 1))
        changed[f"{MOVED} by {step}"] = moved
    return {fault: given for fault, given in changed.items()
            if given.shape == label.shape and dice(given, label) <= SAME}


def _images(drawn: dict[str, np.ndarray], name: str, rng: np.random.Generator) -> Iterator[tuple[str, list[str]]]:
    """The same of images: as they are, and each in turn replaced by one of another task."""
    images = drawn[name][:, 0]
    right = other_modality(images)
    foreign = [other for other in drawn if other.split("_")[0] != name.split("_")[0]]
    for i in range(len(images)):
        yield f"{NONE}, of images", [MODALITY] * (i in right)
        if foreign:
            strange = drawn[foreign[rng.integers(len(foreign))]][:, 0]
            changed = images.copy()
            changed[i] = strange[rng.integers(len(strange))]
            yield MODALITY, [MODALITY] * (i in other_modality(changed))


def _table(found: Counter[tuple[str, str]], tasks: int) -> str:
    lines = [f"| fault, {tasks} tasks | planted | suspected | named rightly |", "| --- | ---: | ---: | ---: |"]
    for fault in dict.fromkeys(fault for fault, _ in found):
        planted, suspected, named = (found[fault, what] for what in ("planted", "suspected", "named"))
        right = "" if fault.startswith(NONE) else f"{named / planted:.0%}"
        lines.append(f"| {fault} | {planted} | {suspected / planted:.0%} | {right} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
