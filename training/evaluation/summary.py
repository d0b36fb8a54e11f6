"""From measures of queries to figures of tasks, data sets and all of them, with intervals and verdicts; as tables."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Sequence

import numpy as np

from universeg_rt.imaging.metrics import BAD_DICE, auroc, calibration_error
from universeg_rt.training.evaluation.intervals import LEAST, interval
from universeg_rt.training.evaluation.measure import ABSENT, BASELINES, Measured
from universeg_rt.training.evaluation.protocol import Protocol

ABOVE, NOT_ABOVE, TOO_FEW = "above", "not above", "too few subjects"
# Of a way on a task, beside its Dice: what a column is called and how it is printed.
MEASURES = {
    "median": ("median", ".3f"), "worst_decile": ("worst tenth", ".3f"), "hd95": ("HD95", ".1f"), "nsd": ("NSD", ".3f"),
    "area_error": ("area error", ".2f"), "ece": ("ECE", ".4f"), "auroc": ("AUROC", ".2f"), "failures": ("failed", "d"),
    ABSENT: ("false-positive area", ".4f"),
}
MEANINGS = f"""\
Dice: mean over queries with its 95 % interval over subjects ("-" under {LEAST} of them); worst tenth: mean of the worst
tenth of queries. HD95, NSD: 95 % Hausdorff distance, and surface Dice within 2 pixels, in pixels of the images;
an empty mask is as far as their diagonal. area error: median of the mask's area less the true one, without its sign, as
a share of the true one. ECE: calibration error of the probabilities over all pixels. failed: queries of Dice under
{BAD_DICE}; AUROC: how well the confidence tells them from the others. false-positive area: share of the image that is
marked where the target is absent. above: the 95 % intervals of the paired differences to the atlas and to the copy lie
above zero."""


def summarise(results: Sequence[Measured], protocol: Protocol) -> dict:
    """Figures of each task and data set and of the mean over data sets, for every S and K (`cells`) and method.

    A mean over a task's queries or a data set's tasks has the interval over its subjects, the mean over data sets that
    over data sets: None for fewer than three.
    """
    def cells(of: Callable[[int], dict]) -> list[dict]:
        return [{"support_size": s, "members": k, **of(i)} for i, (s, k) in enumerate(protocol.cells)]

    datasets: dict[str, list[Measured]] = {}
    for result in results:
        datasets.setdefault(result.dataset, []).append(result)
    return {
        "tasks": {r.task: {"dataset": r.dataset, "queries": int(r.present.sum()), "absent": int((~r.present).sum()),
                           "subjects": len(set(r.subjects[r.present])),
                           "cells": cells(lambda c, r=r: _compared([r], c, protocol.seed, _measures))}
                  for r in results},
        "datasets": {name: {"tasks": len(part), "cells": cells(lambda c, p=part: _compared(p, c, protocol.seed))}
                     for name, part in datasets.items()},
        "overall": {"datasets": len(datasets),
                    "cells": cells(lambda c: _overall(list(datasets.values()), c, protocol.seed))},
    }


def _compared(
    results: Sequence[Measured], cell: int, seed: int, more: Callable[[Measured, int, int], dict] | None = None
) -> dict:
    """Of the tasks of one data set: each method's figures, and each way's difference to the baselines and verdict."""
    methods = results[0].methods
    units = np.concatenate([r.subjects[r.present] for r in results])

    def figures(of: Callable[[Measured], np.ndarray]) -> dict:
        values, mean = _spread_out([of(r) for r in results])
        return _figures(mean, interval(values, units, seed))

    def dice_of(method: str) -> Callable[[Measured], np.ndarray]:
        return lambda r: r.values["dice"][r.present, methods.index(method), cell]

    found = {m: _within(figures(dice_of(m))) | (more(results[0], i, cell) if more else {})
             for i, m in enumerate(methods)}
    for way in _ways(methods):
        over = {b: figures(lambda r, b=b, way=way: dice_of(way)(r) - dice_of(b)(r)) for b in BASELINES}
        found[way] |= {"over": over, "verdict": _verdict(over)}
    return {"methods": found}


def _overall(datasets: list[list[Measured]], cell: int, seed: int) -> dict:
    """Of the mean over data sets; failures and AUROC over all queries of all tasks."""
    methods = datasets[0][0].methods
    means = {m: np.array([np.mean([r.values["dice"][r.present, i, cell].mean() for r in part]) for part in datasets])
             for i, m in enumerate(methods)}
    units = np.arange(len(datasets))

    def figures(values: np.ndarray) -> dict:
        return _figures(float(values.mean()), interval(values, units, seed))

    found = {m: _within(figures(values)) for m, values in means.items()}
    for way in _ways(methods):
        over = {b: figures(means[way] - means[b]) for b in BASELINES}
        score, confidence = (np.concatenate([r.values[name][r.present, methods.index(way), cell]
                                             for part in datasets for r in part]) for name in ("dice", "confidence"))
        found[way] |= {"over": over, "verdict": _verdict(over), "failures": int((score < BAD_DICE).sum()),
                       "auroc": _known(auroc(confidence, score < BAD_DICE))}
    return {"methods": found}


def _spread_out(tasks: list[np.ndarray]) -> tuple[np.ndarray, float]:
    """Values of all queries whose mean is the mean over tasks of their means, and that mean: each query counts by its
    influence on it."""
    mean, total = float(np.mean([t.mean() for t in tasks])), sum(map(len, tasks))
    return np.concatenate([mean + total / (len(tasks) * len(t)) * (t - t.mean()) for t in tasks]), mean


def _figures(mean: float, found: tuple[float, float] | None) -> dict:
    return {"dice": mean, "low": found and found[0], "high": found and found[1]}


def _within(figures: dict) -> dict:
    """With the interval of a Dice between 0 and 1, which Student's t does not know of."""
    if figures["low"] is None:
        return figures
    return figures | {"low": max(0.0, figures["low"]), "high": min(1.0, figures["high"])}


def _verdict(over: dict[str, dict]) -> str:
    lows = [figures["low"] for figures in over.values()]
    if None in lows:
        return TOO_FEW
    return ABOVE if min(lows) > 0 else NOT_ABOVE


def _ways(methods: Sequence[str]) -> list[str]:
    return [m for m in methods if m not in BASELINES]


def _measures(result: Measured, method: int, cell: int) -> dict:
    """MEASURES of one method of a task; None where there is nothing to measure."""
    values = {name: v[result.present, method, cell] for name, v in result.values.items()}
    score = np.sort(values["dice"])
    out = {"median": np.median(score), "worst_decile": score[: math.ceil(len(score) / 10)].mean(),
           "hd95": values["hd95"].mean(), "nsd": values["nsd"].mean(),
           "area_error": np.median(abs(values["area_error"])), "failures": int((score < BAD_DICE).sum())}
    if result.methods[method] not in BASELINES:
        out["ece"] = calibration_error(result.bins[method, cell])
        out["auroc"] = auroc(values["confidence"], values["dice"] < BAD_DICE)
    if not result.present.all():
        out[ABSENT] = result.values[ABSENT][~result.present, method, cell].mean()
    return {name: v if isinstance(v, int) else _known(v) for name, v in out.items()}


def _known(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def table(summary: dict) -> str:
    """Markdown: Dice of every method beside each other with its interval and the verdict; a row for each task, data set
    of several tasks, the mean over data sets, and S and K where there are several."""
    cells = summary["overall"]["cells"]
    methods, many = list(cells[0]["methods"]), len(cells) > 1
    ways = _ways(methods)
    head = ["", *["S", "K"] * many, "queries", "subjects", *methods,
            *(f"{w}: verdict" if len(ways) > 1 else "verdict" for w in ways)]
    lines = [_row(head), _row(["---", *["---:"] * (len(head) - 1 - len(ways)), *["---"] * len(ways)])]

    def rows(name: str, queries: object, subjects: object, found: list[dict]) -> None:
        for cell in found:
            size = [str(cell["support_size"]), str(cell["members"])] * many
            lines.append(_row([name, *size, str(queries), str(subjects),
                               *(_dice(cell["methods"][m]) for m in methods),
                               *(cell["methods"][w]["verdict"] for w in ways)]))

    for name, entry in summary["tasks"].items():
        rows(name, entry["queries"], entry["subjects"], entry["cells"])
    for name, entry in summary["datasets"].items():
        if entry["tasks"] > 1:
            rows(f"**{name}**, mean of its tasks", "", "", entry["cells"])
    if summary["overall"]["datasets"] > 1:
        rows("**mean over data sets**", "", "", cells)
    return "\n".join(lines)


def measures_table(summary: dict) -> str:
    """Markdown: MEASURES of the ways of running, a row for each task and way, and S and K where there are several."""
    many = len(summary["overall"]["cells"]) > 1
    shown = [m for m in MEASURES if any(m in figures for e in summary["tasks"].values() for c in e["cells"]
                                        for figures in c["methods"].values())]
    head = ["", *["S", "K"] * many, "way", *(MEASURES[m][0] for m in shown)]
    lines = [_row(head), _row(["---", *["---:"] * 2 * many, "---", *["---:"] * len(shown)])]
    for name, entry in summary["tasks"].items():
        for cell in entry["cells"]:
            size = [str(cell["support_size"]), str(cell["members"])] * many
            for way in _ways(list(cell["methods"])):
                figures = cell["methods"][way]
                lines.append(_row([name, *size, way, *(_number(figures.get(m), MEASURES[m][1]) for m in shown)]))
    if len(summary["tasks"]) > 1:
        for cell in summary["overall"]["cells"]:
            size = [str(cell["support_size"]), str(cell["members"])] * many
            for way in _ways(list(cell["methods"])):
                figures = cell["methods"][way]
                lines.append(_row(["**all queries**", *size, way, *(
                    _number(figures.get(m), MEASURES[m][1]) if m in figures else "" for m in shown)]))
    return "\n".join(lines)


def csv_text(summary: dict) -> str:
    """A row for each task, S, K and method with all its figures, baselines included; empty where there is none."""
    file = io.StringIO()
    fields = ["task", "dataset", "queries", "absent", "subjects", "support_size", "members", "method", "dice", "low",
              "high", *MEASURES, *(f"over_{b}{end}" for b in BASELINES for end in ("", "_low", "_high")), "verdict"]
    writer = csv.DictWriter(file, fields, lineterminator="\n")
    writer.writeheader()
    for name, entry in summary["tasks"].items():
        shared = {"task": name, **{key: entry[key] for key in ("dataset", "queries", "absent", "subjects")}}
        for cell in entry["cells"]:
            for method, figures in cell["methods"].items():
                over = {f"over_{b}{end}": f[key] for b, f in figures.get("over", {}).items()
                        for end, key in (("", "dice"), ("_low", "low"), ("_high", "high"))}
                row = shared | {"support_size": cell["support_size"], "members": cell["members"], "method": method} | {
                    key: figures.get(key) for key in ("dice", "low", "high", *MEASURES, "verdict")} | over
                writer.writerow({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()})
    return file.getvalue()


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _dice(figures: dict) -> str:
    return dice_text(figures["dice"], figures["low"], figures["high"])


def dice_text(mean: float, low: float | None, high: float | None, sign: str = "") -> str:
    """A Dice and its interval; sign `+`: a difference of two."""
    return f"{mean:{sign}.3f} " + ("-" if low is None or high is None else f"[{low:{sign}.2f}, {high:{sign}.2f}]")


def _number(value: float | None, how: str) -> str:
    return "-" if value is None else format(value, how)
