"""Slices of a volume along an axis of the body, as radiologists see them, and the way back."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from ..errors import InputError, shown
from ..imaging.normalisation import Range
from ..install import needed
from ..named_types import Array
from .geometry import Geometry

ACQUIRED = "acquired"
AXES = ("axial", "coronal", "sagittal", ACQUIRED)
# Of each plane the axis across it and along its rows and columns, as (axis of RAS, sign): slices run inferior to
# superior, posterior to anterior, right to left; rows downwards, columns to the right of the picture.
PLANES = {
    "axial": ((2, 1), (1, -1), (0, -1)),
    "coronal": ((1, 1), (2, -1), (0, -1)),
    "sagittal": ((0, -1), (2, -1), (1, -1)),
}
OBLIQUE = 1.0  # degrees above which a note says so


SAMPLE = 2**20  # voxels by which a volume's range is judged
ENDS = (0.5, 99.5)  # percentiles between which it lies, so that metal or hot pixels do not set it


def intensity_range(values: Array) -> Range:
    """The range of a volume's intensities (I,J,K), by percentiles ENDS of voxels that lie evenly in it."""
    steps = [1, 1, 1]
    while np.prod(left := [-(-n // step) for n, step in zip(values.shape, steps)]) > SAMPLE:
        steps[int(np.argmax(left))] += 1
    sample = np.asarray(values[tuple(slice(None, None, step) for step in steps)], np.float64)
    low, high = np.percentile(sample, ENDS)
    return float(low), float(high)


@dataclass(frozen=True, eq=False)
class Slices:
    """The slices of volumes of one shape: arrays (I,J,K) are only read in another order, nothing is resampled.

    axis: as it was asked for. plane: the plane of the body that slices lie nearest to; empty without an affine.
    size: (H,W). pixel: millimetres from row to row and from column to column; None without an affine.
    """

    axis: str
    plane: str
    size: tuple[int, int]
    pixel: tuple[float, float] | None
    notes: tuple[str, ...]
    shape: tuple[int, int, int]
    order: tuple[int, int, int]  # array axes: across slices, rows, columns
    signs: tuple[int, int, int]
    step: float | None = None  # millimetres from slice to slice

    @classmethod
    def of(cls, geometry: Geometry, acquired: int, axis: str) -> Slices:
        """axis: one of AXES; `acquired` is the array axis of that number, shown as the plane of the body it is nearest
        to. InputError for another name, or for a plane of the body where there is no affine."""
        if not isinstance(axis, str) or axis not in AXES:
            raise InputError(f"axis is {shown(axis)}; accepted: {', '.join(AXES)}")
        if geometry.affine is None or geometry.spacing is None:
            if axis != ACQUIRED:
                raise InputError(f"axis is {axis!r}, but the stack does not say how the patient lies; accepted for it: "
                                 f"{ACQUIRED}")
            across, rows, columns = acquired, *(i for i in range(3) if i != acquired)
            size = geometry.shape[rows], geometry.shape[columns]
            return cls(axis, "", size, None, (), geometry.shape, (across, rows, columns), (1, 1, 1))
        nibabel = needed("nibabel", "medical", "slicing along an axis of the body")
        # Of each array axis the axis of RAS that it runs along most nearly, and whether it does so backwards.
        nearest = nibabel.orientations.io_orientation(geometry.affine)
        runs = {int(body): (index, int(sign)) for index, (body, sign) in enumerate(nearest)}
        plane = axis if axis != ACQUIRED else next(
            plane for plane, ((across, _), *_) in PLANES.items() if runs[across][0] == acquired)
        (across, rows, columns), signs = zip(*((runs[body][0], runs[body][1] * sign) for body, sign in PLANES[plane]))
        size = geometry.shape[rows], geometry.shape[columns]
        pixel = geometry.spacing[rows], geometry.spacing[columns]
        angle = float(np.degrees(np.max(nibabel.affines.obliquity(geometry.affine))))
        notes = (f"oblique by {angle:.0f} degrees: {plane} slices follow the voxels, nothing is resampled",)
        return cls(axis, plane, size, pixel, notes if angle > OBLIQUE else (), geometry.shape, (across, rows, columns),
                   signs, geometry.spacing[across])

    @property
    def length(self) -> float | None:
        """Millimetres from the first slice to the last; None without an affine."""
        return None if self.step is None else self.step * (len(self) - 1)

    def __len__(self) -> int:
        return self.shape[self.order[0]]

    def take(self, values: Array, index: int) -> Array:
        """values (I,J,K) -> a copy of one slice (H,W)."""
        return np.array(self.view(values)[index], order="C", subok=False)

    def places(self, indices: Iterable[int]) -> list[float] | None:
        """Where slices lie along the volume, from 0, the first, to 1, the last. None for a single one, and without an
        affine: then it is not known which end is which."""
        last = len(self) - 1
        return [index / last for index in indices] if self.plane and last else None

    def put(self, target: Array, index: int, slice_values: Array) -> None:
        """Write one slice (H,W) into target (I,J,K), where `take` reads it."""
        self.view(target)[index] = slice_values

    def view(self, values: Array) -> Array:
        """values (I,J,K) -> the same memory as (slices, H, W)."""
        if values.shape != self.shape:
            raise InputError(f"the array has shape {values.shape}, the volume {self.shape}; they must be the same")
        return values.transpose(self.order)[tuple(slice(None, None, sign) for sign in self.signs)]

    def back(self, stack: Array) -> Array:
        """stack (slices, H, W) -> the same memory as (I,J,K): `view` the other way."""
        if stack.shape != (len(self), *self.size):
            raise InputError(f"the stack has shape {stack.shape}; expected {(len(self), *self.size)}")
        return stack[tuple(slice(None, None, sign) for sign in self.signs)].transpose(np.argsort(self.order))
