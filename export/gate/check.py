"""Holds any runner that starts here against the reference network, by the rules of the export's gate, in task units.

    python -m universeg_rt.export.gate.check --bundle my_bundle --runner tensorrt --precision fp16

float32 is held against fixed figures; half precision (and TF32) against twice the error of the reference network run
plainly in half precision, three times for a support of one entry; int8 against the masks. Inputs are those of the
gate, at the bundle's own image size.
Exit status 0 only where every comparison is within tolerance.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from universeg_rt.bundle.bundle import Bundle
from universeg_rt.cli.common import add_runner_options, run_command
from universeg_rt.errors import InputError, ParityError
from universeg_rt.runners import open_runner
from universeg_rt.storage.atomic import write_json

from . import parity
from .parity import TOLERANCES, Cases, Reference, compare, over


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(prog="universeg_rt.export.gate.check", description=__doc__,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    add_runner_options(p)
    p.add_argument("--support-sizes", type=int, nargs="+", default=list(parity.SUPPORT_SIZES), metavar="S")
    p.add_argument("--members", type=int, nargs="+", default=list(parity.MEMBERS), metavar="K")
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
    cases = Cases(((bundle.manifest.input.height, bundle.manifest.input.width), ), tuple(args.support_sizes),
                  tuple(args.members))
    report, refused = compare(
        {runner.name: lambda s, w, q: runner.run(runner.prepare(s, w), q)}, TOLERANCES[runner.precision], cases,
        Reference(spec, weights), progress=lambda grid: tqdm(grid, desc="comparing with the reference", unit="input"))
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
        write_json(args.output, values)
    if found:
        raise ParityError(f"{len(found)} comparisons are over tolerance; " + "; ".join(found[:3]))
    print(f"within tolerance on {len(report.results)} inputs")
    return 0


if __name__ == "__main__":
    sys.exit(main())
