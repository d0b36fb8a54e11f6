"""The atlas and the copy on supports where their answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from universeg_rt import Ensemble
from universeg_rt.imaging.metrics import dice
from universeg_rt.training.evaluation.baselines import THRESHOLDS, atlas, best_threshold, copy


def bars(*columns, size=16):
    out = np.zeros((len(columns), size, size), bool)
    for i, column in enumerate(columns):
        out[i, 4:12, column : column + 4] = True
    return out


def test_an_atlas_is_the_weighted_mean_of_the_members():
    labels = bars(2, 4, 6)
    share, _ = atlas(labels, [(np.array([0, 1]), np.array([0.75, 0.25])), (np.array([2]), np.array([1.0]))])
    assert np.allclose(share, 0.5 * (0.75 * labels[0] + 0.25 * labels[1]) + 0.5 * labels[2])


def test_the_threshold_is_the_best_for_entries_left_out():
    still = np.repeat(bars(4), 6, axis=0)
    assert best_threshold(still, np.full(6, 1 / 6)) == pytest.approx(0.5), "all do: the middle"
    random = np.random.default_rng(0)
    moving = np.stack([np.roll(bars(4)[0], random.integers(-3, 4, 2), (0, 1)) for _ in range(12)])
    chosen = best_threshold(moving, np.full(12, 1 / 12))
    scores = [np.mean([dice(np.delete(moving, i, 0).mean(0) >= t, moving[i]) for i in range(12)]) for t in THRESHOLDS]
    assert scores[int(np.argmin(abs(THRESHOLDS - chosen)))] == pytest.approx(max(scores)) and chosen < 0.5
    assert best_threshold(moving[:1], np.ones(1)) == 0.5


def test_an_entry_drawn_twice_is_left_out_with_its_double():
    labels = bars(2, 8)
    once = best_threshold(labels, np.array([0.5, 0.5]))
    assert once == best_threshold(labels, np.array([0.75, 0.25])), "the others' atlas is the other label alone"


def test_the_copy_is_of_the_most_similar_image_whatever_its_brightness():
    random = np.random.default_rng(1)
    images, labels = random.integers(0, 200, (5, 16, 16)).astype(np.uint8), bars(0, 2, 4, 6, 8)
    query = (images[3] * 0.4 + 60 + random.normal(0, 3, (16, 16))).astype(np.uint8)
    everything = Ensemble(1).draw(5)
    assert np.array_equal(copy(query, images, labels, everything), labels[3])
    without = [(np.array([0, 1, 2, 4]), np.full(4, 0.25))]
    assert not np.array_equal(copy(query, images, labels, without), labels[3])
    both = copy(query, images, labels, [*everything, *without])
    assert np.array_equal(both, 0.5 * labels[3] + 0.5 * copy(query, images, labels, without))
    flat = np.full((16, 16), 7, np.uint8)
    assert copy(flat, images, labels, everything).any(), "an image of one value copies some entry"
