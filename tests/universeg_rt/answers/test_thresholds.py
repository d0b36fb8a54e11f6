"""Choosing from which probability to mark, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from universeg_rt import InputError
from universeg_rt.answers.thresholds import THRESHOLDS, Gain, check_threshold, choose, dice_at, offset


def scores(**rows) -> np.ndarray:
    out = np.zeros((len(next(iter(rows.values()))), len(THRESHOLDS)))
    for name, values in rows.items():
        out[:, THRESHOLDS.index(float(name[1:].replace("_", ".")))] = values
    return out


def test_an_entry_is_judged_by_what_the_others_choose():
    """The first alone favours 0.2: with it the mean does, without it 0.5 is the best."""
    chosen = choose(scores(t0_5=[0.2, 0.6, 0.6], t0_2=[1.0, 0.5, 0.5]))
    assert chosen.threshold == 0.2 and chosen.held_out.tolist() == [0.2, 0.5, 0.5]


def test_of_equal_thresholds_the_nearest_to_a_half_is_taken():
    assert choose(np.full((3, len(THRESHOLDS)), 0.4)).threshold == 0.5
    assert choose(scores(t0_1=[0.7] * 2, t0_3=[0.7] * 2)).threshold == 0.3


@pytest.mark.parametrize("gains, pays", [
    ([0.04, 0.05, 0.06], True), ([0.02, 0.03, 0.03], False),  # under three points
    ([0.2, 0.0, 0.1, 0.0], False), ([0.2, 0.1, 0.15, 0.15], True),  # 0.075 with an error of 0.048; 0.15, 0.02
    ([0.5], False),  # one entry tells nothing
])
def test_a_gain_must_be_large_and_beyond_twice_its_error(gains, pays):
    before = np.full(len(gains), 0.3)
    gain = Gain.of(before + gains, before)
    assert gain.pays == pays and gain.mean == pytest.approx(np.mean(gains))


def test_dice_at_each_threshold():
    label = np.array([[True, True, False, False]])
    found = dice_at(np.array([[0.95, 0.5, 0.25, 0.0]], np.float32), label)
    assert found[THRESHOLDS.index(0.2)] == pytest.approx(0.8)
    assert found[THRESHOLDS.index(0.5)] == 1.0 and found[THRESHOLDS.index(0.9)] == pytest.approx(2 / 3)


@pytest.mark.parametrize("threshold", [0.001, 0.3, 0.5, 0.9])
def test_moved_logits_are_zero_where_they_were_at_the_threshold(threshold):
    assert 1 / (1 + np.exp(-(0 - offset(threshold)))) == pytest.approx(threshold)


@pytest.mark.parametrize("wrong", [0, 1, 1.5, -0.1, True, "0.5", None, float("nan")])
def test_what_is_no_threshold(wrong):
    with pytest.raises(InputError, match="give a number between 0 and 1"):
        check_threshold(wrong)
