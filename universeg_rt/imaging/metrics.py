"""Measures how well two masks agree, and how far probabilities and confidences may be believed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..errors import InputError
from ..named_types import Array, Bools, Doubles, Floats

CALIBRATION_BINS = 10
BAD_DICE = 0.5  # a mask of a lower Dice counts as a failure


def expected_dice(probability: Floats, mask: Bools) -> float:
    """2Σpm / (Σp + Σm) of probabilities p and a bool mask m of one shape: the Dice to expect if each pixel is marked
    with its probability. From 0 to 1; 0 where the mask is empty."""
    total = float(probability.sum(dtype=np.float64)) + int(mask.sum())
    return 2 * float(probability[mask].sum(dtype=np.float64)) / total if total else 0.0


def mean_inside(probability: Floats, mask: Bools) -> float:
    """Mean of probabilities where a bool mask of their shape marks; 0 where it is empty."""
    inside = probability[mask]
    return float(inside.mean(dtype=np.float64)) if inside.size else 0.0


def dice(mask: Array, truth: Array) -> float:
    """Dice score 2|A∩B| / (|A|+|B|) of two bool masks of one shape, from 0 to 1; two empty masks agree (1).

    Source: paper section 5.1, there scaled to 100. Raises InputError where the shapes differ.
    """
    mask, truth = _of_one_shape(mask, truth)
    size = int(mask.sum()) + int(truth.sum())
    return 2.0 * int((mask & truth).sum()) / size if size else 1.0


def unit_maps(maps: Array) -> Doubles:
    """(..., H, W) less the mean of each, of unit length, so that the sum of products of two is their correlation over
    pixels (Pearson's); zeros for a map of one value."""
    centred = maps.astype(np.float64)
    centred = centred - centred.mean(axis=(-2, -1), keepdims=True)
    length = np.sqrt((centred**2).sum(axis=(-2, -1), keepdims=True))
    return np.asarray(np.divide(centred, length, out=np.zeros_like(centred), where=length > 0))


def correlations(image: Array, others: Array) -> Doubles:
    """(N,) correlation over pixels of an image (H,W) with others (N,H,W); 0 where one of the two has one value."""
    return np.asarray(unit_maps(others).reshape(len(others), -1) @ unit_maps(image).ravel())


def area_error(mask: np.ndarray, truth: np.ndarray) -> float:
    """(|A|-|B|) / |B| of a bool mask A and its truth B of one shape: -1 for an empty mask, 0 for the true area; nan
    where the truth is empty. Raises InputError where the shapes differ."""
    mask, truth = _of_one_shape(mask, truth)
    size = int(truth.sum())
    return (int(mask.sum()) - size) / size if size else float("nan")


def calibration_bins(probability: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """(3,CALIBRATION_BINS) float64 of probabilities in [0, 1] and a bool truth of one shape: for each of equally wide
    bins of probability the number of pixels, the sum of their probabilities and how many of them are true. Sums of
    several images may be added. Raises InputError where the shapes differ."""
    probability, truth = np.asarray(probability, np.float64), np.asarray(truth, bool)
    if probability.shape != truth.shape:
        raise InputError(f"probabilities {probability.shape} and a truth {truth.shape} cannot be compared")
    place = np.minimum((probability * CALIBRATION_BINS).astype(np.intp), CALIBRATION_BINS - 1).ravel()
    return np.stack([np.bincount(place, weights, CALIBRATION_BINS)
                     for weights in (None, probability.ravel(), truth.ravel().astype(np.float64))]).astype(np.float64)


def calibration_error(bins: np.ndarray) -> float:
    """Expected calibration error of (3,N) bins: the mean over pixels of |mean probability - share that is true| of
    their bin, from 0 to 1; nan where no pixel was counted. Background counts, so that small targets have small errors.

    Source: Guo et al. 2017, "On calibration of modern neural networks", equation 5.
    """
    pixels, probability, true = bins
    return float(np.abs(probability - true).sum() / pixels.sum()) if pixels.sum() else float("nan")


def ranks(values: Sequence[float] | np.ndarray) -> np.ndarray:
    """Rank of each value from 1; equal values share the mean of theirs."""
    _, inverse, counts = np.unique(np.asarray(values), return_inverse=True, return_counts=True)
    shared: np.ndarray = (counts.cumsum() - (counts - 1) / 2)[inverse]
    return shared


def rank_correlation(a: Sequence[float] | np.ndarray, b: Sequence[float] | np.ndarray) -> float:
    """Spearman's, ties by their mean rank; nan where one of the two does not vary."""
    x, y = ranks(a), ranks(b)
    return float(np.corrcoef(x, y)[0, 1]) if x.std() > 0 and y.std() > 0 else float("nan")


def auroc(signal: Sequence[float] | np.ndarray, bad: np.ndarray) -> float:
    """Probability that a bad mask has a lower signal than a good one; equal signals count half. nan where one kind is
    missing."""
    good, total = ~bad, len(bad)
    if bad.all() or good.all():
        return float("nan")
    return float((ranks(signal)[good].sum() - good.sum() * (good.sum() + 1) / 2) / (good.sum() * (total - good.sum())))


def _of_one_shape(mask: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if mask.shape != truth.shape:
        raise InputError(f"masks of shapes {mask.shape} and {truth.shape} cannot be compared")
    return mask.astype(bool), truth.astype(bool)
