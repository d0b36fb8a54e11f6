"""Intervals of means over subjects, and refusing one where there are too few."""

from __future__ import annotations

import math
import warnings

import numpy as np
from scipy import stats

LEAST = 3  # subjects of an interval
MANY = 10  # subjects from which on a bootstrap is wide enough
LEVEL = 0.95
RESAMPLES = 4999


def interval(values: np.ndarray, units: np.ndarray, seed: int = 0) -> tuple[float, float] | None:
    """The 95 % interval of the mean of values (N,), where those of one unit (N,) (a subject, say) belong together; None
    for fewer than LEAST units.

    From MANY units on the bias-corrected and accelerated bootstrap, which draws units (Efron 1987). Below, where it is
    too narrow, Student's t, with the variance of a mean over clusters.
    """
    values = np.asarray(values, np.float64)
    names, index = np.unique(units, return_inverse=True)
    if len(names) < LEAST:
        return None
    sums, counts = np.bincount(index, values), np.bincount(index).astype(np.float64)
    mean = float(values.mean())
    spread = sums - mean * counts
    if not np.abs(spread).max() > 1e-12:
        return mean, mean
    if len(names) >= MANY:
        found = _bootstrap(sums, counts, seed)
        if all(map(math.isfinite, found)):
            return found
    error = math.sqrt(len(names) / (len(names) - 1) * float((spread**2).sum())) / counts.sum()
    reach = float(stats.t.ppf(0.5 + LEVEL / 2, len(names) - 1)) * error
    return mean - reach, mean + reach


def _bootstrap(sums: np.ndarray, counts: np.ndarray, seed: int) -> tuple[float, float]:
    def mean(s: np.ndarray, c: np.ndarray, axis: int = -1) -> np.ndarray:
        return s.sum(axis) / c.sum(axis)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)  # its interval is nan, and t's is taken
        found = stats.bootstrap((sums, counts), mean, paired=True, vectorized=True, confidence_level=LEVEL,
                                n_resamples=RESAMPLES, method="BCa", rng=np.random.default_rng(seed))
    return float(found.confidence_interval.low), float(found.confidence_interval.high)
