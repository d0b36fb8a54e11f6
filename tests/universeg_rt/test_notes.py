"""Notes: what is allowed but rarely meant is said in the prediction, and only then."""

from __future__ import annotations

import re

import numpy as np
import pytest

from universeg_rt import Ensemble, InputError, SupportSet, Window
from universeg_rt.imaging.preprocess import normalise
from universeg_rt.notes import label_notes, mask_note, range_note

from ..conftest import SMALL_GRID, discs


@pytest.fixture(scope="module")
def support():
    return SupportSet.from_arrays(*discs(5))


def hot(image: np.ndarray, value: int = 65_535) -> np.ndarray:
    out = image.astype(np.uint16)
    out[3, 4] = value
    return out


@pytest.mark.parametrize("change",
                         [hot, lambda i: hot(i.astype(np.uint16) + 10_000, 0), lambda i: -hot(i).astype(float)])
def test_a_hot_or_dead_pixel_is_noted(change):
    image = discs(1, 60, 50)[0][0]
    assert range_note(normalise(image), "image") is None
    note = range_note(normalise(change(image)), "image")
    assert "under 0.1 % of the pixels of image set its intensity range: all others lie within" in note


def test_a_range_that_many_pixels_set_is_not_noted():
    rng = np.random.default_rng(0)
    for image in (rng.normal(size=(100, 100)), rng.random(
        (40, 40)), np.eye(40), discs(1)[0][0], (np.arange(10_000) < 20).reshape(100, 100)):
        assert range_note(normalise(np.asarray(image, float)), "image") is None
    assert range_note(normalise((np.arange(10_000) < 9).astype(float).reshape(100, 100)), "image") is not None
    assert range_note(normalise((np.arange(900) < 2).astype(float).reshape(30, 30)),
                      "image") is None, "two of 900 are not few"
    assert range_note(normalise((np.arange(99) < 1).astype(float).reshape(9, 11)),
                      "image") is None, "one of 99 is not few"


def test_one_hot_pixel_of_a_small_image_is_noted():
    image = discs(1, 28, 28)[0][0]
    assert range_note(normalise(image), "image") is None
    note = range_note(normalise(hot(image)), "image")
    assert note.startswith("one pixel at an end or at both of image set its intensity range")


def test_a_hot_pixel_in_query_or_support_reaches_the_prediction(segmenter, support):
    image = discs(1, seed=7)[0][0]
    assert segmenter.prepare(support).predict(image).notes == ()
    noted = segmenter.prepare(support).predict(hot(image))
    assert len(
        noted.notes
    ) == 1 and "pixels of image set its intensity range" in noted.notes[0] and "normalise=Percentiles" in noted.notes[0]
    images, labels = discs(5)
    odd = SupportSet.from_arrays([images[0], hot(images[1]), hot(images[2]), *images[3:]], labels)
    task = segmenter.prepare(odd)
    assert "support image 1 set" in task.notes[0] and "(2 of 5 support images)" in task.notes[0]
    assert task.predict(image).notes == task.notes


def test_an_all_but_black_slice_of_a_volume_has_no_hot_pixels(segmenter, support):
    image = np.zeros((60, 50))
    image[30, 20:22] = 180
    task = segmenter.prepare(support)
    noted = task.predict_batch([image], names=["slice 7"])[0].notes
    assert noted[0].startswith("under 0.1 % of the pixels of slice 7 set its intensity range")
    assert not any("intensity range" in note for note in task.predict(image, volume_range=(0, 200)).notes)
    image[0, 0] = 5000
    assert any("intensity range" in note for note in task.predict(image, volume_range=(0, 200)).notes), "now it has"
    for limits in (-1, (3, 2), (0, float("nan")), "wide", (1, 2, 3)):
        with pytest.raises(InputError, match="volume_range is .*; give the lowest and the highest intensity"):
            task.predict(image, volume_range=limits)


def test_entries_without_the_target_and_windows_that_are_too_wide(segmenter):
    images, labels = discs(5)
    black = np.zeros_like(images[0])
    black[3, 4] = 9
    with_black = SupportSet.from_arrays([black, *images[1:]], [labels[0] & False, *labels[1:]])
    assert not any("intensity range" in note for note in segmenter.prepare(with_black).notes)
    wide = segmenter.prepare(SupportSet.from_arrays(images, labels), normalise=Window(0, 10_000)).notes
    assert any("of the window, and looks flat to the network" in note and "(5 of 5" in note for note in wide)
    usual = segmenter.prepare(SupportSet.from_arrays(images, labels), normalise=Window(0, 255)).notes
    assert not any("of the window" in note for note in usual)


@pytest.mark.parametrize("labels, message", [
    ([0.1, 0.1, 0.12], None),
    ([0, 0.1, 0.1], None),
    ([0, 0, 0.1], "2 of 3 support labels are empty"),
    ([0.9, 0.95, 0.8], "the support labels mark 90% of an image .median.; if they are inverted, give their complement"),
    ([0.1, 0.92, 0.1], "1 of 3 support labels mark more than half .* where the median is 10%, first b"),
    ([0.3, 0.45, 0.2], None),
])
def test_labels_that_may_not_be_meant(labels, message):
    made = [np.arange(100).reshape(10, 10) < round(100 * share) for share in labels]
    notes = label_notes(made, ["a", "b", "c"])
    assert notes == [] if message is None else len(notes) == 1 and re.search(message, notes[0])


def test_masks_that_are_empty_or_everything():
    assert mask_note("image", 0.0, 0.1) == "the mask is empty (the support labels mark 10.0% on average)"
    assert mask_note("slice 3", 0.95, 0.1).startswith("slice 3: the mask marks 95% of it (the support labels 10.0%")
    assert mask_note("image", 0.2, 0.1) is None and mask_note("image", 0.95, 0.95) is None


@pytest.mark.parametrize("change", [lambda i: i, lambda i: i.astype(np.float64), lambda i: i.astype(np.int32) * 2 - 7])
def test_a_query_that_is_in_the_support_is_noted_whatever_its_type(segmenter, support, change):
    task = segmenter.prepare(support)
    assert "is in the support, as entry 2" in task.predict(change(support.images[2])).notes[0]
    assert not any("in the support, as" in note for note in task.predict(discs(1, seed=9)[0][0]).notes)


@pytest.mark.parametrize("entries, ensemble, said", [
    (1, None, "1 example"), (3, None, "3 examples"), (4, None, ""), (6, Ensemble(8, 1), "1 example"),
    (6, Ensemble(8, 4), ""), (6, Ensemble(2, 3, policy="nearest"), "3 examples"),
    (6, Ensemble(1, 4, policy="nearest"), "")], ids=str)
def test_sets_of_few_examples_are_noted(segmenter, entries, ensemble, said):
    notes = segmenter.prepare(SupportSet.from_arrays(*discs(entries)), ensemble).notes
    assert len(notes) == 1 and f"sees {said} at a time; give it at least 4" in notes[0] if said else notes == ()


def far_apart(size: int = 400) -> tuple[np.ndarray, np.ndarray]:
    """Images far larger than the grid and labels of one pixel that no grid pixel's centre meets."""
    images = np.random.default_rng(0).random((3, size, size))
    labels = np.zeros(images.shape, bool)
    labels[:, 1, 1] = True
    return images, labels


def test_labels_that_vanish_on_the_grid(segmenter):
    images, labels = far_apart()
    with pytest.raises(InputError,
                       match=f"grid of {SMALL_GRID[0]}x{SMALL_GRID[1]} nothing is left of it in any entry; cut"):
        segmenter.prepare(SupportSet.from_arrays(images, labels))
    labels[0, :200, :200] = True
    task = segmenter.prepare(SupportSet.from_arrays(images, labels))
    assert "what 2 of 3 support labels mark is lost on the network's grid, first 1; cut" in task.notes[0]


def test_images_that_vanish_on_the_grid(segmenter, support):
    wave = np.tile([-1.0, 1.0, 1.0, -1.0], 96)
    fine = np.pad(np.outer(wave, wave), 64)  # a quarter of a pixel of the grid to a period
    task = segmenter.prepare(support)
    (note,) = task.predict(fine).notes
    assert note.startswith("image is constant on the network's grid of 32x32: its mask is empty")
    assert task.predict(fine[64:104, 64:104]).mask.shape == (40, 40)
    images, labels = discs(2, 512, 512)
    with pytest.raises(InputError, match="support image b is constant on the network's grid"):
        segmenter.prepare(SupportSet.from_arrays([images[0], fine], labels, ["a", "b"]))


def test_members_that_are_all_the_same_are_computed_once_and_noted(segmenter, support, monkeypatch):
    image = discs(1, seed=7)[0][0]
    alone = segmenter.prepare(support).predict(image)
    seen, original = [], segmenter.runner.run
    monkeypatch.setattr(segmenter.runner, "run", lambda *given: seen.append(original(*given)) or seen[-1])
    for ensemble in (Ensemble(5), Ensemble(5, support_size=5)):
        task = segmenter.prepare(support, ensemble)
        prediction = task.predict(image)
        assert seen[-1].shape[
            1] == 1 and "all 5 members are the same set of 5 entries, computed once" in prediction.notes[-1]
        assert np.array_equal(prediction.mask,
                              alone.mask) and np.abs(prediction.probability - alone.probability).max() < 1e-6
        assert prediction.spread.max() < 1e-6 and len(task.member_probabilities(image)) == 5
    for ensemble in (Ensemble(), Ensemble(5, support_size=4), Ensemble(5, replacement=True)):
        assert segmenter.prepare(support, ensemble).notes == ()
