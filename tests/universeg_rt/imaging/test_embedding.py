"""The embedding finds what looks alike, whatever its brightness, and tells what does not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from universeg_rt.imaging.embedding import embed, nearest
from universeg_rt.imaging.preprocess import normalise


def bars(angle: float, phase: float = 0.0, size: int = 64) -> np.ndarray:
    y, x = np.mgrid[:size, :size] / size
    turn = x * np.cos(angle) + y * np.sin(angle)
    return normalise(np.sin(2 * np.pi * 6 * turn + phase))


def blob(y: float, x: float, size: int = 64) -> np.ndarray:
    rows, columns = np.mgrid[:size, :size] / size
    return normalise(np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / 0.02))


def test_place_and_direction_count():
    images = np.stack([blob(0.3, 0.3), blob(0.3, 0.35), blob(0.7, 0.7)])
    assert nearest(embed(images)[0], embed(images)).tolist() == [0, 1, 2]
    stripes = embed(np.stack([bars(0.2), bars(0.2, 2.0), bars(1.6)]))
    assert stripes[0] @ stripes[1] > stripes[0] @ stripes[2], "edges of one direction, wherever they lie"


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10), st.floats(0.2, 1), st.floats(0, 0.5), st.integers(5, 140), st.integers(5, 140))
def test_brightness_and_contrast_do_not_matter(seed, scale, offset, height, width):
    image = np.random.default_rng(seed).random((height, width)).astype(np.float32)
    one, other = embed(np.stack([image, np.float32(scale) * image + np.float32(offset)]))
    assert np.linalg.norm(one) == pytest.approx(1, abs=1e-5) and one @ other == pytest.approx(1, abs=1e-4)


def test_an_image_of_one_value_is_like_none():
    flat, other = embed(np.stack([np.full((40, 40), 0.5, np.float32), blob(0.5, 0.5, 40)]))
    assert not flat.any() and flat @ other == 0


def test_equal_ones_come_in_their_order():
    image = blob(0.4, 0.6)
    embedded = embed(np.stack([blob(0.2, 0.2), image, image, image]))
    assert nearest(embedded[1], embedded).tolist() == [1, 2, 3, 0]
