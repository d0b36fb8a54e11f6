"""What the evaluation's parts share: one random stream for each purpose, and one look for plots."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from universeg_rt.storage.atomic import write_file


def seeded(name: str, seed: int, purpose: str) -> np.random.Generator:
    """Random numbers that follow from a task's name, a seed and what they are for, alike on every machine."""
    digest = hashlib.sha256(f"{name}/{seed}/{purpose}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "little"))


def figure(width: float = 6, height: float = 4):
    """(figure, axes) of matplotlib in inches, drawn without a screen."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot.subplots(figsize=(width, height))


def over_sizes(axes, sizes: Iterable[int]) -> None:
    """A logarithmic axis of the `sizes` measured."""
    sizes = sorted(set(sizes))
    axes.set_xscale("log")
    axes.minorticks_off()
    axes.set_xticks(sizes, [str(s) for s in sizes])


def save(drawn, axes, path: Path) -> None:
    """The figure with a legend beside it, where it covers nothing, and a grid, as a PNG, whole or not at all."""
    from matplotlib import pyplot

    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1))
    axes.grid(alpha=0.3)
    buffer = io.BytesIO()
    drawn.savefig(buffer, format="png", dpi=110, bbox_inches="tight")
    pyplot.close(drawn)
    with write_file(path) as file:
        file.write(buffer.getvalue())
