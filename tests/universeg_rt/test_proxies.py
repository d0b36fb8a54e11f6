"""Proxies: entries of the support that run once more, turned and shifted."""

from __future__ import annotations

import numpy as np
import pytest

from universeg_rt import RunnerError, proxies

from .test_freezing import segmenter, support  # noqa: F401 (fixtures)


def dots(height: int = 48, width: int = 64) -> np.ndarray:
    """Four images of a bright square at the centre."""
    images = np.zeros((4, height, width), np.float32)
    images[:, height // 2 - 2 : height // 2 + 2, width // 2 - 2 : width // 2 + 2] = 1
    return images


def test_what_is_neither_turned_nor_shifted_is_the_same(monkeypatch):
    images = np.random.default_rng(0).random((3, 40, 56), dtype=np.float32)
    monkeypatch.setattr(proxies, "TURN", 0)
    monkeypatch.setattr(proxies, "SHIFT", 0)
    np.testing.assert_allclose(proxies.turned(images, 0), images, atol=1e-6)


def centroid(image: np.ndarray) -> np.ndarray:
    """(row, column) of the bright square, from the image's centre."""
    found = np.argwhere(image > 0.5)
    assert 8 <= len(found) <= 24, "the square keeps its size"
    return found.mean(0) - (np.array(image.shape) - 1) / 2


def test_each_image_is_shifted_by_its_own_share_of_the_sides(monkeypatch):
    monkeypatch.setattr(proxies, "TURN", 0)
    found = np.array([centroid(image) for image in np.concatenate([proxies.turned(dots(), s) for s in range(5)])])
    most = np.abs(found).max(0)
    assert (most <= [5.4, 7]).all() and (most > [3, 4]).all() and (found.std(0) > [1.5, 2]).all()


def test_each_image_is_turned_by_its_own_angle(monkeypatch):
    """A square that lies to the right of the centre comes to lie as far from it, at the angle."""
    monkeypatch.setattr(proxies, "SHIFT", 0)
    beside = np.roll(dots(), 16, axis=2)
    found = np.array([centroid(image) for image in np.concatenate([proxies.turned(beside, s) for s in range(5)])])
    angles = np.degrees(np.arctan2(found[:, 0], found[:, 1]))
    np.testing.assert_allclose(np.hypot(*found.T), 16, atol=0.5)
    assert np.abs(angles).max() <= 31.5 and angles.max() > 15 and angles.min() < -15 and angles.std() > 10


def test_what_is_drawn_follows_the_seed():
    one, same, other = (proxies.turned(dots(), seed) for seed in (3, 3, 4))
    assert one.shape == (4, 48, 64) and one.dtype == np.float32
    assert np.array_equal(one, same) and not np.array_equal(one, other)


@pytest.mark.parametrize("seed", range(4))
def test_a_turn_leaves_the_centre_where_it_is(monkeypatch, seed):
    monkeypatch.setattr(proxies, "SHIFT", 0)
    for image in proxies.turned(dots(), seed):
        rows, columns = np.nonzero(image > 0.5)
        assert abs(rows.mean() - 23.5) < 0.3 and abs(columns.mean() - 31.5) < 0.3


def test_what_comes_in_from_outside_repeats_the_edge():
    images = np.full((4, 40, 40), 0.25, np.float32)
    np.testing.assert_allclose(proxies.turned(images, 0), images, atol=1e-6)


@pytest.mark.parametrize("height, width", [(64, 32), (16, 16), (4, 8)])
def test_smoothing_is_a_gaussian_of_a_thirty_second_of_the_sides(height, width):
    ndimage = pytest.importorskip("scipy.ndimage", reason="scipy is not installed: pip install '.[medical]'")
    maps = np.random.default_rng(0).random((3, height, width), dtype=np.float32)
    wanted = ndimage.gaussian_filter(maps, (0, height / 32, width / 32), mode="nearest", truncate=8)
    np.testing.assert_allclose(proxies.smoothed(maps), wanted, atol=1e-6)


def test_no_smoothing_changes_nothing(monkeypatch):
    monkeypatch.setattr(proxies, "SMOOTH", 0)
    maps = np.random.default_rng(0).random((3, 16, 16), dtype=np.float32)
    np.testing.assert_array_equal(proxies.smoothed(maps), maps)


def test_entries_run_turned_only_for_a_support_that_is_not_large_and_only_where_static_is_taken(
        segmenter, support, monkeypatch):  # noqa: F811
    task = segmenter.prepare(support)
    seen = []
    monkeypatch.setattr(proxies, "turned", lambda images, seed: seen.append(seed) or images)
    loss = task.freeze(kind="static").price.loss
    assert seen == [0]
    assert task.freeze(max_loss=loss / 2).kind == "exact" and seen == [0]
    monkeypatch.setattr(proxies, "LARGE", len(support))
    frozen = task.freeze(kind="static")
    assert seen == [0] and frozen.record.proxies == "the support's own entries"


def test_auto_takes_exact_where_there_is_no_memory_for_the_whole_support(segmenter, support, monkeypatch):  # noqa: F811
    def fails(*_):
        raise RunnerError("not enough memory for this support")

    monkeypatch.setattr("universeg_rt.freezing.of_support", fails)
    task = segmenter.prepare(support)
    frozen = task.freeze(max_loss=1)
    assert frozen.kind == "exact" and "not enough memory" in frozen.reason and frozen.price.loss is not None
    with pytest.raises(RunnerError, match="not enough memory"):
        task.freeze(kind="static")
