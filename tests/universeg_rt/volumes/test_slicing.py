"""Slices along the axes of the body: against nibabel's own reorientation, by where they lie, and there and back."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("highdicom", reason="volumes need highdicom: pip install '.[medical]'")
import nibabel
from hypothesis import given, settings

from universeg_rt.errors import InputError
from universeg_rt.volumes.geometry import Geometry
from universeg_rt.volumes.slicing import AXES, Slices

from . import made
from .made import SHAPE, SIGNED_PERMUTATIONS

VALUES = np.arange(np.prod(SHAPE)).reshape(SHAPE)


def canonical_slices(affine: np.ndarray, plane: str) -> np.ndarray:
    """(slices, H, W) as a radiologist sees them, cut from what nibabel turned to right, anterior, superior."""
    upright = nibabel.as_closest_canonical(nibabel.Nifti1Image(VALUES.astype(np.int32), affine))
    values = np.asanyarray(upright.dataobj)[::-1, ::-1, ::-1]  # left, posterior, inferior
    return {"axial": values.transpose(2, 1, 0)[::-1], "coronal": values.transpose(1, 2, 0)[::-1],
            "sagittal": values.transpose(0, 2, 1)}[plane]


def check_planes(affine: np.ndarray) -> None:
    geometry = Geometry(SHAPE, affine)
    for plane in AXES[:3]:
        slices, expected = Slices.of(geometry, 2, plane), canonical_slices(affine, plane)
        assert len(slices) == len(expected) and slices.size == expected.shape[1:] and slices.plane == plane
        assert all(np.array_equal(slices.take(VALUES, i), expected[i]) for i in range(len(slices)))


@pytest.mark.parametrize("turn", SIGNED_PERMUTATIONS, ids=lambda turn: "".join(nibabel.aff2axcodes(
    made.affine_of(turn))))
def test_all_48_orientations_are_cut_as_nibabel_turns_them(turn):
    check_planes(made.affine_of(turn))


@settings(max_examples=30, deadline=None)
@given(made.quaternions, made.zooms, made.orientations, made.shears)
def test_any_affine_is_cut_as_nibabel_turns_it(quaternion, zooms, turn, shears):
    shear = np.eye(3)
    shear[0, 1], shear[0, 2], shear[1, 2] = shears
    check_planes(made.affine_of(made.rotation(quaternion) @ turn @ shear, zooms))


@settings(max_examples=30, deadline=None)
@given(made.small_quaternions, made.zooms, made.orientations)
def test_rows_and_columns_run_as_radiologists_see_them(quaternion, zooms, turn):
    affine = made.affine_of(made.rotation(quaternion) @ turn, zooms)
    places = nibabel.affines.apply_affine(affine, np.stack(np.meshgrid(*map(np.arange, SHAPE), indexing="ij"), -1))
    right, anterior, superior = np.moveaxis(places, -1, 0)
    for plane, across, down, along in (("axial", superior, -anterior, -right), ("coronal", anterior, -superior, -right),
                                       ("sagittal", -right, -superior, -anterior)):
        slices = Slices.of(Geometry(SHAPE, affine), 2, plane)
        cut = [np.stack([slices.take(of, i) for i in range(len(slices))]) for of in (across, down, along)]
        assert all((np.diff(of, axis=axis) > 0).all() for axis, of in enumerate(cut))
        step = [np.linalg.norm(np.diff(np.stack([slices.take(c, 0) for c in (right, anterior, superior)]), axis=axis),
                               axis=0) for axis in (1, 2)]
        assert np.allclose(step[0], slices.pixel[0]) and np.allclose(step[1], slices.pixel[1])


@settings(max_examples=20, deadline=None)
@given(made.quaternions, made.zooms, made.orientations)
def test_what_is_put_is_taken_and_fills_the_volume_once(quaternion, zooms, turn):
    geometry = Geometry(SHAPE, made.affine_of(made.rotation(quaternion) @ turn, zooms))
    for axis in AXES:
        for acquired in range(3):
            slices, out = Slices.of(geometry, acquired, axis), np.full(SHAPE, -1)
            for i in range(len(slices)):
                slices.put(out, i, slices.take(VALUES, i))
            assert np.array_equal(out, VALUES)


def test_acquired_slices_run_along_that_axis_and_are_shown_as_the_plane_they_are_nearest_to():
    for turn in SIGNED_PERMUTATIONS:
        affine = made.affine_of(turn)
        for acquired in range(3):
            slices = Slices.of(Geometry(SHAPE, affine), acquired, "acquired")
            assert slices.order[0] == acquired and slices.axis == "acquired"
            same = Slices.of(Geometry(SHAPE, affine), acquired, slices.plane)
            assert all(np.array_equal(slices.take(VALUES, i), same.take(VALUES, i)) for i in range(len(slices)))


def test_a_stack_is_cut_along_its_pages_only():
    slices = Slices.of(Geometry(SHAPE, None), 0, "acquired")
    assert slices.pixel is None and slices.plane == "" and np.array_equal(slices.take(VALUES, 1), VALUES[1])
    with pytest.raises(InputError, match="does not say how the patient lies; accepted for it: acquired"):
        Slices.of(Geometry(SHAPE, None), 0, "axial")


def test_oblique_volumes_say_so():
    turned = made.affine_of(made.rotation((np.cos(0.1), 0, 0, np.sin(0.1))))
    (note,) = Slices.of(Geometry(SHAPE, turned), 2, "axial").notes
    assert note.startswith("oblique by 11 degrees")
    assert Slices.of(Geometry(SHAPE, made.affine_of(np.eye(3))), 2, "axial").notes == ()


def test_taken_slices_are_copies_and_other_arrays_are_refused():
    slices = Slices.of(Geometry(SHAPE, made.affine_of(np.eye(3))), 2, "axial")
    values = VALUES.copy()
    slices.take(values, 0)[:] = -5
    assert np.array_equal(values, VALUES)
    with pytest.raises(InputError, match=r"shape \(4, 5\), the volume \(4, 5, 6\)"):
        slices.take(values[..., 0], 0)
    with pytest.raises(InputError, match="axis is 'Axial'; accepted: axial, coronal, sagittal, acquired"):
        Slices.of(Geometry(SHAPE, None), 0, "Axial")
