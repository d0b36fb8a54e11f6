"""Distances between the outlines of two masks, in pixels."""

from __future__ import annotations

import math

import numpy as np
from scipy import ndimage

from universeg_rt.errors import InputError

TOLERANCE = 2.0  # pixels, of the normalised surface Dice


def surface_distances(mask: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each pixel on the outline of mask (H,W) bool the distance in pixels to the nearest one on that of truth
    (H,W) bool, and the other way round.

    A pixel is on the outline where one of its four neighbours, or the image's rim, is not of its mask. Where one mask
    is empty, the other's distances are the image's diagonal. Raises InputError where the shapes differ or are not
    (H,W).
    """
    if mask.shape != truth.shape or mask.ndim != 2:
        raise InputError(f"masks of shapes {mask.shape} and {truth.shape}; expected (H,W) twice")
    outlines = [m & ~ndimage.binary_erosion(m) for m in (mask.astype(bool), truth.astype(bool))]
    far = math.hypot(*mask.shape)
    maps = [ndimage.distance_transform_edt(~o) if o.any() else np.full(mask.shape, far) for o in outlines]
    return maps[1][outlines[0]], maps[0][outlines[1]]


def hausdorff95(distances: tuple[np.ndarray, np.ndarray]) -> float:
    """HD95 in pixels of `surface_distances`: the greater of the two directions' 95th percentiles; 0 for two empty
    masks. Source: Maier-Hein et al. 2024, "Metrics reloaded"."""
    return max((float(np.percentile(d, 95)) for d in distances if d.size), default=0.0)


def surface_dice(distances: tuple[np.ndarray, np.ndarray], tolerance: float = TOLERANCE) -> float:
    """NSD of `surface_distances`, from 0 to 1: the share of both outlines that lies within `tolerance` pixels of the
    other; 1 for two empty masks. Source: Nikolov et al. 2018, by counted pixels."""
    both = np.concatenate(distances)
    return float((both <= tolerance).mean()) if both.size else 1.0
