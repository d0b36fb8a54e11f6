"""Support sets that share their entries: held once, written out set by set, in groups that bound the memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ..errors import InputError
from ..named_types import Doubles, Floats

# Sets that take no more than this written out are prepared once and kept; more are prepared group by group in each run.
GROUP_BYTES = 512 * 2**20


@dataclass(frozen=True, eq=False)
class PreparedSupport:
    """What `prepare` gives and `run` takes: a backend's own value, for `sets` support sets of images of `size` (height,
    width)."""

    value: object
    sets: int
    size: tuple[int, int]


class WrittenOut(Protocol):
    """What is asked of a Runner here: sets written out, as `Runner.prepare` and `Runner.run` take them."""

    def prepare(self, support: Floats, weights: Floats) -> PreparedSupport | SharedEntries: ...

    def run(self, prepared: PreparedSupport | SharedEntries, queries: Floats) -> Floats: ...

    def mean_constants(
        self, prepared: PreparedSupport | SharedEntries, query: Floats, shares: Doubles
    ) -> tuple[Floats, list[Floats]]: ...


@dataclass(frozen=True, eq=False)
class SharedEntries:
    """Entries (N,2,H,W) and weights (K,N) of sets too large to be held written out; each run prepares them anew, in
    groups."""

    entries: Floats
    weights: Floats

    def run(self, runner: WrittenOut, queries: Floats) -> Floats:
        """Logits (B,K,1,H,W), as `Runner.run`."""
        return np.concatenate([runner.run(prepared, queries) for _, prepared in self._groups(runner)], axis=1)

    def mean_constants(
        self, runner: WrittenOut, query: Floats, shares: Doubles
    ) -> tuple[Floats, list[Floats]]:
        """As `Runner.mean_constants`."""
        logits, sums = [], None
        for chosen, prepared in self._groups(runner):
            some, maps = runner.mean_constants(prepared, query, shares[chosen])
            logits.append(some)
            sums = maps if sums is None else [total + each for total, each in zip(sums, maps)]
        assert sums is not None  # there is at least one set
        return np.concatenate(logits), sums

    def _groups(self, runner: WrittenOut) -> Iterator[tuple[slice, PreparedSupport]]:
        """Which sets, prepared."""
        size = sets_in_group(largest_set(self.weights), self.entries[0].nbytes)
        for first in range(0, len(self.weights), size):
            chosen = slice(first, first + size)
            prepared = runner.prepare(*written_out(self.entries, self.weights[chosen]))
            assert not isinstance(prepared, SharedEntries)  # sets that are written out are not shared
            yield chosen, prepared


def prepare(runner: WrittenOut, entries: Floats, weights: Floats) -> PreparedSupport | SharedEntries:
    """What `runner.prepare` gives for the sets written out, where they are small; else SharedEntries."""
    if entries.ndim != 4 or 0 in entries.shape or weights.ndim != 2 or weights.shape[1] != len(
            entries) or not len(weights):
        raise InputError(
            f"entries have shape {entries.shape} and weights {weights.shape}; expected (N,2,H,W) and (K,N)")
    check_weights(weights)
    size = sets_in_group(largest_set(weights), entries[0].nbytes)
    if size >= len(weights):
        return runner.prepare(*written_out(entries, weights))
    runner.prepare(*written_out(entries, weights[:size]))  # what the runner refuses, it refuses now
    return SharedEntries(np.ascontiguousarray(entries, np.float32), weights)


def check_weights(weights: Floats) -> None:
    """Raise InputError where weights (K, entries) are negative or do not sum to 1 in each set."""
    if not (weights >= 0).all() or not np.allclose(weights.sum(axis=1), 1, atol=1e-3):
        raise InputError(
            f"weights of the sets sum to {weights.sum(axis=1)}; give weights from 0 that sum to 1 in each set")


def sets_in_group(entries: int, entry_bytes: int) -> int:
    """How many sets of so many entries are held written out at a time."""
    return max(1, GROUP_BYTES // max(1, entries * entry_bytes))


def largest_set(weights: Floats) -> int:
    """Entries of the largest set; weights: (K,N)."""
    return int((weights != 0).sum(axis=1).max())


def written_out(entries: Floats, weights: Floats) -> tuple[Floats, Floats]:
    """Support (K,S,2,H,W) and weights (K,S) float32 of sets that share entries, zero-padded to the largest set."""
    if len(weights) == 1 and weights.all():
        return np.asarray(entries[None], np.float32), np.asarray(weights, np.float32)
    largest = largest_set(weights)
    support = np.zeros((len(weights), largest, *entries.shape[1:]), np.float32)
    rows = np.zeros((len(weights), largest), np.float32)
    for k, row in enumerate(weights):
        used = np.flatnonzero(row)
        support[k, : len(used)], rows[k, : len(used)] = entries[used], row[used]
    return support, rows
