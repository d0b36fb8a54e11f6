"""Ensemble: several support sets drawn from one, whose predictions are averaged (paper section 3.3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from .errors import InputError
from .named_types import Doubles, Floats, Integers

MAX_MEMBERS = 1000
MAX_SUPPORT_SIZE = 100_000

Policy = Literal["random", "nearest", "all"]
RANDOM: Policy = "random"
NEAREST: Policy = "nearest"
ALL: Policy = "all"
POLICIES: tuple[Policy, ...] = (RANDOM, NEAREST, ALL)

Member = tuple[Integers, Doubles]  # indices (n,) of a member's distinct entries, and their weights (n,)


@dataclass(frozen=True)
class Ensemble:
    """members: number of support sets (K). support_size: entries of each (S); None takes as many as there are.

    replacement: whether a set may hold an entry twice (the paper draws so). seed: of the drawing, the same sets for the
    same seed. Members that draw the same set are computed once. K = 1 and S = 16 are a good beginning; a single
    example does not tell what of it counts.

    policy: which entries a set holds. `random` draws them once for all queries, as the paper does. `nearest` takes for
    each query the S entries whose images are the most similar to it (`imaging.embedding`); with several members each
    draws S of the K * S most similar. `all` takes every entry. What nearest costs: each query is embedded and its own
    sets are prepared, little beside the network's run; the whole support is held on the grid, 131 kB an entry at
    128x128; such a task cannot be frozen.

    Raises InputError where a value is out of range or does not go with the policy.
    """

    members: int = 1
    support_size: int | None = None
    replacement: bool = False
    seed: int = 0
    policy: Policy = RANDOM

    def __post_init__(self) -> None:
        _integer("members", self.members, 1, MAX_MEMBERS)
        if self.support_size is not None:
            _integer("support_size", self.support_size, 1, MAX_SUPPORT_SIZE)
        _integer("seed", self.seed, 0, 2**63 - 1)
        if not isinstance(self.replacement, bool):
            raise InputError(f"replacement is {self.replacement!r}; give True or False")
        if not isinstance(self.policy, str) or self.policy not in POLICIES:
            raise InputError(f"policy is {self.policy!r}; accepted: {', '.join(POLICIES)}")
        if self.policy != RANDOM and self.replacement:
            raise InputError(f"policy {self.policy!r} holds an entry once; leave replacement out, or draw at random")
        if self.policy == ALL and self.support_size is not None:
            raise InputError(f"policy 'all' takes every entry, but support_size is {self.support_size}; leave it out")
        if self.policy == NEAREST and self.support_size is None:
            raise InputError("policy 'nearest' needs a support_size, the number of most similar entries; 16 is a good "
                             "beginning")

    def draw(self, available: int, nearest: Integers | None = None) -> list[Member]:
        """Draw each member's distinct entries: their indices (n,) and their weights (n,), which sum to 1.

        nearest: (available,) indices of all entries from the most similar to the least, which the policy `nearest`
        needs. An entry drawn twice counts twice in every mean over the support, so it is computed once with twice the
        weight: the result is the same, the work less. Raises InputError where a set needs more entries than there are.
        """
        size = available if self.support_size is None else self.support_size
        if not self.replacement and size > available:
            cure = "draw with replacement=True, or at most" if self.policy == RANDOM else "take at most"
            raise InputError(
                f"support_size is {size}, but the support set has {available} entries; {cure} {available}")
        rng = np.random.default_rng(self.seed)
        candidates: int | Integers = available
        if self.policy == NEAREST:
            if nearest is None:
                raise InputError("policy 'nearest' draws for a query; give the order of the entries by similarity")
            candidates = nearest[: self.members * size]
        out = []
        for _ in range(self.members):
            drawn = rng.choice(candidates, size, replace=self.replacement)
            indices, counts = np.unique(drawn, return_counts=True)
            out.append((indices, counts.astype(np.float64) / size))
        return out


@dataclass(frozen=True, eq=False)
class Draw:
    """What an ensemble draws from a support: sets that differ, over the entries that any of them has.

    used: (N,) indices of these entries in the support. weights: (K,N) float32, each row summing to 1, zero for what a
    set lacks. places: for each member as drawn the index of its set.
    """

    used: Integers
    weights: Floats
    places: Integers

    @classmethod
    def of(cls, available: int, ensemble: Ensemble, nearest: Integers | None = None) -> Draw:
        """Takes and raises what `Ensemble.draw` does."""
        found: dict[bytes, int] = {}
        sets: list[Member] = []
        places: list[int] = []
        for indices, weights in ensemble.draw(available, nearest):
            key = indices.tobytes() + weights.tobytes()
            if key not in found:
                found[key] = len(sets)
                sets.append((indices, weights))
            places.append(found[key])
        used = np.unique(np.concatenate([indices for indices, _ in sets]))
        rows = np.zeros((len(sets), len(used)), np.float32)
        for row, (indices, weights) in zip(rows, sets):
            row[np.searchsorted(used, indices)] = weights
        return cls(used, rows, np.array(places))

    @property
    def shares(self) -> Doubles:
        """(K,) of each set among the members."""
        return np.bincount(self.places, minlength=len(self.weights)) / len(self.places)


def _integer(name: str, value: object, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not low <= value <= high:
        raise InputError(f"{name} is {value!r}; accepted: an integer from {low} to {high}")
