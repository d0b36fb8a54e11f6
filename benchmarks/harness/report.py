"""Figures of a benchmark run as statistics, Markdown tables and a plot."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from universeg_rt.storage.atomic import write_file

BASES = ("reference", "reference-kept", "plain")  # what every side's time is held against


def statistics(seconds: list[float]) -> dict[str, float]:
    """p50, p90, p99, min and max."""
    values = np.asarray(seconds)
    return {
        **{f"p{q}": float(np.percentile(values, q))
           for q in (50, 90, 99)}, "min": float(values.min()), "max": float(values.max())
    }


def ratios(base: list[float], seconds: list[float]) -> dict[str, float]:
    """base / seconds of each turn: median, min and max."""
    values = np.asarray(base) / np.asarray(seconds)
    return {"p50": float(np.median(values)), "min": float(values.min()), "max": float(values.max())}


def table(result: dict) -> str:
    """All cases as Markdown: every side; ours in parts; estimates; starts; what was left out and why."""
    return "\n\n".join(part for part in (_sides(result), _parts(result), _estimates(result), _starts(result),
                                         _skipped(result)) if part)


def plot(result: dict, path: Path) -> None:
    """Median latency of the network against S, both logarithmic, one line a side, whiskers from min to max."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import ScalarFormatter

    lines: dict[str, list] = {}
    for case, name, row in _measured(result):
        stats = row["network"]
        lines.setdefault(name, []).append((case["support_size"], stats["p50"], stats["min"], stats["max"]))
    figure = Figure(figsize=(8, 5.5), dpi=150)
    FigureCanvasAgg(figure)
    axes = figure.add_subplot(xscale="log", yscale="log", xlabel="support entries S", ylabel="seconds for one call")
    for name, points in lines.items():
        s, p50, low, high = np.array(sorted(points)).T
        axes.errorbar(s, p50, yerr=[p50 - low,
                                    high - p50], marker="o" if name.startswith("ours") else "s", capsize=2, label=name,
                      linewidth=2 if name.startswith("ours") else 1, linestyle="-" if name.startswith("ours") else "--")
    sizes = sorted({case["support_size"] for case in result["cases"]})
    axes.set_xticks(sizes, labels=[str(s) for s in sizes])
    axes.xaxis.minorticks_off()
    axes.yaxis.set_major_formatter(ScalarFormatter())
    axes.grid(True, which="both", alpha=0.25)
    machine, first = result["environment"], result["cases"][0]
    axes.set_title(f"{machine['processor']}, {', '.join(machine['instructions'])}; {machine['threads']} threads, "
                   f"{first['size']}x{first['size']}, K = {first['members']}", fontsize=9)
    axes.legend(fontsize=8)
    figure.tight_layout()
    with write_file(path) as file:
        figure.savefig(file, format="png", metadata={"Software": None})


def _measured(result: dict):
    for case in result["cases"]:
        for name, row in case["sides"].items():
            if "skipped" not in row:
                yield case, name, row


def _case(case: dict) -> str:
    extra = "".join(f", {letter} = {case[key]}" for letter, key in (("K", "members"), ("B", "queries"))
                    if case[key] != 1)
    return f"{case['support_size']}{extra}"


def _markdown(header: list[str], rows: list[list[str]], left: int = 2) -> str:
    rule = ["---" if i == left - 1 else "---:" for i in range(len(header))]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [header, rule, *rows])


def _ratio(values: dict | None) -> str:
    return f"{values['p50']:.1f} ({values['min']:.1f} to {values['max']:.1f})" if values else ""


def _megabytes(value: float | None) -> str:
    return "" if value is None else f"{value / 1e6:.0f}"


def _sides(result: dict) -> str:
    header = ["S", "side", "p50 s", "p90", "p99", "min to max", "first call", "GFLOP/s", "of product", "peak MB",
              *(f"{base} / side" for base in BASES), "logit error"]
    rows = []
    for case, name, row in _measured(result):
        n, rate = row["network"], case["matrix_flop_per_s"]
        compile_s = f" (+{row['compile_s']:.0f} compiling)" if "compile_s" in row else ""
        rows.append([
            _case(case), name, f"{n['p50']:.3f}", f"{n['p90']:.3f}", f"{n['p99']:.3f}",
            f"{n['min']:.3f} to {n['max']:.3f}", f"{row['first_s']:.3f}{compile_s}", f"{row['flop_per_s'] / 1e9:.0f}",
            f"{100 * row['flop_per_s'] / rate['p50']:.0f} %",
            _megabytes(row["peak_bytes"]), *(_ratio(row["ratios"].get(base)) for base in BASES),
            f"{row['agreement']['largest_logit_error']:.1e}" if row["agreement"] else ""
        ])
    return _markdown(header, rows)


def _parts(result: dict) -> str:
    header = [
        "S", "ours, in parts (p50)", "load s", "pre-processing ms", "prepare s", "run s", "post-processing ms",
        "total s"
    ]
    rows = [[_case(case), name, f"{row['load_s']:.2f}", f"{1e3 * row['parts']['preprocess']['p50']:.1f}",
             f"{row['parts']['prepare']['p50']:.3f}", f"{row['parts']['run']['p50']:.3f}",
             f"{1e3 * row['parts']['postprocess']['p50']:.1f}", f"{row['parts']['total']['p50']:.3f}"]
            for case, name, row in _measured(result) if "prepare" in row["parts"]]
    return _markdown(header, rows) if rows else ""


def _estimates(result: dict) -> str:
    header = [
        "S", "estimate beforehand", "said s", "measured s", "measured / said", "said MB", "measured MB",
        "measured / said"
    ]
    rows = []
    for case, name, row in _measured(result):
        if e := row.get("estimate"):
            share = f"{e['measured_bytes'] / e['bytes']:.2f}" if e["measured_bytes"] else ""
            rows.append([
                _case(case), name, f"{e['seconds']:.3f}", f"{e['measured_seconds']:.3f}",
                f"{e['measured_seconds'] / e['seconds']:.2f}",
                _megabytes(e["bytes"]),
                _megabytes(e["measured_bytes"]), share
            ])
    return _markdown(header, rows) if rows else ""


def _starts(result: dict) -> str:
    header = ["S", "process start to first mask", "p50 s", "min to max", "the very first (empty cache)"]
    rows = [[
        str(start["support_size"]), name, f"{row['p50']:.2f}", f"{row['min']:.2f} to {row['max']:.2f}",
        f"{row['first_s']:.2f}"
    ] for start in result["starts"] for name, row in start["sides"].items()]
    return _markdown(header, rows) if rows else ""


def _skipped(result: dict) -> str:
    reasons: dict[tuple[str, str], list[str]] = {}
    for case in result["cases"]:
        for name, row in case["sides"].items():
            if "skipped" in row:
                reasons.setdefault((name, row["skipped"]), []).append(str(case["support_size"]))
    return "\n".join(f"- {name} at S = {', '.join(sizes)} not run: {why}" for (name, why), sizes in reasons.items())
