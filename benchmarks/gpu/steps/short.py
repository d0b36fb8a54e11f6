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

from universeg_rt.benchmarks.gpu.steps import parts, plan, step  # noqa: E402


def body(run: step.Step, options: argparse.Namespace) -> bool:
    """Each part has a time of its own, shorter with a smaller --seconds, and leaves what it wrote by then."""
    share = options.seconds / plan.STEPS["short"].seconds
    ended_well = [
        parts.start(run, 30),
        parts.kernels(run, "kernels", 120 * share, "selftest", "correctness"),
        parts.compare(run, 110 * share, ("reference fp32", "reference fp16", "folded torch fp16"), "network", "parity",
                      "timing"),
        parts.ours(run, 75 * share, "network", "parity", "timing", checked="kernels"),
        parts.frozen(run, 60 * share),
        parts.kernels(run, "bandwidth", 50 * share, "bandwidth", "timing"),
    ]
    if not options.no_training:
        ended_well.append(parts.training(run, options, 85 * share))
    return all(ended_well)


def add(parser: argparse.ArgumentParser) -> None:
    parts.add_training(parser)
    parser.add_argument("--no-training", action="store_true", help="where b1.py follows")


if __name__ == "__main__":
    sys.exit(step.main("short", __doc__.split("\n")[0], body, add))
