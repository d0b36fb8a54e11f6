"""Alignment: labels whose voxels lie on a volume's, put in its order of axes; nothing is resampled."""

from __future__ import annotations

import numpy as np

from ..errors import GeometryError
from ..install import needed
from ..named_types import Array
from .geometry import Geometry


def in_order_of(like: Geometry, values: Array, geometry: Geometry) -> tuple[Array, Geometry, tuple[int, int, int]]:
    """values (I,J,K) seen with axes that run as those of `like`, as far as they can, and their geometry.

    The last says to which axis each of theirs went. Without an affine on both sides nothing is changed.
    """
    if geometry.affine is None or like.affine is None:
        return values, geometry, (0, 1, 2)
    orientations = needed("nibabel", "medical", "labels of a volume").orientations
    turn = orientations.ornt_transform(orientations.io_orientation(geometry.affine),
                                       orientations.io_orientation(like.affine))
    affine = geometry.affine @ orientations.inv_ornt_aff(turn, geometry.shape)
    values = orientations.apply_orientation(values, turn)
    i, j, k = (int(axis) for axis in turn[:, 0])
    return values, Geometry(values.shape, affine), (i, j, k)


def laid_on(like: Geometry, values: Array, geometry: Geometry, name: str, other_name: str) -> Array:
    """A label map (I,J,K) on the voxels of `like`, 0 where it holds none; it may be smaller, larger or moved by whole
    voxels.

    GeometryError where its voxels lie between those of `like`, or it marks one outside; name, other_name: of both.
    """
    if like.affine is None:
        like.check_same(geometry, name, other_name)
        return values
    values, geometry, _ = in_order_of(like, values, geometry)
    if geometry.affine is None:
        like.check_same(geometry, name, other_name)
        return values
    moved = np.eye(4)
    start = np.round((np.linalg.inv(like.affine) @ geometry.affine)[:3, 3])
    moved[:3, 3] = start
    Geometry(geometry.shape, like.affine @ moved).check_same(geometry, name, other_name)
    first, last = np.maximum(start, 0).astype(int), np.minimum(start + geometry.shape, like.shape).astype(int)
    out = np.zeros(like.shape, values.dtype)
    if (last > first).all():
        shift = start.astype(int)
        target = tuple(slice(a, b) for a, b in zip(first, last))
        out[target] = values[tuple(slice(a, b) for a, b in zip(first - shift, last - shift))]
    if np.count_nonzero(out) != np.count_nonzero(values):
        raise GeometryError(f"{other_name} marks voxels outside {name}; give the labels of this volume")
    return out
