"""What an image looks like, in a few hundred numbers: how alike two images are, without a network.

An image is described by its intensities on a coarse grid and by which way its edges run in each part of it, as in
histograms of oriented gradients (Dalal and Triggs 2005). A few hundred images take milliseconds.
"""

from __future__ import annotations

import numpy as np

from ..errors import BlankError
from ..named_types import Array, Floats, Integers
from .normalisation import Normalisation, normalised
from .preprocess import Placement

LOOK = (64, 64)  # the grid on which slices are compared: twice as fine as the embedding's finest part needs
COARSE = 16  # pixels a side of the grid of intensities
CELLS = 4  # parts a side in which edges are counted
LEVELS, STEEPEST = 16, 0.5  # bins of a histogram; the strongest edge that is told from stronger ones
DIRECTIONS = 8  # of an edge, over half a turn: dark to bright counts as bright to dark
NUMBERS = COARSE * COARSE + CELLS * CELLS * DIRECTIONS  # D, of images at least COARSE pixels high and wide


def look_of(image: Array, normalise: Normalisation) -> Floats | None:
    """An image (H,W) on LOOK, stretched, in [0, 1]; None where it is blank."""
    if image.min() == image.max():
        return None
    try:
        wide = normalised(image, normalise, "slice")
        return Placement.of(image.shape, LOOK, "stretch").normalised_to_grid(wide.values, LOOK, "slice", wide.own)
    except BlankError:
        return None


def embed(images: Floats) -> Floats:
    """(N,D) float32 of unit length of images (N,h,w) as the network reads them: in [0, 1], on one grid.

    The dot product of two is their similarity, from -1 to 1; 1 for images that differ in brightness and contrast alone.
    """
    images = np.asarray(images, np.float32)
    coarse = _blocks(images, COARSE).reshape(len(images), -1)
    coarse -= coarse.mean(axis=1, keepdims=True)
    return _unit(np.concatenate([_unit(coarse), _unit(_edges(images))], axis=1))


def similarity(one: Floats, others: Floats) -> Floats:
    """(M,) similarity of one embedding (D,) to others (M,D)."""
    out: Floats = others @ one
    return out


def nearest(one: Floats, others: Floats) -> Integers:
    """(M,) indices of others (M,D) from the most similar to one (D,) to the least; equal ones in their order."""
    return np.argsort(-similarity(one, others), kind="stable")


def grey_statistics(images: Floats) -> tuple[Floats, Floats]:
    """Of images as `embed` takes them what does not depend on where something lies: square roots of the shares of
    intensities, and of strengths of edges, (N,LEVELS) each of unit length (as in Hellinger's distance)."""
    steep = np.hypot(*np.gradient(images, axis=(1, 2)))
    return _shares(images, 1.0), _shares(np.minimum(steep, STEEPEST), STEEPEST)


def _shares(values: Floats, most: float) -> Floats:
    counts = np.stack([np.histogram(each, LEVELS, (0, most))[0] for each in values])
    return np.asarray(np.sqrt(counts / values[0].size), np.float32)


def _edges(images: Floats) -> Floats:
    """(N,CELLS*CELLS*DIRECTIONS) strength of edges by their direction, in each part of each image."""
    count, height, width = images.shape
    down, right = np.gradient(images, axis=(1, 2))
    strength = np.hypot(down, right).ravel()
    turn = (np.arctan2(down, right) % np.float32(np.pi) * np.float32(DIRECTIONS / np.pi)).ravel()  # in bins
    low = turn.astype(np.intp)
    share = turn - low  # an edge between two directions counts for both
    parts = np.add.outer(np.arange(height) * CELLS // height * CELLS, np.arange(width) * CELLS // width)
    cells = np.add.outer(np.arange(count) * CELLS * CELLS, parts).ravel() * DIRECTIONS
    total = np.zeros(count * CELLS * CELLS * DIRECTIONS)
    for direction, weight in ((low, strength * (1 - share)), (low + 1, strength * share)):
        total += np.bincount(cells + direction % DIRECTIONS, weight, len(total))
    return np.asarray(total.reshape(count, -1), np.float32)


def _blocks(images: Array, side: int) -> Floats:
    """(N,side,side) means over blocks that part images (N,h,w); fewer blocks where an image has fewer pixels."""
    out: Array = images
    for axis in (1, 2):
        size = out.shape[axis]
        starts = np.linspace(0, size, min(side, size), endpoint=False).astype(np.intp)
        widths = np.diff(np.append(starts, size)).astype(np.float32)
        out = np.add.reduceat(out, starts, axis=axis) / (widths[:, None] if axis == 1 else widths)
    return np.asarray(out, np.float32)


def _unit(rows: Floats) -> Floats:
    """Rows (N,D) of unit length; zeros stay."""
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    out: Floats = np.divide(rows, length, out=np.zeros_like(rows), where=length > 0)
    return out
