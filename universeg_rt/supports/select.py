"""The entries of a support that look the most like some images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import InputError, shown
from ..imaging.embedding import embed
from ..imaging.normalisation import MINMAX, Normalisation
from ..imaging.preprocess import check_image
from ..named_types import Array, Floats
from ..support import PlacedImage, SupportSet

GRID = (128, 128)  # on which images are compared, as the shipped network reads them


@dataclass(frozen=True)
class Selected:
    """support: the entries chosen, in their order. similarity: of each to the query it is the most like, -1 to 1."""

    support: SupportSet
    similarity: tuple[float, ...]


def select(
    support: SupportSet, queries: Sequence[Array], count: int, *, aspect: str = "stretch",
    normalise: Normalisation = MINMAX,
) -> Selected:
    """The `count` entries the most similar to the queries (H,W): for one query the nearest; for several, entries chosen
    one by one so that each query has one that is like it.

    InputError where count is out of range, there is no query, or one is blank.
    """
    if isinstance(count, bool) or not isinstance(count, (int, np.integer)) or not 1 <= count <= len(support):
        raise InputError(f"count is {shown(count)}; accepted: 1 to {len(support)}, the entries of the support")
    if not len(queries):
        raise InputError("no query is given; give at least one image that entries are to be like")
    offered = embed(support.on_grid(GRID, aspect, normalise)[:, 0])
    names = [f"query {i}" for i in range(len(queries))]
    asked = embed(np.stack([PlacedImage.of(check_image(image, name), name, GRID, aspect, normalise).on_grid
                            for image, name in zip(queries, names)]))
    likeness = asked @ offered.T
    chosen = sorted(cover(likeness, count))
    return Selected(support.subset(chosen), tuple(float(likeness[:, i].max()) for i in chosen))


def cover(likeness: Floats, count: int, first: Sequence[int] = ()) -> list[int]:
    """Indices of up to `count` of M entries, those of `first` among them, chosen one by one by likeness (Q,M): each
    adds the most to the sum over queries of how alike the nearest chosen entry is.

    Greedy choice is within 1 - 1/e of the best sum: the sum is submodular (Nemhauser, Wolsey and Fisher 1978). For one
    query, and wherever no entry adds anything more, those follow that are the most alike to any query.
    """
    taken = list(first)
    best = likeness[:, taken].max(axis=1) if taken else np.full(len(likeness), -1.0, np.float32)
    nearest = likeness.max(axis=0)
    while len(taken) < min(count, likeness.shape[1]):
        gain = np.maximum(likeness, best[:, None]).sum(axis=0) - best.sum()
        order = np.lexsort((-nearest, -np.maximum(gain, 1e-6)))
        taken.append(next(int(i) for i in order if int(i) not in taken))
        best = np.maximum(best, likeness[:, taken[-1]])
    return taken
