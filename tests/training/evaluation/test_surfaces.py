"""Surface distances of squares that are shifted, empty, or at the rim."""

from __future__ import annotations

import math

import numpy as np
import pytest

pytest.importorskip("scipy", reason="scipy is not installed: pip install '.[train]'")

from universeg_rt.errors import InputError
from universeg_rt.training.evaluation.surfaces import hausdorff95, surface_dice, surface_distances


def square(row=10, column=10, side=12, size=40):
    mask = np.zeros((size, size), bool)
    mask[row : row + side, column : column + side] = True
    return mask


@pytest.mark.parametrize("shift", [0, 1, 2, 3, 5])
def test_a_shifted_square_is_as_far_as_its_shift(shift):
    distances = surface_distances(square(column=10 + shift), square())
    assert max(d.max() for d in distances) == shift and hausdorff95(distances) == shift
    assert (surface_dice(distances) == 1) == (shift <= 2)


def test_the_share_within_the_tolerance_is_counted_by_hand():
    distances = surface_distances(square(column=14), square())
    # Of either square's 44: 2 * 2 of the long sides jut out, 6 of one upright side lie within, 10 of the other beyond.
    assert len(distances[0]) == 44 and surface_dice(distances) == pytest.approx((44 - 4 - 6 - 10) / 44)
    assert surface_dice(distances, tolerance=4) == 1


def test_one_speck_far_away_does_not_move_the_percentile_but_an_empty_mask_is_far():
    speck = square()
    speck[39, 39] = True
    distances = surface_distances(speck, square())
    assert distances[0].max() > 20 and hausdorff95(distances) == 0
    empty = np.zeros((40, 40), bool)
    for pair in ((empty, square()), (square(), empty)):
        assert hausdorff95(surface_distances(*pair)) == pytest.approx(math.hypot(40, 40))
        assert surface_dice(surface_distances(*pair)) == 0
    nothing = surface_distances(empty, empty)
    assert hausdorff95(nothing) == 0 and surface_dice(nothing) == 1


def test_a_mask_at_the_images_rim_has_its_outline_there():
    full = np.ones((10, 10), bool)
    assert len(surface_distances(full, full)[0]) == 36
    with pytest.raises(InputError, match=r"expected \(H,W\)"):
        surface_distances(full, full[:5])
