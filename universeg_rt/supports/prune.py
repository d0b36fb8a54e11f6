"""Entries of a support that hurt: those without which the others are segmented better.

Each entry is predicted by others, and those with the lowest Dice are candidates. A candidate hurts where the masks of
the entries that are none, each by a set that holds it and by the same set with another entry in its place, are better
without it: on average by MARGIN and by more than twice the standard error. A low Dice alone drops nothing, for a hard
case that is labelled well is worth much. Entries with an empty label stay: they show what absence looks like.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..errors import InputError, shown
from ..imaging.metrics import dice
from ..imaging.normalisation import MINMAX, Normalisation
from ..left_out import copies_of, others, predicted
from ..named_types import Array, Bools, Floats
from ..runners import Runner
from ..segmenter import Segmenter
from ..support import SupportSet

SUPPORT_SIZE = 8  # in larger sets one entry counts for little, and little is seen of what it does
LEAST = 8  # entries that are kept
CANDIDATES = 4  # one in so many entries
JUDGES = 12  # entries by which a candidate is judged
MARGIN = 0.01  # Dice
ERRORS = 2.0  # standard errors


@dataclass(frozen=True)
class Judged:
    """dice: of the entry's label with what others predict. gain: mean Dice that the judges' masks gain without it, with
    its standard error; None where it was no candidate. judges: how many. dropped: whether it was left out."""

    name: str
    dice: float
    gain: float | None = None
    error: float | None = None
    judges: int = 0
    dropped: bool = False

    @property
    def why(self) -> str:
        """In a sentence; empty where it was no candidate."""
        if self.gain is None:
            return ""
        figures = f"without it {self.judges} others gain {self.gain:+.3f} Dice (standard error {self.error:.3f})"
        return f"{figures}: {'dropped' if self.dropped else 'kept'}"


@dataclass(frozen=True)
class Pruned:
    """support: without what was dropped. entries: all that were judged, in their order."""

    support: SupportSet
    entries: tuple[Judged, ...]

    @property
    def dropped(self) -> tuple[Judged, ...]:
        return tuple(entry for entry in self.entries if entry.dropped)


def prune(
    support: SupportSet, segmenter: Segmenter, *, least: int = LEAST, aspect: str = "stretch",
    normalise: Normalisation = MINMAX, seed: int = 0, done: Callable[[int], None] = lambda count: None,
) -> Pruned:
    """Drop what hurts, the worst first, as long as more than `least` entries are left.

    seed: of the sets that are drawn. done: is called with how many runs of the network were made. Raises InputError
    where there are not more than `least` entries, or too few that differ; RunnerError as a runner does.
    """
    if isinstance(least, bool) or not isinstance(least, (int, np.integer)) or least < 1:
        raise InputError(f"the least number of entries is {shown(least)}; give an integer from 1")
    if len(support) <= least:
        raise InputError(f"the support has {len(support)} entries and {least} are to be kept, so that none can be "
                         "dropped; keep fewer, or label more")
    entries = support.on_grid(segmenter.grid, aspect, normalise)
    rng = np.random.default_rng(seed)
    scores = [_left_out(segmenter.runner, entries, i, rng, done) for i in range(len(entries))]
    order = np.argsort(scores, kind="stable")
    marked: Bools = np.any(entries[:, 1], axis=(1, 2))
    order = order[marked[order]]
    candidates = [int(i) for i in order[: max(1, len(order) // CANDIDATES)] if scores[i] < np.median(scores)]
    trusted = [i for i in range(len(entries)) if i not in candidates and marked[i]]
    judged = [Judged(name, score) for name, score in zip(support.names, scores)]
    for candidate in candidates:
        found = _gains(segmenter.runner, entries, candidate, trusted, rng, done)
        if len(found) < 2:
            continue
        gain, error = float(np.mean(found)), float(np.std(found, ddof=1) / np.sqrt(len(found)))
        judged[candidate] = Judged(
            support.names[candidate], scores[candidate], gain, error, len(found), _hurts(gain, error))
    worst = sorted((i for i in candidates if judged[i].dropped), key=lambda i: -(judged[i].gain or 0))
    gone = set(worst[: len(support) - least])
    kept = [i for i in range(len(support)) if i not in gone]
    final = tuple(Judged(j.name, j.dice, j.gain, j.error, j.judges, i in gone) for i, j in enumerate(judged))
    return Pruned(support.subset(kept), final)


def _hurts(gain: float, error: float) -> bool:
    return gain >= MARGIN and gain > ERRORS * error


def _left_out(runner: Runner, entries: Floats, query: int, rng: np.random.Generator,
              done: Callable[[int], None]) -> float:
    """Dice of an entry's label with what others predict; 0 where there are none."""
    chosen = others(entries[:, 0], query, SUPPORT_SIZE, rng)
    return _score(runner, entries, query, chosen, done) if len(chosen) else 0.0


def _gains(runner: Runner, entries: Floats, candidate: int, trusted: list[int], rng: np.random.Generator,
           done: Callable[[int], None]) -> list[float]:
    """Of each judge its Dice without the candidate in its set less that with it."""
    copies = set(copies_of(entries[:, 0], [candidate]))
    out = []
    for judge in rng.permutation([i for i in trusted if i not in copies])[:JUDGES]:
        same = set(copies_of(entries[:, 0], [int(judge)]))
        free = rng.permutation([i for i in trusted if i not in copies | same])[:SUPPORT_SIZE]
        if not len(free):
            continue
        with_it = np.append(free[1:], candidate) if len(free) == SUPPORT_SIZE else np.append(free, candidate)
        out.append(_score(runner, entries, int(judge), free, done) - _score(runner, entries, int(judge), with_it, done))
    return out


def _score(runner: Runner, entries: Floats, query: int, chosen: Array, done: Callable[[int], None]) -> float:
    found = dice(predicted(runner, entries, query, chosen) >= 0.5, entries[query, 1] >= 0.5)
    done(1)
    return found
