"""Targets taken to be absent: empty masks by a rule, on request alone."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from universeg_rt import FrozenTask, InputError, LabelledSupport, SupportSet
from universeg_rt.answers.absence import ABSENT_BELOW, PARTS, UNKNOWN_NOTE, Looks
from universeg_rt.imaging.embedding import NUMBERS, embed, look_of
from universeg_rt.imaging.normalisation import MINMAX

from ...conftest import discs

IMAGES, LABELS = discs(5)
QUERY = discs(1, seed=9)[0][0]
# What has nothing to do with discs: a ramp, with noise upon it.
RAMPS = np.add.outer(np.random.default_rng(1).normal(0, 3, (4, QUERY.shape[0])), np.arange(QUERY.shape[1]) * 6.0)
RAMPS = RAMPS.clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def task(segmenter):
    return segmenter.prepare(SupportSet.from_arrays(IMAGES, LABELS))


@pytest.fixture(scope="module")
def knowing(segmenter):
    """A task whose support has three images without discs."""
    return segmenter.prepare(SupportSet.from_arrays([*IMAGES, *RAMPS[:3]], [*LABELS, *np.zeros((3, *QUERY.shape))]))


def test_a_mask_is_emptied_below_the_presence_asked_for_and_not_at_it(knowing):
    plain = knowing.predict(QUERY, threshold=0.3)
    value = knowing.looks.presence(QUERY, MINMAX)
    assert plain.mask.any() and 0.5 < value < 1
    kept = knowing.predict(QUERY, threshold=0.3, absent_below=value)
    assert np.array_equal(kept.mask, plain.mask) and kept.emptied == "" and kept.notes == plain.notes
    emptied = knowing.predict(QUERY, threshold=0.3, absent_below=min(1.0, value * 1.01))
    assert not emptied.mask.any() and emptied.emptied == "absent" and emptied.confidence == 0
    assert np.array_equal(emptied.probability, plain.probability)
    assert f"presence {value:.2f}, below absent_below" in emptied.notes[0]


def test_without_an_example_of_absence_nothing_is_emptied_and_a_note_says_so(task):
    plain = task.predict(QUERY, threshold=0.3)
    asked = task.predict(QUERY, threshold=0.3, absent_below=1.0)
    assert task.looks is None and np.array_equal(asked.mask, plain.mask) and asked.mask.any()
    assert set(asked.notes) == {UNKNOWN_NOTE, *plain.notes} and len(asked.notes) == len(plain.notes) + 1


def test_a_support_that_shows_absence_tells_it_by_an_images_look(knowing):
    free = knowing.predict_batch([QUERY, RAMPS[3]], threshold=0.3)
    assert all(answer.mask.any() for answer in free)
    kept, emptied = knowing.predict_batch([QUERY, RAMPS[3]], threshold=0.3, absent_below=ABSENT_BELOW)
    assert np.array_equal(kept.mask, free[0].mask) and kept.emptied == "" and kept.notes == free[0].notes
    assert not emptied.mask.any() and emptied.emptied == "absent"


def test_looks_by_hand(knowing):
    support = knowing.support
    assert Looks.of_entries(support.images[:5], support.labels[:5], MINMAX) is None
    looks = Looks.of_entries(support.images, support.labels, MINMAX)
    with_it, without = ([looks.presence(image, MINMAX) for image in part]
                        for part in (support.images[:5], support.images[5:]))
    assert min(with_it) > 0.5 > max(without)  # of what it was fitted on
    # Kinds that change places give the mirrored answer.
    swapped = Looks.of_entries(support.images, [~support.labels[0] if empty else np.zeros_like(support.labels[0])
                                                for empty in (not label.any() for label in support.labels)], MINMAX)
    assert looks.presence(QUERY, MINMAX) > 0.5
    assert swapped.presence(QUERY, MINMAX) == pytest.approx(1 - looks.presence(QUERY, MINMAX), abs=1e-5)
    assert looks.presence(QUERY * 0, MINMAX) == 0.5, "of a blank image nothing is known"


def test_a_slices_place_tells_where_looks_do_not():
    """Slices that all look alike, with the target in the middle of the volume."""
    looks = embed(np.stack([look_of(QUERY, MINMAX)] * 9))
    places = np.linspace(0, 1, 9)
    marked = np.abs(places - 0.5) < 0.3
    assert Looks.of(looks, marked).presence(QUERY, MINMAX, 0.0) == pytest.approx(0.5)
    found = Looks.of(looks, marked, places)
    told = [found.presence(QUERY, MINMAX, place) for place in places]
    assert all((value > 0.5) == held for value, held in zip(told, marked))
    assert found.presence(QUERY, MINMAX) == pytest.approx(0.5), "without its place only its look counts"


def test_looks_of_volumes_are_kept_and_say_which_volumes_are_alike():
    looks, marked = embed(np.stack([look_of(QUERY, MINMAX), look_of(RAMPS[0], MINMAX)])), np.array([True, False])
    found = Looks.of(looks, marked, [0.5, 0], "axial", (50.0, 80.0))
    again = Looks.of_array(found.array, "axial", "it")
    assert again == found and hash(again) == hash(found) and again.lengths == (50.0, 80.0)
    assert found.array.shape == (2, NUMBERS + PARTS + 1)
    for plane, longest in (("coronal", 80.0), ("axial", 81.0)):
        assert Looks.of(looks, marked, [0.5, 0], plane, (50.0, longest)) != found
    assert Looks.of(looks, ~marked, [0.5, 0], "axial", (50.0, 80.0)) != found
    assert not any(found.misfit(length) for length in (40, 100.0))
    assert "39 mm long across its slices, the support's volumes 50 to 80 mm" in found.misfit(39)
    assert found.misfit(101) and "not known" in found.misfit(None) and not Looks.of(looks, marked).misfit(None)


def test_slices_of_many_volumes_take_no_memory_by_their_square():
    count = 3000
    embeddings = np.random.default_rng(0).random((count, NUMBERS), np.float32)
    tracemalloc.start()
    assert Looks.of(embeddings, embeddings[:, 0] > 0.5, np.linspace(0, 1, count)).of_volumes
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < count * count * 8


@pytest.mark.parametrize("values", [np.zeros((2, NUMBERS + 1), np.float32), np.zeros((2, NUMBERS)),
                                    np.full((2, NUMBERS), np.nan, np.float32), np.zeros(2, np.float32)])
def test_arrays_that_are_no_looks(values):
    with pytest.raises(InputError, match=r"x.npz: looks is float.* of shape .*; expected what SupportSet.save writes"):
        Looks.of_array(values, "", "x.npz: looks")


@pytest.mark.parametrize("places, words", [([0.5], "places are .*; give 2, one for each image"),
                                           ([0.5, 1.5], "a place is 1.5"), ([0.5, True], "a place is True"),
                                           ([0.5, float("nan")], "a place is nan"), (0.5, "give 2, one for each"),
                                           ([0.5, None], "a place is None"), ([0.5, "0.5"], "a place is '0.5'"),
                                           ([[0.5], [0.5, 1]], r"a place is \[0.5\]")])
def test_places_that_are_none(task, places, words):
    with pytest.raises(InputError, match=words):
        task.predict_batch([QUERY, QUERY], places=places)


@pytest.mark.parametrize("kind", ["static", "exact"])
def test_a_frozen_task_and_its_file_tell_it_too(knowing, task, tmp_path, kind):
    frozen = knowing.freeze(kind=kind)
    asked = {"threshold": 1e-3, "absent_below": ABSENT_BELOW}
    frozen.save(tmp_path / "frozen.onnx")
    for each in (frozen, FrozenTask.open(tmp_path / "frozen.onnx")):
        assert each.looks == knowing.looks and each.record == frozen.record
        assert each.predict(RAMPS[3], threshold=1e-3).mask.any() and each.predict(RAMPS[3], **asked).emptied == "absent"
        assert each.predict(QUERY, **asked).mask.any()
    assert task.freeze(kind=kind).record.looks is None


def test_blank_and_empty_answers_stay_what_they_are(knowing):
    assert knowing.predict(QUERY * 0, absent_below=1.0).emptied == "blank"
    empty = knowing.predict(QUERY, threshold=0.999999, absent_below=1.0)
    assert not empty.mask.any() and empty.emptied == "" and "mask is empty" in empty.notes[0]


def test_an_absent_label_hides_no_other(segmenter):
    """Label 1 is in every entry, label 2 not in the ramps."""
    maps = [np.where(label > 0, 2, 1) for label in (*LABELS, *np.zeros((3, *QUERY.shape)))]
    support = LabelledSupport.from_arrays([*IMAGES, *RAMPS[:3]], maps)
    task = segmenter.prepare_labels(support)
    free = segmenter.prepare_labels(support, overlap="independent")
    asked = {"threshold": 1e-3, "absent_below": ABSENT_BELOW}
    answer = task.predict(RAMPS[3], **asked)
    assert answer.predictions["label 2"].emptied == "absent" and not answer.masks["label 2"].any()
    assert free.predict(RAMPS[3], threshold=1e-3).masks["label 2"].any()
    assert np.array_equal(answer.masks["label 1"], free.predict(RAMPS[3], threshold=1e-3).masks["label 1"])
    assert answer.masks["label 1"].any()


@pytest.mark.parametrize("value", [-0.1, 1.1, "0.5", True, float("nan")])
def test_values_that_are_no_presence(task, value):
    with pytest.raises(InputError, match="absent_below is .*; give a number from 0 to 1, or None"):
        task.predict(QUERY, absent_below=value)
