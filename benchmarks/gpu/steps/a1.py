"""A1: what the machine is, whether our kernels are right on it, and how fast its convolutions and training steps are.

    python benchmarks/gpu/steps/a1.py --out OUT --data-root DATA          the page README.md says what it takes
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
    """The kernels first: all else is worth nothing where they are wrong."""
    return all([
        parts.start(run, 30),
        parts.kernels(run, "kernels", 170),
        parts.compare(run, 115, ("reference", "folded torch"), "network", "parity", "timing"),
        parts.ours(run, 75, "network", "parity", "timing", checked="kernels"),
        run.part("convolutions", "universeg_rt.benchmarks.gpu.steps.convolutions", "--out",
                 run.out / "convolutions.json", "--device", run.device,
                 *(["--support-size", 1, "--size", 16] if run.small else []), seconds=50),
        parts.training(run, options, 90),
    ])


if __name__ == "__main__":
    sys.exit(step.main("a1", __doc__.split("\n")[0], body, parts.add_training))
