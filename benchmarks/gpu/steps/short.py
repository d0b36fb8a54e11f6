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


def body(run: step.Step, options: argparse.Namespace) -> bool:
    """Each part has a time of its own, and leaves what it wrote by then."""
    return all([
        parts.start(run, 30),
        parts.kernels(run, "kernels", 120, "selftest", "correctness"),
        parts.compare(run, 110, ("reference fp32", "reference fp16", "folded torch fp16"), "network", "parity",
                      "timing"),
        parts.ours(run, 75, "network", "parity", "timing", checked="kernels"),
        parts.frozen(run, 60),
        parts.kernels(run, "bandwidth", 50, "bandwidth", "timing"),
        parts.training(run, options, 85),
    ])


if __name__ == "__main__":
    sys.exit(step.main("short", __doc__.split("\n")[0], body, parts.add_training))
