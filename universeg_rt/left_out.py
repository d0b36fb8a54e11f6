"""Entries of a support left out in turn: what stands for queries whose truth is known, before any query comes.

They go in pairs, so that half as many supports are prepared; with an entry goes what equals its image, so that no copy
of it is in its own support.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from .named_types import Floats, Integers

ENTRIES = 8  # four are worse: measured for freezing, see benchmarks/NOTES.md
GROUP = 2  # entries left out together: more leave less of the support; measured for freezing too
FEWEST = 3  # different entries of a support of which some can be left out


def chosen(entries: int, seed: int) -> Integers:
    """Indices of up to ENTRIES of them, drawn by the seed."""
    return np.random.default_rng(seed).permutation(entries)[:ENTRIES]


def groups(images: Floats | Sequence[Floats], seed: int) -> Iterator[tuple[Integers, list[int]]]:
    """Of images (N,h,w) on the grid: indices of those that are left out together, and of all that go with them. A group
    that would leave nothing of the support is passed over."""
    indices = chosen(len(images), seed)
    for first in range(0, len(indices), GROUP):
        members = indices[first : first + GROUP]
        gone = [i for i, image in enumerate(images) if any(np.array_equal(image, images[m]) for m in members)]
        if len(gone) < len(images):
            yield members, gone


def differing(images: Floats | Sequence[Floats]) -> int:
    """How many images differ from one another."""
    return len({image.tobytes() for image in images})
