"""Proxies: entries of the support that run once more, turned and shifted."""

from __future__ import annotations

import numpy as np
import pytest

from universeg_rt import proxies

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


def test_each_image_is_turned_about_its_centre_and_shifted_by_no_more_than_the_limits():
    images = dots()
    found = proxies.turned(images, 3)
    assert found.shape == images.shape and found.dtype == np.float32
    for image in found:
        rows, columns = np.nonzero(image > 0.5)
        assert 8 <= len(rows) <= 24, "the square keeps its size"
        assert abs(rows.mean() - 23.5) <= 4.9 and abs(columns.mean() - 31.5) <= 6.5
    assert len({image.tobytes() for image in found}) == 4, "each image gets its own"
    assert np.array_equal(found, proxies.turned(images, 3)) and not np.array_equal(found, proxies.turned(images, 4))


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
