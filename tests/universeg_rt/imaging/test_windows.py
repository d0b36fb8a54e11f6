"""Windows: around what is marked, inside the image, and back in place."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from universeg_rt.errors import InputError
from universeg_rt.imaging.windows import LEAST, box_around, check_region, cut, put_back, scale_of, window_around


@st.composite
def marked(draw):
    """An image's shape and a box in it."""
    height, width = draw(st.integers(1, 90)), draw(st.integers(1, 90))
    top, left = draw(st.integers(0, height - 1)), draw(st.integers(0, width - 1))
    return (height, width), (top, left, draw(st.integers(top + 1, height)), draw(st.integers(left + 1, width)))


@given(marked())
def test_a_window_holds_its_box_with_the_images_proportions_inside_the_image(case):
    shape, box = case
    mask = put_back(np.ones((box[2] - box[0], box[3] - box[1]), bool), box, shape)
    assert box_around(mask) == box and cut(mask, box).all() and mask.sum() == (box[2] - box[0]) * (box[3] - box[1])
    scale = scale_of(box, shape)
    top, left, bottom, right = window_around(box, shape, scale)
    assert 0 <= top <= box[0] < box[2] <= bottom <= shape[0] and 0 <= left <= box[1] < box[3] <= right <= shape[1]
    assert LEAST <= scale <= 1
    assert 0 <= bottom - top - scale * shape[0] < 1 and 0 <= right - left - scale * shape[1] < 1
    assert check_region(mask, shape) == (top, left, bottom, right)
    assert check_region(box, shape) == check_region(np.array(box), shape) == box


def test_a_few_stray_pixels_do_not_widen_a_box():
    mask = np.zeros((100, 80), bool)
    mask[40:60, 20:50] = True
    assert box_around(mask, 0.02) == box_around(mask) == (40, 20, 60, 50)
    mask[0, 0] = mask[99, 79] = True
    assert box_around(mask) == (0, 0, 100, 80) and box_around(mask, 0.02) == (40, 20, 60, 50)
    assert box_around(mask & False) is None and check_region(mask & False, mask.shape) is None


@pytest.mark.parametrize("region, message", [
    ((0, 0, 5), "is .0, 0, 5.; give a mask"), ((0, 0, 5.5, 5), "give a mask"), ("abcd", "give a mask"),
    (None, "region is None"), ((0, 0, 11, 5), "accepted: .* within the image of 10x8"),
    ((4, 4, 4, 6), "below the others"),
    ((-1, 0, 5, 5), "within the image"), (np.zeros((10, 9), bool), "mask .10, 9. of bool; expected bool of .* .10, 8."),
    (np.zeros((10, 8)), "of float64"), ((np.nan, 0, 5, 5), "give a mask"),
])
def test_regions_that_are_none(region, message):
    with pytest.raises(InputError, match=message):
        check_region(region, (10, 8))
