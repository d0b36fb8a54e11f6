"""Dice of a query, by hand."""

from __future__ import annotations

import numpy as np
import pytest
from universeg_rt.training.tasks.score import mask_of, query_dice


def test_the_mean_of_the_members_decides_and_a_half_is_foreground():
    members = np.array([[[0.9, 0.5, 0.1]], [[0.3, 0.5, 0.8]]], np.float32)  # mean 0.6, 0.5, 0.45
    assert mask_of(members).tolist() == [[True, True, False]]
    assert query_dice(members, np.array([[1, 0, 0]], np.uint8)) == pytest.approx(2 / 3)
