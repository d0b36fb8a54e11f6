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

from universeg_rt.benchmarks.gpu.steps import settings, step  # noqa: E402

CONTENDERS, STEPS = ("reference", "folded torch"), ("network", "parity", "timing")


def body(run: step.Step, options: argparse.Namespace) -> bool:
    """The kernels first: all else is worth nothing where they are wrong."""
    device, out, ended = ["--device", run.device], run.out, []
    if not run.small:  # the check has a rehearsal of its own (--dry-run), which compiles for a while
        ended.append(run.part(
            "kernels", "universeg_rt.kernels.support_mean.check.main", "--out", out / "kernels.json", "--build-dir",
            settings.kernels(run), seconds=190))
    ended += [
        run.part("compare", "universeg_rt.benchmarks.gpu.main", "--out", out / "compare.json", "--work",
                 run.work / "compare", *device, *settings.compare(run, CONTENDERS, STEPS), seconds=150),
        run.part("convolutions", "universeg_rt.benchmarks.gpu.steps.convolutions", "--out", out / "convolutions.json",
                 *device, *(["--support-size", 1, "--size", 16] if run.small else []), seconds=60),
        run.part("training", "universeg_rt.benchmarks.gpu.steps.training_rates", options.config, "--data-root",
                 options.data_root, "--out", out / "training.json", *device, *settings.weights(options), "--steps",
                 2 if run.small else 200, seconds=120),
    ]
    return all(ended)


if __name__ == "__main__":
    sys.exit(step.main("a1", 540, __doc__.split("\n")[0], body, settings.add_training))
