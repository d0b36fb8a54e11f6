"""From which probability to mark, chosen on entries left out of the support (`left_out`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import InputError
from ..imaging.metrics import dice
from ..named_types import Bools, Doubles, Floats

THRESHOLD = 0.5  # where nothing else is said
CHOOSE = "choose"
CHOOSING = 5  # entries from which on one is chosen: without one of them four are left to judge it by
THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
LEAST_GAIN = 0.03  # of Dice on entries left out, from which a change is taken
# Student's 97.5 % quantile for 3, 4, ... entries. A gain must exceed so many standard errors; the last serves for more.
STUDENT = (4.30, 3.18, 2.78, 2.57, 2.45, 2.36)
FEWEST = 3


@dataclass(frozen=True, eq=False)
class Gain:
    """What a change gains in Dice on entries left out: the mean, and the half of its 95 % interval, infinite of fewer
    than FEWEST."""

    mean: float
    half_width: float

    @classmethod
    def of(cls, changed: Doubles, before: Doubles) -> Gain:
        """Dice (N,) with the change and before it, N at least 1."""
        gains, count = changed - before, len(changed)
        if count < FEWEST:
            return cls(float(gains.mean()), float("inf"))
        error = float(gains.std(ddof=1)) / count**0.5
        return cls(float(gains.mean()), STUDENT[min(count - FEWEST, len(STUDENT) - 1)] * error)

    @property
    def pays(self) -> bool:
        return self.mean >= LEAST_GAIN and self.mean > self.half_width


def check_threshold(threshold: object) -> float:
    """InputError unless it is a number between 0 and 1."""
    if isinstance(threshold, bool) or not isinstance(threshold, (int, float, np.floating)) or not 0 < threshold < 1:
        raise InputError(f"threshold is {threshold!r}; give a number between 0 and 1")
    return float(threshold)


def dice_at(probability: Floats, label: Bools) -> list[float]:
    """Dice at each of THRESHOLDS, of probability and label (H,W)."""
    return [dice(probability >= t, label) for t in THRESHOLDS]


def best(scores: Doubles) -> float:
    """Of Dice (N,T) at each of THRESHOLDS the threshold of the highest mean; of equal ones the nearest to 0.5."""
    mean = scores.mean(axis=0)
    highest = [t for t, value in zip(THRESHOLDS, mean) if value >= mean.max() - 1e-12]
    return min(highest, key=lambda t: abs(t - THRESHOLD))


def by_the_others(scores: Doubles) -> Doubles:
    """(N,) Dice of each entry at the threshold that is `best` for the others, N at least 2."""
    return np.array([row[THRESHOLDS.index(best(np.delete(scores, i, 0)))] for i, row in enumerate(scores)])


def taken(scores: Doubles) -> float:
    """The `best` threshold where it pays, judged `by_the_others`; else, and of FEWEST entries or less, 0.5."""
    if len(scores) <= FEWEST or not Gain.of(by_the_others(scores), scores[:, THRESHOLDS.index(THRESHOLD)]).pays:
        return THRESHOLD
    return best(scores)


def as_taken(scores: Doubles | Sequence[Sequence[float]]) -> Doubles:
    """(N,) Dice of each entry at the threshold that would be `taken` of the others: what to expect, since no entry is
    judged by a choice that it was part of."""
    scores = np.asarray(scores, np.float64)
    return np.array([row[THRESHOLDS.index(taken(np.delete(scores, i, 0)))] for i, row in enumerate(scores)])
