"""Ensemble: several support sets drawn from one, whose predictions are averaged (paper section 3.3)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .errors import InputError

MAX_MEMBERS = 1000
MAX_SUPPORT_SIZE = 100_000


@dataclass(frozen=True)
class Ensemble:
    """members: how many support sets (K). support_size: entries of each (S), None for as many as there are.

    replacement: whether an entry may be drawn twice into the same set (the paper draws so). seed: of the drawing.
    Members that draw the same set are computed once. Raises InputError where a value is out of range.
    """

    members: int = 1
    support_size: int | None = None
    replacement: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        _integer("members", self.members, 1, MAX_MEMBERS)
        if self.support_size is not None:
            _integer("support_size", self.support_size, 1, MAX_SUPPORT_SIZE)
        _integer("seed", self.seed, 0, 2**63 - 1)
        if not isinstance(self.replacement, bool):
            raise InputError(f"replacement is {self.replacement!r}; give True or False")

    def draw(self, available: int) -> list[tuple[np.ndarray, np.ndarray]]:
        """For each member the indices of its distinct entries and their weights, which sum to 1.

        An entry drawn twice counts twice in every mean over the support, so it is computed once with twice the weight:
        the result is the same, the work less. Raises InputError where more entries are asked for than there are.
        """
        size = available if self.support_size is None else self.support_size
        if not self.replacement and size > available:
            raise InputError(
                f"support_size is {size}, but the support set has {available} entries; draw with replacement=True, "
                f"or at most {available}")
        rng = np.random.default_rng(self.seed)
        out = []
        for _ in range(self.members):
            drawn = rng.choice(available, size, replace=self.replacement)
            indices, counts = np.unique(drawn, return_counts=True)
            out.append((indices, counts.astype(np.float64) / size))
        return out


def distinct(drawn: list[tuple[np.ndarray, np.ndarray]]) -> tuple[list[tuple[np.ndarray, np.ndarray]], np.ndarray]:
    """The members that differ, and for each member as drawn the index (K,) of its equal among them."""
    found: dict[bytes, int] = {}
    members, places = [], []
    for indices, weights in drawn:
        key = indices.tobytes() + weights.tobytes()
        if key not in found:
            found[key] = len(members)
            members.append((indices, weights))
        places.append(found[key])
    return members, np.array(places)


def _integer(name: str, value: object, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not low <= value <= high:
        raise InputError(f"{name} is {value!r}; accepted: an integer from {low} to {high}")
