"""Entries of a support left out in turn: what stands for queries whose truth is known, before any query comes.

They go in pairs, so that half as many supports are prepared; with an entry goes what equals its image, so that no copy
of it is in its own support.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from .named_types import Floats, Integers
from .predictor import sigmoid
from .runners import Runner

ENTRIES = 8  # four are worse: measured for freezing, see benchmarks/NOTES.md
GROUP = 2  # entries left out together: more leave less of the support; measured for freezing too
FEWEST = 3  # different entries of a support of which some can be left out


def chosen(images: Floats | Sequence[Floats], seed: int) -> Integers:
    """Indices of up to ENTRIES of the images (N,h,w), no two of them equal, drawn by the seed."""
    first = {image.tobytes(): i for i, image in reversed(list(enumerate(images)))}
    return np.random.default_rng(seed).permutation(sorted(first.values()))[:ENTRIES]


def groups(images: Floats | Sequence[Floats], seed: int) -> Iterator[tuple[Integers, list[int]]]:
    """Of images (N,h,w) on the grid: indices of those that are left out together, and of all that go with them. A group
    that would leave nothing of the support is passed over."""
    indices = chosen(images, seed)
    for first in range(0, len(indices), GROUP):
        members = indices[first : first + GROUP]
        gone = copies_of(images, members)
        if len(gone) < len(images):
            yield members, gone


def copies_of(images: Floats | Sequence[Floats], members: Sequence[int] | Integers) -> list[int]:
    """Indices of the images that equal one of the members, themselves included."""
    return [i for i, image in enumerate(images) if any(np.array_equal(image, images[m]) for m in members)]


def others(images: Floats, member: int, size: int, rng: np.random.Generator) -> Integers:
    """Up to `size` images (N,h,w), drawn, none of which equals the member."""
    return np.sort(rng.permutation(np.setdiff1d(np.arange(len(images)), copies_of(images, [member])))[:size])


def predicted(runner: Runner, entries: Floats, query: int, support: Sequence[int] | Integers) -> Floats:
    """Probability (h,w) float32 of one of the entries (N,2,h,w), with others of them as its support."""
    given = entries[None, np.asarray(support, np.intp)]
    prepared = runner.prepare(given, np.full(given.shape[:2], 1 / given.shape[1], np.float32))
    return np.asarray(sigmoid(runner.run(prepared, entries[query][None, :1])[0, 0, 0]), np.float32)


def differing(images: Floats | Sequence[Floats]) -> int:
    """How many images differ from one another."""
    return len({image.tobytes() for image in images})
