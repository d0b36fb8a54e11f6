"""Holds any runner that starts here against the reference network, by the rules of the export's gate, in task units.

    python -m universeg_rt.export.gate.check --bundle my_bundle --runner tensorrt --precision fp16

float32 is held against fixed figures; half precision (and TF32) against at most twice the error of the reference network
run plainly in half precision; int8 against the masks. Inputs are those of the gate, at the bundle's own image size. Exit
status 0 only where every comparison is within tolerance.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from universeg_rt.storage.atomic import write_file
from universeg_rt.bundle.bundle import Bundle
from universeg_rt.cli.common import run_command
from universeg_rt.errors import InputError, ParityError
from universeg_rt.runners import PRECISIONS, RUNNERS, open_runner
from universeg_rt.spec import NetworkSpec

from . import parity
from .parity import AnyTolerance, Case, HalfTolerance, MaskTolerance, Model, ParityReport, Reference, Tolerance


@dataclass(frozen=True)
class Cases:
    """What to compare on: every kind of input at each image size, support size and number of members."""

    image_sizes: tuple[tuple[int, int], ...]
    support_sizes: tuple[int, ...] = parity.SUPPORT_SIZES
    members: tuple[int, ...] = parity.MEMBERS

    def __post_init__(self) -> None:
        if any(k > max(parity.MEMBERS) for k in self.members):
            raise InputError(f"{max(self.members)} members; the gate's inputs have up to {max(parity.MEMBERS)}")


def tolerance_of(precision: str) -> AnyTolerance:
    """What a precision (of PRECISIONS, or tf32, whose products have half precision's digits) is held against."""
    return {"fp32": Tolerance, "tf32": HalfTolerance, "fp16": HalfTolerance, "int8": MaskTolerance}[precision]()


def compare(
    spec: NetworkSpec, weights: Mapping[str, np.ndarray], models: Mapping[str, Model], tolerance: AnyTolerance, cases: Cases,
    reference: Reference | None = None, progress: Callable[[Sequence], Iterator] = iter,
) -> tuple[ParityReport, dict[Case, str]]:
    """Figures of each model on each case, and the cases that a model does not take (outside an engine's profile) with its
    reason. `over` judges the report; nothing is raised for what is over tolerance."""
    reference = Reference(spec, weights) if reference is None else reference
    half, results, refused = isinstance(tolerance, HalfTolerance), [], {}
    grid = [(kind, size, entries) for kind in parity.KINDS for size in cases.image_sizes for entries in cases.support_sizes]
    for kind, (height, width), entries in progress(grid):
        inputs = (kind, height, width, entries)
        support, entry_weights, query = parity.make_inputs(*inputs, max(parity.MEMBERS))
        for members in cases.members:
            case = Case(*inputs, members)
            for name, model in models.items():
                try:
                    actual = model(support[:members], entry_weights[:members], query)
                except InputError as error:
                    refused[case] = str(error)
                    continue
                expected = reference.logits(*inputs)[:, :members]
                beside = None
                if half:
                    plain = reference.logits(*inputs, half=True)[:, :members]
                    beside = parity._compare("plain half", case, plain, expected)
                results.append(replace(parity._compare(name, case, actual, expected), half=beside))
    return ParityReport(tolerance, tuple(results)), refused


def over(report: ParityReport) -> list[str]:
    """What is over tolerance, a line each; empty where all is within."""
    lines = [
        f"{r.model} at {r.case.kind}, S={r.case.support_size}, K={r.case.members}, {r.case.height}x{r.case.width}: logit error "
        f"{r.logit_error:.3g}, {r.flipped} of {r.pixels} pixels flipped, Dice {r.dice:.6f}"
        + ("" if r.half is None else f" (plain half precision: {r.half.logit_error:.3g}, {r.half.flipped}, {r.half.dice:.6f})")
        for r in report.failures]
    if isinstance(report.tolerance, MaskTolerance):
        for name, f in report.summary()["models"].items():
            if not f["flipped_pixels"] <= report.tolerance.flipped_in_all * f["pixels"]:
                lines.append(f"{name}: {f['flipped_pixels']} of {f['pixels']} pixels flipped in all, accepted is a share of "
                             f"{report.tolerance.flipped_in_all:g}")
    return lines


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(prog="universeg_rt.export.gate.check", description=__doc__,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--bundle", type=Path, help="the bundle (the shipped one)")
    p.add_argument("--runner", default="auto", help=f"auto, {', '.join(RUNNERS)} (auto)")
    p.add_argument("--precision", default="auto", help=f"auto, {', '.join(PRECISIONS)} (auto)")
    p.add_argument("--support-sizes", type=int, nargs="+", default=list(parity.SUPPORT_SIZES), metavar="S")
    p.add_argument("--members", type=int, nargs="+", default=list(parity.MEMBERS), metavar="K")
    p.add_argument("--threads", type=int, help="of a CPU runner")
    p.add_argument("--output", type=Path, help="JSON file for the figures")
    return p


def main(arguments: list[str] | None = None) -> int:
    return run_command(_main, parser(), arguments)


def _main(args: argparse.Namespace) -> int:
    from tqdm import tqdm

    from universeg_rt.training.network.checkpoint import load_checkpoint

    if any(s < 1 for s in (*args.support_sizes, *args.members)):
        raise InputError("support sizes and members must be positive")
    bundle = Bundle.open(args.bundle)
    spec, weights, _ = load_checkpoint(bundle.path)
    runner = open_runner(bundle, args.runner, args.precision, args.threads)
    print(f"{runner.name} {runner.precision} on {runner.device}: {runner.reason}")
    cases = Cases(((bundle.manifest.input.height, bundle.manifest.input.width),), tuple(args.support_sizes), tuple(args.members))
    report, refused = compare(
        spec, weights, {runner.name: lambda s, w, q: runner.run(runner.prepare(s, w), q)}, tolerance_of(runner.precision), cases,
        progress=lambda grid: tqdm(grid, desc="comparing with the reference", unit="input"))
    for reason in dict.fromkeys(refused.values()):
        print(f"not compared: {reason}")
    if not report.results:
        raise ParityError(f"{runner.name} took none of the inputs; give --support-sizes and --members that it takes")
    found = over(report)
    print(report.table())
    if args.output:
        values = {"bundle": bundle.manifest.name, "bundle_sha256": bundle.sha256, "runner": runner.name,
                  "precision": runner.precision, "device": runner.device, "within": not found, "over": found,
                  "not_compared": list(dict.fromkeys(refused.values())), **report.summary()}
        with write_file(args.output) as file:
            file.write((json.dumps(values, indent=1) + "\n").encode())
    if found:
        raise ParityError(f"{len(found)} comparisons are over tolerance; " + "; ".join(found[:3]))
    print(f"within tolerance on {len(report.results)} inputs")
    return 0


if __name__ == "__main__":
    sys.exit(main())
