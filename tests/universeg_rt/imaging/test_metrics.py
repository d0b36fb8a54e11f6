"""Measures of masks, probabilities and confidences on cases whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from universeg_rt.errors import InputError
from universeg_rt.imaging.metrics import (
    CALIBRATION_BINS,
    area_error,
    auroc,
    calibration_bins,
    calibration_error,
    correlations,
    dice,
    rank_correlation,
    ranks,
)

EMPTY, FULL = np.zeros((4, 4), bool), np.ones((4, 4), bool)
HALF = np.arange(16).reshape(4, 4) < 8


def test_dice_and_area_of_known_masks():
    assert dice(HALF, FULL) == pytest.approx(2 / 3) and dice(EMPTY, EMPTY) == 1 and dice(EMPTY, HALF) == 0
    assert area_error(HALF, FULL) == -0.5 and area_error(FULL, HALF) == 1 and area_error(EMPTY, HALF) == -1
    assert np.isnan(area_error(HALF, EMPTY))
    for measure in (dice, area_error, calibration_bins):
        with pytest.raises(InputError, match="cannot be compared"):
            measure(HALF, FULL[:2])


def test_calibration_is_zero_where_probabilities_are_frequencies_and_their_distance_where_not():
    truth = np.arange(100) < 30
    assert calibration_error(calibration_bins(np.full(100, 0.3), truth)) == pytest.approx(0)
    assert calibration_error(calibration_bins(np.full(100, 0.8), truth)) == pytest.approx(0.5)
    assert calibration_error(calibration_bins(truth.astype(float), truth)) == 0
    over_and_under = np.where(np.arange(100) < 50, 0.9, 0.1)  # 30 of 50 true, none of 50 true
    assert calibration_error(calibration_bins(over_and_under, truth)) == pytest.approx(0.5 * 0.3 + 0.5 * 0.1)
    assert np.isnan(calibration_error(np.zeros((3, CALIBRATION_BINS))))


def test_bins_of_images_add_up():
    random = np.random.default_rng(0)
    p, truth = random.random((2, 8, 8)), random.random((2, 8, 8)) < 0.5
    bins = calibration_bins(p, truth)
    assert np.allclose(bins, calibration_bins(p[0], truth[0]) + calibration_bins(p[1], truth[1]))
    assert bins[0].sum() == 128 and bins[1].sum() == pytest.approx(p.sum()) and bins[2].sum() == truth.sum()


def test_ranks_correlation_and_auroc():
    assert ranks([3, 1, 1, 9]).tolist() == [3, 1.5, 1.5, 4]
    assert rank_correlation([1, 2, 3, 9], [0.1, 0.2, 0.3, 0.31]) == pytest.approx(1)
    assert rank_correlation([1, 2, 3], [3, 2, 1]) == pytest.approx(-1)
    assert rank_correlation([1, 1, 2, 2], [1, 1, 2, 2]) == pytest.approx(1)
    assert np.isnan(rank_correlation([1, 1], [1, 2]))
    bad = np.array([True, True, False, False])
    assert auroc([0.1, 0.2, 0.8, 0.9], bad) == 1 and auroc([0.9, 0.8, 0.2, 0.1], bad) == 0
    assert auroc([0.1, 0.4, 0.4, 0.9], bad) == pytest.approx((1 + 1 + 0.5 + 1) / 4)
    assert auroc([0.5] * 4, bad) == 0.5 and np.isnan(auroc([0.1, 0.2], np.array([True, True])))


def test_correlations_are_those_of_numpy():
    maps = np.random.default_rng(0).integers(0, 255, (3, 6, 5)).astype(np.uint8)
    found = correlations(maps[0], np.stack([*maps, np.full((6, 5), 7, np.uint8), 255 - maps[0]]))
    assert np.allclose(found[:3], np.corrcoef(maps.reshape(3, -1))[0]) and found[3] == 0 and np.isclose(found[4], -1)
    assert not correlations(np.ones((6, 5)), maps).any()
