"""Choosing from which probability to mark, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from universeg_rt import InputError
from universeg_rt.answers.thresholds import (
    STUDENT,
    THRESHOLDS,
    Gain,
    as_taken,
    best,
    by_the_others,
    check_threshold,
    dice_at,
    taken,
)


def scores(rows: dict[float, list[float]]) -> np.ndarray:
    """Dice (N,T): the given ones, and 0 at all other thresholds."""
    out = np.zeros((len(next(iter(rows.values()))), len(THRESHOLDS)))
    for threshold, values in rows.items():
        out[:, THRESHOLDS.index(threshold)] = values
    return out


def test_an_entry_is_judged_by_what_the_others_choose():
    """The first alone favours 0.2: with it the mean does, without it 0.5 is the best."""
    rows = scores({0.5: [0.2, 0.6, 0.6], 0.2: [1.0, 0.5, 0.5]})
    assert best(rows) == 0.2 and by_the_others(rows).tolist() == [0.2, 0.5, 0.5]


def test_of_equal_thresholds_the_nearest_to_a_half_is_the_best():
    assert best(np.full((3, len(THRESHOLDS)), 0.4)) == 0.5
    assert best(scores({0.1: [0.7] * 2, 0.3: [0.7] * 2})) == 0.3


@pytest.mark.parametrize("gains, pays", [
    ([0.04, 0.05, 0.06], True), ([0.02, 0.03, 0.03], False),  # under three points
    ([0.2, 0.0, 0.1, 0.0], False), ([0.2, 0.1, 0.15, 0.15], True),  # 0.075 ± 0.152; 0.15 ± 0.065
    ([0.1, 0.1], False), ([0.5], False),  # too few
])
def test_a_gain_must_be_large_and_its_interval_above_zero(gains, pays):
    before = np.full(len(gains), 0.3)
    gain = Gain.of(before + gains, before)
    assert gain.pays == pays and gain.mean == pytest.approx(np.mean(gains))


def test_the_interval_is_students():
    stats = pytest.importorskip("scipy.stats", reason="scipy is not installed: pip install '.[medical]'")
    assert STUDENT == tuple(pytest.approx(stats.t.ppf(0.975, freedom), abs=0.005) for freedom in range(2, 8))
    gains = np.random.default_rng(0).normal(0.1, 0.1, 8)
    low, _ = stats.t.interval(0.95, 7, gains.mean(), stats.sem(gains))
    gain = Gain.of(gains, np.zeros(8))
    assert gain.mean - gain.half_width == pytest.approx(low, abs=1e-3)


def test_what_is_taken_and_what_to_expect_of_it():
    rows = scores({0.5: [0.4] * 6, 0.3: [0.6, 0.6, 0.6, 0.6, 0.6, 0.5]})
    assert taken(rows) == 0.3 and as_taken(rows).tolist() == [0.6] * 5 + [0.5]
    noise = scores({0.5: [0.4] * 6, 0.3: [0.9, 0.1, 0.9, 0.1, 0.9, 0.2]})
    assert best(noise) == 0.3 and taken(noise) == 0.5 and as_taken(noise).tolist() == [0.4] * 6
    assert taken(rows[:1]) == 0.5 and as_taken(rows[:1]).tolist() == [0.4]


def test_without_an_effect_a_threshold_is_hardly_ever_taken_and_nothing_is_promised():
    rng, took, said = np.random.default_rng(0), [], []
    for _ in range(300):
        rows = np.clip(0.5 + rng.normal(0, 0.1, (8, 1)) * (np.array(THRESHOLDS) - 0.5), 0, 1)
        took.append(taken(rows) != 0.5)
        said.append(as_taken(rows).mean() - 0.5)
    assert np.mean(took) < 0.1 and abs(np.mean(said)) < 0.003


def test_dice_at_each_threshold():
    label = np.array([[True, True, False, False]])
    found = dice_at(np.array([[0.95, 0.5, 0.25, 0.0]], np.float32), label)
    assert found[THRESHOLDS.index(0.2)] == pytest.approx(0.8)
    assert found[THRESHOLDS.index(0.5)] == 1.0 and found[THRESHOLDS.index(0.9)] == pytest.approx(2 / 3)


@pytest.mark.parametrize("wrong", [0, 1, 1.5, -0.1, True, "0.5", None, float("nan")])
def test_what_is_no_threshold(wrong):
    with pytest.raises(InputError, match="give a number between 0 and 1"):
        check_threshold(wrong)
