"""Windows on images: boxes around what is marked, with a margin, cut out and put back in place."""

from __future__ import annotations

import math

import numpy as np

from ..errors import InputError, shown
from ..named_types import Array, Bools, Floats

Box = tuple[int, int, int, int]  # top, left, bottom, right in pixels; bottom and right are the first outside

MARGIN = 0.5  # on each side, as a share of the marked box's height and width
LEAST = 0.25  # a window's height and width, as a share of the image's
MOST = 0.8  # above it a window shows hardly more than the image
STRAY = 0.02  # share of the marked pixels that may lie outside a box at each end


def box_around(mask: Bools, stray: float = 0.0) -> Box | None:
    """The smallest box that holds what a mask (H,W) marks, without up to a share `stray` of its pixels at each of the
    four sides; None for an empty mask."""
    if not mask.any():
        return None
    ends: list[int] = []
    for axis in (1, 0):
        marked = mask.sum(axis=axis).cumsum()
        low, high = np.searchsorted(marked, (stray * marked[-1], (1 - stray) * marked[-1]), side="left")
        if not stray:
            low = int(np.flatnonzero(marked)[0])
        ends += [int(low), int(high) + 1]
    top, bottom, left, right = ends
    return top, left, bottom, right


def scale_of(box: Box, shape: tuple[int, ...], margin: float = MARGIN) -> float:
    """The share of an image's height and width that a window of the image's proportions needs for a box with a margin,
    from LEAST to 1."""
    top, left, bottom, right = box
    needed = max((bottom - top) / shape[0], (right - left) / shape[1]) * (1 + 2 * margin)
    return min(1.0, max(LEAST, needed))


def window_around(box: Box, shape: tuple[int, ...], scale: float) -> Box:
    """A window of a share `scale` of an image's height and width, centred on a box as far as the image goes."""
    ends = []
    for low, high, size in ((box[0], box[2], shape[0]), (box[1], box[3], shape[1])):
        length = min(size, max(1, math.ceil(scale * size)))
        start = min(max(0, round((low + high - length) / 2)), size - length)
        ends.append((start, start + length))
    (top, bottom), (left, right) = ends
    return top, left, bottom, right


def cut(image: Array, box: Box) -> Array:
    """(H,W,...) -> the part within a box, without a copy."""
    top, left, bottom, right = box
    return image[top:bottom, left:right]


def put_back(values: Array, box: Box, shape: tuple[int, ...]) -> Array:
    """The inverse of `cut`: values of a box in an image (H,W) of zeros."""
    out = np.zeros(shape[:2], values.dtype)
    cut(out, box)[...] = values
    return out


def check_region(region: object, shape: tuple[int, ...], name: str = "region") -> Box | None:
    """A region as a box: four integers within the image (top, left, bottom, right), or a mask (H,W) bool, whose window
    is around what it marks, with a margin; None for an empty mask. InputError for anything else."""
    if isinstance(region, np.ndarray) and region.ndim == 2:
        if region.dtype != bool or region.shape != tuple(shape[:2]):
            raise InputError(
                f"{name} is a mask {region.shape} of {region.dtype}; expected bool of the image's size {shape[:2]}")
        box = box_around(region)
        return None if box is None else window_around(box, shape, scale_of(box, shape))
    try:
        sides = [int(value) for value in region if value == int(value)]  # type: ignore[attr-defined]
        top, left, bottom, right = sides
    except (TypeError, ValueError):
        raise InputError(
            f"{name} is {shown(region)}; give a mask (H,W), or top, left, bottom, right in pixels") from None
    check_box((top, left, bottom, right), name, shape)
    return top, left, bottom, right


def check_box(box: Box, name: str, shape: tuple[int, ...] | None = None) -> None:
    """InputError for a box that lies outside an image of this shape, or without one, that is a box in none."""
    top, left, bottom, right = box
    height, width = (math.inf, math.inf) if shape is None else shape[:2]
    if not (0 <= top < bottom <= height and 0 <= left < right <= width):
        of = "" if shape is None else f" of {shape[0]}x{shape[1]}"
        raise InputError(f"{name} is {box}; accepted: top, left, bottom, right within the image{of}, the first two "
                         "below the others")


def inside(values: Floats, threshold: float) -> Bools:
    """Where probabilities (H,W) reach the threshold, or half their greatest value where none does."""
    out: Bools = values >= min(threshold, 0.5 * float(values.max()))
    return out
