"""From which probability to mark, chosen on entries left out of the support (`left_out`)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import InputError
from ..imaging.metrics import dice
from ..named_types import Bools, Doubles, Floats

THRESHOLD = 0.5  # where nothing else is chosen
THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
LEAST_GAIN = 0.03  # of Dice on entries left out, from which a change is taken
ERRORS = 2.0  # standard errors of the gain that it must exceed too


@dataclass(frozen=True, eq=False)
class Gain:
    """What a change gains in Dice on entries left out: the mean, and its standard error (infinite of one entry)."""

    mean: float
    error: float

    @classmethod
    def of(cls, changed: Doubles, before: Doubles) -> Gain:
        """Dice (N,) with the change and before it, N at least 1."""
        gains = changed - before
        error = float(gains.std(ddof=1)) / len(gains) ** 0.5 if len(gains) > 1 else float("inf")
        return cls(float(gains.mean()), error)

    @property
    def pays(self) -> bool:
        return self.mean >= LEAST_GAIN and self.mean > ERRORS * self.error


@dataclass(frozen=True, eq=False)
class Chosen:
    """The best threshold of all entries, and Dice (N,) of each entry with what the others would choose."""

    threshold: float
    held_out: Doubles


def check_threshold(threshold: object) -> float:
    """InputError unless it is a number between 0 and 1."""
    if isinstance(threshold, bool) or not isinstance(threshold, (int, float, np.floating)) or not 0 < threshold < 1:
        raise InputError(f"threshold is {threshold!r}; give a number between 0 and 1")
    return float(threshold)


def offset(threshold: float) -> float:
    """What moves logits so that 0.5 marks what the threshold marked before."""
    return math.log1p(-threshold) - math.log(threshold)


def dice_at(probability: Floats, label: Bools) -> list[float]:
    """Dice at each of THRESHOLDS, of probability and label (H,W)."""
    return [dice(probability >= t, label) for t in THRESHOLDS]


def choose(scores: Doubles | Sequence[Sequence[float]]) -> Chosen:
    """Of Dice (N,T) at each of THRESHOLDS, N at least 2."""
    scores = np.asarray(scores, np.float64)
    held_out = [row[THRESHOLDS.index(_best(np.delete(scores, i, 0)))] for i, row in enumerate(scores)]
    return Chosen(_best(scores), np.array(held_out))


def _best(scores: Doubles) -> float:
    """Of scores (N,T) the threshold of the highest mean; of equal ones the one nearest to 0.5."""
    mean = scores.mean(axis=0)
    best = [t for t, value in zip(THRESHOLDS, mean) if value >= mean.max() - 1e-12]
    return min(best, key=lambda t: abs(t - THRESHOLD))
