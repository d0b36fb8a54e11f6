"""Intervals hold the truth about as often as they say, count subjects, and are refused under three of them."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("scipy", reason="scipy is not installed: pip install '.[train]'")

from universeg_rt.training.evaluation import intervals
from universeg_rt.training.evaluation.intervals import interval


@pytest.mark.parametrize("count", [3, 5, 12])
def test_it_holds_the_mean_about_as_often_as_it_says(count, monkeypatch):
    monkeypatch.setattr(intervals, "RESAMPLES", 499)
    random, held = np.random.default_rng(count), 0
    for _ in range(200):
        low, high = interval(random.normal(0.6, 0.2, count), np.arange(count))
        held += low <= 0.6 <= high
    assert held / 200 >= 0.88


def test_two_subjects_have_none_however_many_images():
    assert interval(np.random.default_rng(0).random(40), np.arange(40) % 2) is None
    assert interval(np.array([0.5]), np.array(["a"])) is None


@pytest.mark.parametrize("count", [4, 20])
def test_copies_of_a_subjects_images_add_no_certainty(count):
    values = np.random.default_rng(1).random(count)
    alone = interval(values, np.arange(count))
    doubled = interval(np.repeat(values, 3), np.repeat(np.arange(count), 3))
    assert doubled == pytest.approx(alone) and alone[0] < values.mean() < alone[1]


def test_it_follows_from_its_seed_and_equal_values_have_no_width():
    values = np.random.default_rng(2).beta(8, 1, 15)
    assert interval(values, np.arange(15), 3) == interval(values, np.arange(15), 3)
    assert interval(np.full(15, 0.25), np.arange(15)) == (0.25, 0.25)
    low, high = interval(values, np.arange(15))
    assert high - values.mean() < values.mean() - low, "a skewed mean has a skewed interval"


def test_few_subjects_have_students_t():
    values = np.array([0.2, 0.4, 0.6, 0.8])
    low, high = interval(values, np.arange(4))
    reach = 3.182446 * values.std(ddof=1) / 2
    assert (low, high) == (pytest.approx(0.5 - reach, abs=1e-6), pytest.approx(0.5 + reach, abs=1e-6))
