"""Geometry: where the voxels of a volume lie in the patient."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import GeometryError
from ..named_types import Doubles


@dataclass(frozen=True, eq=False)
class Geometry:
    """shape: (I,J,K). affine: (4,4) float64, from voxel indices to millimetres in RAS+ (right, anterior, superior), as
    nibabel has it; None for a stack of pictures that says nothing of where it lies."""

    shape: tuple[int, int, int]
    affine: Doubles | None

    @property
    def spacing(self) -> tuple[float, float, float] | None:
        """Millimetres between voxels along each array axis; None without an affine."""
        if self.affine is None:
            return None
        i, j, k = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(i), float(j), float(k)

    def difference(self, other: Geometry) -> str | None:
        """What keeps voxels of the other from lying on these, in words; None where they do.

        Corners may lie a hundredth of a voxel apart, for files that round their affine.
        """
        if self.shape != other.shape:
            return f"shape {other.shape}, not {self.shape}"
        if (self.affine is None) != (other.affine is None):
            return "one of the two has no affine"
        if self.affine is None or other.affine is None:
            return None
        corners = np.array(np.meshgrid(*[(0, n - 1) for n in self.shape], [1])).reshape(4, -1)
        corners[3] = 1
        apart = np.abs((self.affine - other.affine) @ corners).max()
        if not apart <= 0.01 * min(self.spacing or (1.0,)):
            return f"corners up to {apart:.3g} mm apart"
        return None

    def check_same(self, other: Geometry, name: str, other_name: str) -> None:
        """GeometryError unless voxels of both lie on each other."""
        if (difference := self.difference(other)) is not None:
            raise GeometryError(
                f"{other_name} does not lie on the voxels of {name}: {difference}; resample one onto the other first, "
                "for example with nibabel.processing.resample_from_to")
