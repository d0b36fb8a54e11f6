"""Contenders side by side: in turn within one run, so that a change in the machine's speed meets all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np

from universeg_rt.errors import RunnerError
from universeg_rt.export.folds.cost import Cost, total
from universeg_rt.kernels.support_mean.check.steps import one_line

from . import machine
from .arithmetic import FLOATS, ITEM
from .deadline import half

WARM = 3
MOST_MAPS = 512  # support entries times members up to which float32 contenders that hold all members at once take part


def run_timing(state: dict, entry: dict) -> None:
    """One row for each contender, support size, number of members, and support prepared beforehand or not."""
    entry["rows"], entry["skipped"] = [], []
    cells = [(k, s) for k in state["members"] for s in state["support_sizes"]]
    for members, entries in cells:
        if time.monotonic() > state["deadline"]:
            entry.update(passed=False, why=f"the time limit was reached before S = {entries}, K = {members}")
            return
        _time_cell(state, entry, members, entries)
        state["write"]()
        if "cut" in entry:
            entry.update(passed=False, why=entry.pop("cut"))
            return
        machine.free(state)
    wrong = [f"{r['contender']} S={r['support_size']} K={r['members']}" for r in entry["rows"] if not r["right"]]
    entry["passed"] = bool(entry["rows"]) and not wrong
    if not entry["passed"]:
        entry["why"] = f"masks differ from the reference's: {', '.join(wrong)}" if wrong else "no contender ran"


def _time_cell(state: dict, entry: dict, members: int, entries: int) -> None:
    support, weights, query = make_inputs(members, entries, state["grid"])
    states, outputs = {}, {}
    state["graph_pool"] = None
    warm_end = half(state["deadline"])  # a cell with all warm and no time left would have no row
    for name, contender in state["contenders"].items():
        try:
            if time.monotonic() > warm_end:
                raise RunnerError("the time limit was reached")
            if members * entries > MOST_MAPS and FLOATS.get(
                    contender.precision) is np.float32 and contender.side == "folded":
                raise RunnerError(f"{members * entries} float32 maps; more than {MOST_MAPS} would crowd out the others")
            states[name] = contender.prepare(support, weights)
            for _ in range(WARM):
                if name in outputs and time.monotonic() > warm_end:
                    break
                outputs[name] = contender.run(states[name], query)
        except Exception as error:  # out of memory, a shape that an engine does not take, an operator that is missing
            states.pop(name, None)
            entry["skipped"].append(
                {"contender": name, "support_size": entries, "members": members, "why": one_line(error)})
            state["say"](f"S={entries} K={members} {name}: skipped, {one_line(error)}")
            machine.free(state)
    if not states:
        return
    expected = outputs.get("reference fp32")
    for prepared in (True, False):
        if time.monotonic() > state["deadline"]:
            entry["cut"] = f"the time limit was reached in S = {entries}, K = {members}"
            return
        calls = {
            name: _call(state["contenders"][name], states[name], support, weights, query, prepared)
            for name in states
        }
        times = interleave(calls, state["budget"], state["rounds"], state["deadline"])
        for name, values in times.items():
            contender = state["contenders"][name]
            row = {
                "contender": name, "precision": contender.precision, "support_size": entries, "members": members,
                "prepared": prepared, **figures(values), **_rates(state, contender, entries, members, prepared, values)
            }
            row |= _against(expected, outputs[name], contender.precision)
            entry["rows"].append(row)
        _speedups(entry["rows"], entries, members, prepared)
        if prepared:
            best = min(times, key=lambda name: np.median(times[name]))
            state["say"](f"S={entries} K={members} prepared: fastest {best}, {np.median(times[best]) * 1e3:.3f} ms")


def _call(contender, prepared_state, support, weights, query, prepared: bool) -> Callable[[], np.ndarray]:
    if prepared:
        return lambda: contender.run(prepared_state, query)
    return lambda: contender.run(contender.prepare(support, weights), query)


def interleave(calls: dict[str, Callable], budget: float, rounds: int, deadline: float) -> dict[str, list[float]]:
    """Seconds of each call, run in turn. Each gets about `budget` seconds in all: from 5 to `rounds` runs, spread
    evenly.

    None starts after the deadline; what has no run by then is left out of the result.
    """
    wanted = {}
    for name, call in calls.items():
        if time.monotonic() > deadline:
            break
        start = time.perf_counter()
        call()
        wanted[name] = int(min(rounds, max(5, budget / max(time.perf_counter() - start, 1e-6))))
    most = max(wanted.values(), default=0)
    times: dict[str, list[float]] = {name: [] for name in wanted}
    for turn in range(most):
        for name in wanted:
            if (turn + 1) * wanted[name] // most == turn * wanted[name] // most:
                continue
            start = time.perf_counter()
            calls[name]()
            times[name].append(time.perf_counter() - start)
            if time.monotonic() > deadline:
                return {name: values for name, values in times.items() if values}
    return {name: values for name, values in times.items() if values}


def figures(values: Sequence[float]) -> dict[str, float | int]:
    """Seconds, copies from and to the host included. Of few runs p99 is close to the slowest; `runs` says how many."""
    p50, p90, p99 = (float(np.percentile(values, p)) for p in (50, 90, 99))
    return {"runs": len(values), "p50": p50, "p90": p90, "p99": p99, "fastest": min(values)}


def _rates(state: dict, contender, entries: int, members: int, prepared: bool,
           values: Sequence[float]) -> dict[str, float]:
    cost = work(state, contender.side, entries, members, prepared)
    moved, median = cost.bytes * ITEM[contender.precision] / 4, float(np.median(values))
    return {
        "flop": cost.flop, "bytes": moved, "flop_per_second": cost.flop / median, "bytes_per_second": moved / median,
        "of_matrix": cost.flop / median / state["matrix"][contender.precision],
        "of_copy": moved / median / state["copy"]
    }


def work(state: dict, side: str, entries: int, members: int, prepared: bool) -> Cost:
    """What must be computed and moved (export/folds/cost.py, float32) for all members; side: reference or folded."""
    rows = state["costs"]
    one = total(rows, side, entries)
    if side == "folded" and prepared:  # the first block's composed convolution of every entry, and that of their mean
        c, pixels = state["spec"].encoder_features[0], state["grid"][0] * state["grid"][1]
        one += Cost(-2.0 * 2 * c * pixels * (25 * entries + 9), -4.0 * pixels * (2 + c) * (entries + 1))
    return Cost(one.flop * members, one.bytes * members)


def _against(expected: np.ndarray | None, actual: np.ndarray, precision: str) -> dict:
    """How far from the reference's masks; a timing of something else would be worth nothing."""
    if expected is None:
        return {"right": bool(np.isfinite(actual).all()), "flipped": None}
    flipped = float(((actual > 0) != (expected > 0)).mean())
    return {
        "right": bool(np.isfinite(actual).all() and flipped <= (0.002 if precision == "fp32" else 0.03)),
        "flipped": flipped
    }


def _speedups(rows: list[dict], entries: int, members: int, prepared: bool) -> None:
    same = [r for r in rows if (r["support_size"], r["members"], r["prepared"]) == (entries, members, prepared)]
    medians = {r["contender"]: r["p50"] for r in same}
    for row in same:
        for reference in ("reference fp32", "reference fp16"):
            if reference in medians:
                row[f"over {reference}"] = medians[reference] / row["p50"]


def make_inputs(members: int, entries: int, grid: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Support (K,S,2,H,W), equal weights (K,S), and one query (1,1,H,W); image-like."""
    from universeg_rt.export.gate.inputs import make_inputs as make

    return make("image-like", *grid, entries, members)


def table(values: dict) -> list[str]:
    """The rows as lines of text."""
    rows = values["steps"].get("timing", {}).get("rows", [])
    if not rows:
        return []
    toy = "; --device cpu: times mean nothing" if values["device"] == "cpu" else ""
    out = [
        f"milliseconds with copies from and to the host{toy}",
        f"{'S':>4}{'K':>3} "
        f"{'prepared':9}{'contender':34}{'p50':>9}{'p90':>9}{'p99':>9}{'runs':>6}{'TFLOP/s':>9}{'of max':>8}"
        f"{'GB/s':>7}{'of copy':>8}{'x fp32':>8}{'x fp16':>8}"
    ]
    for r in sorted(rows, key=lambda r: (r["members"], r["support_size"], not r["prepared"], r["p50"])):
        over = [f"{r[key]:8.1f}" if (key := f"over reference {p}") in r else f"{'':8}" for p in ("fp32", "fp16")]
        out.append(
            f"{r['support_size']:4}{r['members']:3} {'yes' if r['prepared'] else 'no':9}{r['contender']:34}"
            f"{r['p50'] * 1e3:9.3f}{r['p90'] * 1e3:9.3f}{r['p99'] * 1e3:9.3f}{r['runs']:6}"
            f"{r['flop_per_second'] / 1e12:9.2f}{r['of_matrix']:8.0%}"
            f"{r['bytes_per_second'] / 1e9:7.0f}{r['of_copy']:8.0%}"
            + "".join(over) + ("" if r["right"] else "  WRONG"))
    return out
