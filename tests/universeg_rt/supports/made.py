"""Labelled volumes that are made up: a ball in noise."""

from __future__ import annotations

import numpy as np
import pytest

nibabel = pytest.importorskip("nibabel", reason="volumes need nibabel: pip install '.[medical]'")

SHAPE = (20, 24, 30)
BALL = (10, 12, 14)  # its centre; the radius is 6, so that it lies in axial slices 9 to 19


def ball(radius: float = 6, centre: tuple[int, ...] = BALL) -> np.ndarray:
    return sum((g - c) ** 2 for g, c in zip(np.mgrid[: SHAPE[0], : SHAPE[1], : SHAPE[2]], centre)) < radius**2


def write(folder, name, labels, affine=None, seed=0, blank=slice(0, 3)):
    """A noisy volume, brighter where it is labelled and blank in some axial slices, and its labels, as one pair."""
    values = np.random.default_rng(seed).normal(100, 10, SHAPE).astype(np.float32) + 80 * (labels > 0)
    values[:, :, blank] = 0
    for part, array in (("images", values), ("labels", labels.astype(np.uint8))):
        path = folder / part / f"{name}.nii.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        nibabel.save(nibabel.Nifti1Image(array, np.diag([1, 1, 2, 1]) if affine is None else affine), path)
    return values


@pytest.fixture
def folder(tmp_path):
    write(tmp_path, "p1", ball() * 3)
    write(tmp_path, "sub/p2", ball() * 3, seed=1)
    return tmp_path


def places(support):
    """(volume, slice) of each entry, by its name."""
    return [(name.split(" ")[0], int(name.split(" ")[2])) for name in support.names]
