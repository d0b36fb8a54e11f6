"""Overlays show thin predictions under the truth's outline, keep colours apart, are enlarged, and have a legend."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from universeg_rt.imaging.overlays import (
    LABELS,
    PREDICTED,
    TRUTH,
    Look,
    contact_sheet,
    square_pixels,
    tinted,
    with_legend,
    write_overlay,
    zoom_of,
)


def count(picture, colour) -> int:
    return int((picture == np.array(colour)).all(axis=-1).sum())


@pytest.mark.parametrize("zoom", [1, 2, 4])
def test_a_predicted_line_shows_under_the_same_true_line(zoom):
    line = np.zeros((20, 20), bool)
    line[10, 3:17] = True
    picture = tinted(np.full((20, 20), 0.5, np.float32), line, line, zoom=zoom)
    assert picture.shape == (20 * zoom, 20 * zoom, 3)
    assert count(picture, TRUTH) > 0
    predicted = np.abs(picture.astype(int) - 128).max(axis=-1) > 20
    truth = (picture == np.array(TRUTH)).all(axis=-1)
    assert (predicted & ~truth).sum() >= 5 if zoom != 2 else truth.any()


def test_without_a_prediction_the_true_outline_is_whole():
    truth = np.zeros((20, 20), bool)
    truth[5:12, 5:12] = True
    picture = tinted(np.zeros((20, 20), np.float32), np.zeros((20, 20), bool), truth)
    assert count(picture, TRUTH) == 24 and count(picture, PREDICTED) == 0


def test_labels_have_colours_of_their_own():
    labels = np.zeros((40, 40), np.uint8)
    labels[2:12, 2:12], labels[20:30, 20:30] = 3, 7
    look = Look({3: "grey matter", 7: "white matter"})
    picture = tinted(np.zeros((40, 40), np.float32), labels, labels, look, zoom=2)
    for value, place in ((3, 0), (7, 1)):
        inside = picture[np.kron(labels, np.ones((2, 2), int)) == value]
        assert (np.abs(inside.astype(int) - np.array(LABELS[place]) * 0.4).max(axis=1) < 2).mean() > 0.5
        assert look.truth(value) != look.colour(value) and count(picture, look.truth(value)) > 0
    assert [line[0] for line in look.legend(True)] == ["grey matter", "white matter", "outline: true, fill: predicted"]


def test_small_images_are_enlarged_and_large_ones_are_not(tmp_path):
    assert [zoom_of(shape) for shape in ((320, 320), (1000, 500), (160, 200), (10, 10))] == [1, 1, 2, 8]
    image = np.arange(30 * 40).reshape(30, 40)
    write_overlay(tmp_path / "o.png", image, image > 600, image > 500)
    with Image.open(tmp_path / "o.png") as picture:
        assert picture.width == 40 * 8 and picture.height > 30 * 8


def test_the_legend_is_below_and_the_picture_as_it_was():
    picture = tinted(np.arange(900.0).reshape(30, 30) / 899, np.eye(30, dtype=bool))
    shown = with_legend(picture, Look(), True)
    assert np.array_equal(shown[:30, :30], picture) and shown.shape[0] > 50
    assert count(shown[30:], TRUTH) > 0 and count(shown[30:], PREDICTED) > 0


def test_pixels_that_are_not_square_are_shown_so():
    label = np.zeros((10, 20), np.uint8)
    label[5] = 2
    assert square_pixels(label, (3.0, 1.0)).shape == (30, 20) and square_pixels(label, (3.0, 1.0)).max() == 2
    assert square_pixels(label, None) is label and np.array_equal(square_pixels(label, (0.5, 0.5)), label)


def test_a_sheet_holds_every_panel():
    panels = [np.full((20, 30 + i, 3), 40 * i + 40, np.uint8) for i in range(5)]
    sheet = contact_sheet(panels, [f"slice {i}" for i in range(5)], Look(), False, tile=64, across=3)
    assert sheet.shape[1] == 3 * 68 + 4
    for i in range(5):
        assert count(sheet, (40 * i + 40,) * 3) > 1000
