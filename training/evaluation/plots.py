"""Pictures of an evaluation: Dice of every task beside its baselines, or the mean against support size."""

from __future__ import annotations

from pathlib import Path

from universeg_rt.training.evaluation.figures import figure, over_sizes, save
from universeg_rt.training.evaluation.measure import BASELINES

MARKS = dict(zip(BASELINES, ("d", "s")))
LINES = dict(zip(BASELINES, ("--", ":")))
GREYS = dict(zip(BASELINES, ("0.35", "0.65")))
APART = 1.03  # of sizes, so that the intervals of several lines do not cover each other
BELOW = 0.2  # of a row, between what stands in it


def plot(summary: dict, path: Path) -> None:
    """Curves where there are several support sizes (paper Fig. 7 and 9), else a row for each task."""
    if len({c["support_size"] for c in summary["overall"]["cells"]}) > 1:
        _curves(summary, path)
    else:
        _tasks(summary, path)


def _curves(summary: dict, path: Path) -> None:
    """Mean over data sets, a colour for each K and way, with its baselines broken; an interval where there is one."""
    drawn, axes = figure()
    cells, lines = summary["overall"]["cells"], 0
    for count in dict.fromkeys(c["members"] for c in cells):
        mine = [c for c in cells if c["members"] == count]
        for method in mine[0]["methods"]:
            figures, sizes = [c["methods"][method] for c in mine], [c["support_size"] for c in mine]
            score, label = [f["dice"] for f in figures], f"{method}, K = {count}"
            if method in BASELINES:
                axes.plot(sizes, score, LINES[method], marker=MARKS[method], markersize=4, color=f"C{lines - 1}",
                          alpha=0.6, label=label)
            else:
                axes.errorbar([s * APART**lines for s in sizes], score, _reach(figures), marker="o", capsize=3,
                              color=f"C{lines}", label=label)
                lines += 1
    axes.set(xlabel="support size S", ylabel="Dice, mean over data sets (95 % interval)")
    over_sizes(axes, [c["support_size"] for c in cells])
    save(drawn, axes, path)


def _tasks(summary: dict, path: Path) -> None:
    """Dice of every task with its interval, the best task first, for the last K; hollow where it is not above its
    baselines."""
    rows = sorted(((name, e["subjects"], e["cells"][-1]["methods"]) for name, e in summary["tasks"].items()),
                  key=lambda row: next(iter(row[2].values()))["dice"])
    drawn, axes = figure(7, 1.4 + 0.42 * len(rows))
    places = range(len(rows))
    for number, method in enumerate(rows[0][2]):
        figures = [row[2][method] for row in rows]
        score = [f["dice"] for f in figures]
        if method in BASELINES:
            axes.scatter(score, [p - BELOW for p in places], marker=MARKS[method], color=GREYS[method], s=22,
                         label=method, zorder=3)
            continue
        color, shift = f"C{number}", [p + BELOW * number for p in places]
        axes.errorbar(score, shift, xerr=_reach(figures), linestyle="", color=color, capsize=3, zorder=2)
        hollow = ["white" if f["verdict"] != "above" else color for f in figures]
        axes.scatter(score, shift, c=hollow, edgecolors=color, s=42, zorder=4)
        axes.scatter([], [], c=color, s=42, label=method)
    axes.scatter([], [], c="white", edgecolors="0.2", s=42, label="not shown to be above both")
    axes.set_yticks(places, [f"{name} ({subjects})" for name, subjects, _ in rows])
    axes.set(xlim=(-0.02, 1.02), xlabel="Dice with its 95 % interval over subjects (their number in brackets)")
    save(drawn, axes, path)


def _reach(figures: list[dict]) -> list[list[float]]:
    """Below and above each mean, nothing where there is no interval."""
    return [[0.0 if f[end] is None else abs(f[end] - f["dice"]) for f in figures] for end in ("low", "high")]
