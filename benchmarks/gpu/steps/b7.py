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

from universeg_rt.benchmarks.gpu.steps import parts, step  # noqa: E402


def body(run: step.Step, options: argparse.Namespace) -> bool:
    """Frozen tasks first: they take the least time and no plan of minutes."""
    return all([
        parts.start(run, 20),
        parts.frozen(run, 110),
        parts.compare(run, 330, (), "network", "bundle", "plain", "engines", "parity", "timing"),
        parts.ours(run, 120, "network", "kernels", "engines", "parity", "timing"),
    ])


if __name__ == "__main__":
    sys.exit(step.main("b7", __doc__.split("\n")[0], body))
