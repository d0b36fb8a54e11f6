"""B7: all that starts on this machine side by side, right first, then fast; nothing else runs beside it.

    python benchmarks/gpu/steps/b7.py --out OUT          the page README.md says what it takes
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

STEPS = ("network", "kernels", "bundle", "plain", "engines", "parity", "timing")


def body(run: step.Step, options: argparse.Namespace) -> bool:
    """Frozen tasks first: they take the least time and no plan of minutes."""
    tasks = [run.upload / task for task in settings.TASKS if (run.upload / task).is_file()]
    ended = [
        run.part("frozen", "universeg_rt.benchmarks.gpu.frozen", "--out", run.out / "frozen.json", "--device",
                 run.device, "--work", run.work / "frozen", *(["--rounds", 2] if run.small else []), *tasks,
                 seconds=120),
        run.part("compare", "universeg_rt.benchmarks.gpu.main", "--out", run.out / "compare.json", "--work",
                 run.work / "compare", "--device", run.device, "--no-int8", *settings.compare(run, (), STEPS),
                 seconds=450),
    ]
    return all(ended)


if __name__ == "__main__":
    sys.exit(step.main("b7", 590, __doc__.split("\n")[0], body))
