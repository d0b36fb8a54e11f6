"""Two results of `universeg-evaluate` against each other: the paired differences of Dice on the same queries.

For runs that differ in one choice, such as the policy by which entries are chosen, on the same data and queries.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from universeg_rt.cli.common import importing, run_command

with importing(__name__, "universeg_rt.training.evaluation.compare"):
    import numpy as np

    from universeg_rt.errors import InputError
    from universeg_rt.storage.reading import reading
    from universeg_rt.training.evaluation.intervals import interval
    from universeg_rt.training.evaluation.measure import Measured
    from universeg_rt.training.evaluation.record import read_measured
    from universeg_rt.training.evaluation.summary import dice_text


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(prog="python -m universeg_rt.training.evaluation.compare", description=__doc__,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("before", type=Path, help="JSON file of --output")
    p.add_argument("after", type=Path, nargs="+", help="others, of the same tasks, queries, S and K")
    p.add_argument("--method", default="exact", help="way of running or baseline (exact)")
    return p


def main(arguments: list[str] | None = None) -> int:
    return run_command(_main, parser(), arguments)


def _main(args: argparse.Namespace) -> int:
    print(comparison(args.before, args.after, args.method))
    return 0


def comparison(before: Path, after: list[Path], method: str) -> str:
    """Markdown: for each S and K and task the Dice of `before`, and of each other file its difference to it with the
    95 % interval over subjects; in the last row of each S and K the mean over data sets, with the interval over them.

    InputError where the files are not of the same tasks, queries, S and K, or lack the method.
    """
    cells, first = _read(before, method)
    others = []
    for path in after:
        other_cells, found = _read(path, method)
        if other_cells != cells or found.keys() != first.keys() or any(
                found[name].digest != each.digest or not np.array_equal(found[name].subjects, each.subjects)
                for name, each in first.items()):
            raise InputError(f"{path} is not of the same tasks, queries, S and K as {before}; evaluate with the same "
                             "options but one")
        others.append(found)
    lines = ["| | S | K | " + " | ".join([before.stem, *(f"{path.stem}: difference" for path in after)]) + " |",
             "| --- | ---: | ---: |" + " ---: |" * (1 + len(after))]
    for place, (size, count) in enumerate(cells):
        means: list[list[np.ndarray]] = []
        for name, task in first.items():
            base = _dice(task, method, place)
            differences = [_dice(found[name], method, place) - base for found in others]
            units = task.subjects[task.present]
            lines.append(_row(name, size, count, base, differences, units))
            means.append([np.array([v.mean()]) for v in (base, *differences)])
        datasets = np.array([task.dataset for task in first.values()])
        table = np.array(means)[:, :, 0]
        each = np.array([table[datasets == name].mean(axis=0) for name in dict.fromkeys(datasets)])
        if len(each) > 1:
            lines.append(_row("**mean over data sets**", size, count, each[:, 0], list(each[:, 1:].T),
                              np.arange(len(each))))
    return "\n".join(lines)


def _read(path: Path, method: str) -> tuple[list[tuple[int, int]], dict[str, Measured]]:
    """(S, K) of all cells, and what was measured by task."""
    with reading("the results of an evaluation", path):
        found = json.loads(path.read_text())
        protocol = found["setup"]["protocol"]
        cells = [(int(size), int(count)) for size in protocol["support_sizes"] for count in protocol["members"]]
        measured = {entry["task"]: read_measured(entry) for entry in found["measured"]}
    for name, each in measured.items():
        if method not in each.methods:
            raise InputError(f"{path}: task {name} has no {method!r}; it has {', '.join(each.methods)}")
    if not measured:
        raise InputError(f"{path} holds no task; evaluate to the end first")
    return cells, measured


def _dice(task: Measured, method: str, cell: int) -> np.ndarray:
    values: np.ndarray = task.values["dice"][task.present, task.methods.index(method), cell]
    return values


def _row(name: str, size: int, count: int, base: np.ndarray, differences: list[np.ndarray], units: np.ndarray) -> str:
    low, high = interval(base, units) or (None, None)
    texts = [dice_text(float(base.mean()), low and max(0.0, low), high and min(1.0, high))]
    texts += [dice_text(float(each.mean()), *(interval(each, units) or (None, None)), "+") for each in differences]
    return f"| {name} | {size} | {count} | " + " | ".join(texts) + " |"


if __name__ == "__main__":
    sys.exit(main())
