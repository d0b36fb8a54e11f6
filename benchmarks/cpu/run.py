"""Runs the cases of a benchmark: starts the sides, compares what they give, lets them take turns, gathers the
figures."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from contextlib import ExitStack, closing
from dataclasses import asdict
from pathlib import Path

import numpy as np

from universeg_rt.bundle.bundle import Bundle
from universeg_rt.errors import ParityError
from universeg_rt.storage.cache import VARIABLE

from ..harness.case import Case
from ..harness.machine import environment
from ..harness.models import write_inlined
from ..harness.report import BASES, ratios, statistics
from .child import MATRIX, Child, Died
from .first_mask import seconds_to_first_mask
from .sides import OURS, TORCH, Files, Skipped

TOLERANCE = 1e-3  # of float32 sides' logits
START_SUPPORT = 16


def run(options: argparse.Namespace) -> dict:
    """Measure everything that the options of `universeg-bench` ask for; the result is plain values."""
    from tqdm import tqdm

    from universeg_rt.export.folds import fold
    from universeg_rt.export.folds.cost import network_cost, total

    bundle = Bundle.open(options.bundle)
    spec = bundle.manifest.spec
    network = fold(spec, {key: np.zeros(shape, np.float32) for key, shape in spec.weight_shapes().items()})
    costs = network_cost(network, options.size, options.size)
    result = {"environment": environment(options.threads), "cases": [], "starts": [],
              "bundle": {"name": bundle.manifest.name, "sha256": bundle.sha256, "spec": spec.to_dict()}}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        compile_cache = options.compile_cache or folder / "compiled"
        # Nothing of the user's caches is used or changed.
        os.environ.update({VARIABLE: str(folder / "cache"), "TORCHINDUCTOR_CACHE_DIR": str(compile_cache.absolute())})
        for support_size in tqdm(options.support_sizes, desc="support sizes", unit="size", disable=None):
            case = Case(support_size, options.members, options.queries, options.size, options.threads)
            flop = {
                side: total(costs, side, support_size).flop * case.members * case.queries
                for side in ("reference", "folded")
            }
            result["cases"].append(_run_case(options, bundle, case, folder, flop))
        if options.starts:
            result["starts"] = [
                _starts(options, Case(START_SUPPORT, 1, 1, bundle.manifest.input.height, options.threads), folder,
                        result)
            ]
    return result


def _run_case(options: argparse.Namespace, bundle: Bundle, case: Case, folder: Path, flop: dict[str, float]) -> dict:
    rows: dict[str, dict] = {}
    files = Files(bundle.path.resolve(), folder / f"plain_{case.support_size}.onnx", folder / "inlined.onnx")
    with ExitStack() as stack:
        children: dict[str, Child] = {}

        def leave_out(name: str, why: str) -> None:
            rows[name] = {"skipped": why}
            if name in children:
                children.pop(name).close()

        logits: dict[str, np.ndarray] = {}
        for name in options.sides:
            try:
                _make_models(name, options, bundle, files, case)
                child = Child(name, files, case, any_device=name in options.named)
                stack.enter_context(closing(child))
                children[name] = child
                rows[name] = {**child.opened, "first_s": child.call()["network"]}
                logits[name] = child.logits()
            except (Skipped, Died) as error:
                leave_out(name, str(error))
        _compare(rows, logits)
        turns = _take_turns(options, case, children, leave_out, stack)
        result = {**asdict(case), "matrix_flop_per_s": statistics(turns.pop(MATRIX)), "sides": rows}
        for name, seconds in turns.items():
            rows[name].update(_figures(name, seconds, turns, flop))
            rows[name]["peak_bytes"] = children[name].ask(do="peak")["bytes"]
            if name.startswith(OURS):
                said = children[name].ask(do="estimate")
                rows[name]["estimate"] = {**said, "measured_seconds": rows[name]["parts"]["run"]["p50"] / case.queries,
                                          "measured_bytes": rows[name]["peak_bytes"]}
    return result


def _take_turns(options: argparse.Namespace, case: Case, children: dict[str, Child], leave_out,
                stack: ExitStack) -> dict:
    """Seconds by part of each turn of each side, and the matrix product's rates under MATRIX."""
    matrix = stack.enter_context(closing(Child(MATRIX, Files(Path(), Path(), Path()), case)))
    turns: dict[str, list] = {MATRIX: []}
    for turn in range(-1,
                      options.repeats):  # the turn before the first warms up: while others were loaded, a side was idle
        turns[MATRIX].append(matrix.call()["rate"])
        names = list(children)
        for position in range(len(names)):
            name = names[(position + turn) % len(names)]
            try:
                turns.setdefault(name, []).append(children[name].call())
            except Died as error:
                leave_out(name, str(error))
                turns.pop(name, None)
    return {name: values[1:] for name, values in turns.items()}


def _make_models(name: str, options: argparse.Namespace, bundle: Bundle, files: Files, case: Case) -> None:
    """Write the models that a side needs and no other has written yet; Skipped where that cannot be."""
    limit = options.limits.get(name)
    if limit is not None and case.support_size > limit:
        raise Skipped(f"its memory grows with S, it is limited to {limit} (--limit {name}={case.support_size})")
    if name == "plain" and not files.plain.exists():
        command = [
            sys.executable, "-m", "universeg_rt.benchmarks.harness.models", files.bundle, files.plain,
            case.support_size, case.size
        ]
        done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
        if done.returncode:
            raise Skipped(
                f"torch.onnx failed: {(done.stderr.strip().splitlines() or [f'status {done.returncode}'])[-1]}")
    if name == "folded-openvino" and not files.inlined.exists():
        write_inlined(bundle.file(bundle.manifest.models["fp32"].whole), files.inlined)


def _compare(rows: dict[str, dict], logits: dict[str, np.ndarray]) -> None:
    """State how far each side is from the reference (or, without it, the first side).

    Raises ParityError for float32 over TOLERANCE.
    """
    if not logits:
        return
    base = next(iter(logits))
    for name, values in logits.items():
        expected = logits[base]
        same = values.shape == expected.shape
        error = float(np.abs(values - expected).max()) if same else float("inf")
        flipped = float(((values > 0) != (expected > 0)).mean()) if same else 1.0
        rows[name]["agreement"] = {"against": base, "largest_logit_error": error, "flipped_pixels": flipped
                                   } if name != base else None
        if not name.endswith("-int8") and not error <= TOLERANCE:
            raise ParityError(
                f"{name} differs from {base} by {error:.3g} in the logits (over {TOLERANCE}): what would be timed is "
                "not the same"
            )


def _figures(name: str, seconds: list[dict[str, float]], turns: dict[str, list], flop: dict[str, float]) -> dict:
    parts = {part: [turn[part] for turn in seconds] for part in seconds[0]}
    stats = {part: statistics(values) for part, values in parts.items()}
    mine = flop["reference" if name in TORCH else "folded"]
    bases = [base for base in BASES if base in turns and base != name]
    return {
        "network": stats["network"], "parts": stats, "turns": parts, "flop": mine,
        "flop_per_s": mine / stats["network"]["p50"],
        "ratios": {base: ratios([turn["network"] for turn in turns[base]], parts["network"])
                   for base in bases}
    }


def _starts(options: argparse.Namespace, case: Case, folder: Path, result: dict) -> dict:
    """Seconds from process start to first mask of our sides that ran, in turns, each with a cache of its own."""
    ran = {
        name: row
        for entry in result["cases"]
        for name, row in entry["sides"].items() if name.startswith(OURS) and "skipped" not in row
    }
    seconds: dict[str, list[float]] = {name: [] for name in ran}
    for _ in range(options.starts + 1):
        for name, row in ran.items():
            cache = folder / f"start_{name}"
            seconds[name].append(
                seconds_to_first_mask(options.bundle.resolve(), row["runner"], row["precision"], case, cache))
    return {
        **asdict(case), "sides": {
            name: {**statistics(values[1:]), "first_s": values[0], "seconds": values}
            for name, values in seconds.items()
        }
    }
