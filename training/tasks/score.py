"""How well a query is segmented: Dice of the mask that the SDK would make."""

from __future__ import annotations

import numpy as np

from universeg_rt.answers.thresholds import THRESHOLD
from universeg_rt.imaging.metrics import dice


def mask_of(members: np.ndarray) -> np.ndarray:
    """Mask (H,W) bool of an ensemble's probabilities (K,H,W): where their mean reaches the SDK's threshold."""
    return members.mean(axis=0) >= THRESHOLD


def query_dice(members: np.ndarray, label: np.ndarray) -> float:
    """Dice of that mask with a label (H,W), foreground where positive."""
    return dice(mask_of(members), label > 0)
