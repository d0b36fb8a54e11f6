"""The short order, for a GPU that is lent for minutes once: what is worth most first, in one command.

    python benchmarks/gpu/steps/short.py --out OUT          the page README.md says what it takes
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

if __package__ in (None, ""):  # run as a script: make the checkout importable as the package
    sys.path[0] = str(Path(__file__).resolve().parents[3])
    from universeg_rt.checkout import make_importable

    make_importable()

from universeg_rt.benchmarks.gpu.steps import parts, step  # noqa: E402

START, KERNELS = 30, 120  # seconds; on an H100 the self-test took 41 and the rest of the check 36


def body(run: step.Step, options: argparse.Namespace) -> bool:
    """Each part has a time of its own and leaves what it wrote by then; with a smaller --seconds those after the
    kernels' check have less, since nothing of ours is worth timing before that."""
    others = {"compare": 110, "ours": 75, "frozen": 60, "bandwidth": 50, "training": 0 if options.no_training else 85}
    share = min(1.0, max(0.0, options.seconds - 2 * step.GRACE - START - KERNELS) / sum(others.values()))
    seconds = {name: share * most for name, most in others.items()}
    ended_well = [
        parts.start(run, START),
        parts.kernels(run, "kernels", KERNELS, "selftest", "correctness"),
        parts.compare(run, seconds["compare"], ("reference fp32", "reference fp16", "folded torch fp16"), "network",
                      "parity", "timing"),
        parts.ours(run, seconds["ours"], "network", "parity", "timing", checked="kernels"),
        parts.frozen(run, seconds["frozen"]),
        parts.kernels(run, "bandwidth", seconds["bandwidth"], "bandwidth", "timing"),
    ]
    if not options.no_training:
        ended_well.append(parts.training(run, options, seconds["training"]))
    return all(ended_well)


def add(parser: argparse.ArgumentParser) -> None:
    parts.add_training(parser)
    parser.add_argument("--no-training", action="store_true", help="where b1.py follows")


if __name__ == "__main__":
    sys.exit(step.main("short", __doc__.split("\n")[0], body, add))
