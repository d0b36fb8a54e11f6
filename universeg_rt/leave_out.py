"""Leaving entries of a support out, so that they are judged by the others: for the price of a frozen task, for what a
support holds that hurts, and for what in it is suspicious."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .named_types import Doubles, Floats, Integers
from .predictor import sigmoid
from .runners import Runner


def copies_of(entries: Floats, members: Sequence[int] | Integers) -> list[int]:
    """Indices of entries (N,2,h,w) whose image equals that of one of the members, themselves included."""
    return [i for i, entry in enumerate(entries) if any(np.array_equal(entry[0], entries[m][0]) for m in members)]


def without(gone: Sequence[int], weights: Floats, shares: Doubles) -> tuple[Floats, Doubles]:
    """The sets (K,N) and their shares without these entries; where nothing is left of any, sets of one entry each."""
    kept = weights.copy()
    kept[:, gone] = 0
    whole = kept.sum(axis=1) > 0
    if not whole.any():
        kept = np.delete(np.eye(weights.shape[1], dtype=np.float32), gone, 0)
        return kept, np.full(len(kept), 1 / len(kept))
    return kept[whole] / kept[whole].sum(axis=1, keepdims=True), shares[whole] / shares[whole].sum()


def predicted(runner: Runner, entries: Floats, query: int, chosen: Sequence[int] | Integers) -> Floats:
    """Probability (h,w) float32 of one of the entries (N,2,h,w), where the chosen ones are its support."""
    support = entries[None, np.asarray(chosen, np.intp)]
    prepared = runner.prepare(support, np.full(support.shape[:2], 1 / support.shape[1], np.float32))
    return np.asarray(sigmoid(runner.run(prepared, entries[query][None, :1])[0, 0, 0]), np.float32)


def drawn_others(entries: Floats, query: int, size: int, rng: np.random.Generator) -> Integers:
    """Up to `size` entries, none of which has the query's image."""
    others = np.setdiff1d(np.arange(len(entries)), copies_of(entries, [query]))
    return np.sort(rng.permutation(others)[:size])
