"""Measures how well two masks agree."""

from __future__ import annotations

import numpy as np

from ..errors import InputError
from ..named_types import Array, Bools, Floats


def expected_dice(probability: Floats, mask: Bools) -> float:
    """2Σpm / (Σp + Σm) of probabilities p and a bool mask m of one shape: the Dice to expect if each pixel is marked
    with its probability. From 0 to 1; 0 where the mask is empty."""
    total = float(probability.sum(dtype=np.float64)) + int(mask.sum())
    return 2 * float(probability[mask].sum(dtype=np.float64)) / total if total else 0.0


def dice(mask: Array, truth: Array) -> float:
    """Dice score 2|A∩B| / (|A|+|B|) of two bool masks of one shape, from 0 to 1; two empty masks agree (1).

    Source: paper section 5.1, there scaled to 100. Raises InputError where the shapes differ.
    """
    if mask.shape != truth.shape:
        raise InputError(f"masks of shapes {mask.shape} and {truth.shape} cannot be compared")
    mask, truth = mask.astype(bool), truth.astype(bool)
    size = int(mask.sum()) + int(truth.sum())
    return 2.0 * int((mask & truth).sum()) / size if size else 1.0
