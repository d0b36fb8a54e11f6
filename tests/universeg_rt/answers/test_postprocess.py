"""Steps that clean masks up, against pictures drawn by hand."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from universeg_rt.answers.postprocess import ACCEPTED, cleaned, parse_steps, smoothed
from universeg_rt.errors import InputError, RunnerError

pytest.importorskip("scipy", reason="cleaning masks up needs scipy: pip install '.[medical]'")


def picture(*rows: str):
    return np.array([[letter == "#" for letter in row] for row in rows])


SCENE = picture("####..#",
                "#..#...",
                "####.##",
                ".....##")
EMPTY = SCENE & False


@pytest.mark.parametrize("text, wanted", [
    ("largest-component", picture("####...", "#..#...", "####...", ".......")),
    ("fill-holes", picture("####..#", "####...", "####.##", ".....##")),
    ("minimum-size=4", picture("####...", "#..#...", "####.##", ".....##")),
    ("minimum-size=5", picture("####...", "#..#...", "####...", ".......")),
    ("largest-component,fill-holes", picture("####...", "####...", "####...", ".......")),
    ("", SCENE),
])
def test_steps_on_one_slice_and_on_each_of_a_stack(text, wanted):
    before = SCENE.copy()
    assert np.array_equal(cleaned(SCENE, parse_steps(text)), wanted)
    assert np.array_equal(SCENE, before)
    for axis in range(3):
        stack = np.stack([SCENE, EMPTY, SCENE], axis)
        found = cleaned(stack, parse_steps(text), axis=axis)
        assert np.array_equal(found, np.stack([wanted, EMPTY, wanted], axis))


def test_steps_on_a_volume():
    stack = np.zeros((4, 5, 5), bool)
    stack[:3, 1:4, 1:4] = True
    stack[1, 2, 2] = False  # closed in the volume
    stack[3, 0, 0] = True
    stack[3, 4, 3:] = True
    filled = cleaned(stack, parse_steps("fill-holes-3d"))
    assert filled[1, 2, 2] and filled.sum() == stack.sum() + 1
    largest = cleaned(stack, parse_steps(["largest-component-3d"]))
    assert largest.sum() == 26 and not largest[3].any()
    # Slice by slice each slice keeps a part of its own.
    assert cleaned(stack, parse_steps("largest-component"))[3].sum() == 2
    assert cleaned(stack, parse_steps("minimum-size-3d=2"))[3].sum() == 2
    # A hole that one slice closes and the volume does not.
    stack[:, 2, 2] = False
    assert not cleaned(stack, parse_steps("fill-holes-3d"))[:, 2, 2].any()
    assert cleaned(stack, parse_steps("fill-holes"))[:3, 2, 2].all()


def test_sizes_in_millimetres_follow_the_spacing():
    assert cleaned(SCENE, parse_steps("minimum-size=2mm"), spacing=(0.5, 1.0)).sum() == 14
    assert cleaned(SCENE, parse_steps("minimum-size=2.1mm"), spacing=(0.5, 1.0)).sum() == 10
    stack = np.stack([SCENE] * 3, 2)
    assert cleaned(stack, parse_steps("minimum-size=2.1mm"), spacing=(0.5, 1.0, 9.0), axis=2).sum() == 30
    assert cleaned(stack, parse_steps("minimum-size-3d=3.1mm"), spacing=(0.5, 1.0, 2.0)).sum() == 42
    assert cleaned(stack, parse_steps("minimum-size-3d=3mm"), spacing=(0.5, 1.0, 2.0)).sum() == 45
    with pytest.raises(InputError, match="minimum-size=2mm needs a spacing, and this image has none"):
        cleaned(SCENE, parse_steps("minimum-size=2mm"))
    with pytest.raises(InputError, match="give 2 lengths in mm"):
        cleaned(SCENE, (), spacing=(1.0, 1.0, 1.0))


@given(st.integers(0, 2), st.floats(0.1, 5))
def test_smoothing_mixes_slices_alone_and_keeps_a_constant_stack(axis, width):
    stack = np.zeros((9, 9, 9), np.float32)
    stack[4, 4, 4] = 1
    found = smoothed(stack, parse_steps(f"smooth={width}"), axis)
    line = [slice(None) if i == axis else 4 for i in range(3)]
    assert np.count_nonzero(found) == np.count_nonzero(found[tuple(line)])
    assert found[tuple(line)].argmax() == 4 and found.dtype == np.float32
    np.testing.assert_allclose(smoothed(stack * 0 + 0.3, parse_steps(f"smooth={width}"), axis), 0.3, rtol=1e-5)
    assert smoothed(stack, parse_steps("fill-holes"), axis) is stack


def test_steps_are_read_and_shown_alike_with_smoothing_first():
    steps = parse_steps(["fill-holes", "minimum-size-3d=50mm", "smooth=1.5", "largest-component-3d"])
    assert [str(step) for step in steps] == ["smooth=1.5", "fill-holes", "minimum-size-3d=50mm", "largest-component-3d"]
    assert parse_steps(map(str, steps)) == steps == parse_steps(",".join(map(str, steps)))
    assert parse_steps(ACCEPTED.replace("=50,", "=50,").split(",")[0]) == parse_steps("largest-component")


@pytest.mark.parametrize("text, message", [
    ("erode", "the step 'erode' is unknown; accepted: largest-component, "), ("smooth-3d=1", "unknown"),
    ("fill-holes=3", "takes no number"), ("minimum-size", "lacks its number, above 0; accepted"),
    ("minimum-size=-3", "lacks its number"), ("minimum-size=nan", "lacks its number"),
    ("smooth=1mm", "the unit 'mm' of the step 'smooth=1mm' is unknown; it is in slices"),
    ("minimum-size=50cm", "the unit 'cm' of the step 'minimum-size=50cm' is unknown; it is in pixels, or mm"),
    ("minimum-size=-5mm", "lacks its number"), ("smooth=1e9", "up to 100 slices"),
    ("fill-holes,fill-holes", "the step fill-holes is given twice"), ([3], "a step is 3; accepted"),
])
def test_steps_that_are_none(text, message):
    with pytest.raises(InputError, match=message):
        parse_steps(text)


def test_masks_that_steps_do_not_fit():
    with pytest.raises(InputError, match="fill-holes-3d is of a volume, and the mask is one slice .4, 7.; take fill"):
        cleaned(SCENE, parse_steps("fill-holes-3d"))
    with pytest.raises(InputError, match="smooth is over the slices of a volume"):
        smoothed(SCENE.astype(np.float32), parse_steps("smooth=1"))
    with pytest.raises(InputError, match="type uint8; expected bool"):
        cleaned(SCENE.astype(np.uint8), ())


def test_without_scipy_the_error_names_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy", None)
    with pytest.raises(RunnerError, match="needs SciPy, which is missing; run pip install '..medical.'"):
        cleaned(SCENE, parse_steps("fill-holes"))
    assert np.array_equal(cleaned(SCENE, ()), SCENE)
