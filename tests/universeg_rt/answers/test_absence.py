"""Targets taken to be absent: empty masks by a rule, on request alone."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from universeg_rt import FrozenTask, InputError, LabelledSupport, SupportSet
from universeg_rt.answers.absence import ABSENT_BELOW, UNKNOWN_NOTE, Looks, presence
from universeg_rt.imaging.metrics import mean_inside

from ...conftest import discs

IMAGES, LABELS = discs(5)
QUERY = discs(1, seed=9)[0][0]
NOISE = np.random.default_rng(1).normal(60, 12, (4, *QUERY.shape)).clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def task(segmenter):
    return segmenter.prepare(SupportSet.from_arrays(IMAGES, LABELS))


@pytest.fixture(scope="module")
def knowing(segmenter):
    """A task whose support has three images of noise alone."""
    return segmenter.prepare(SupportSet.from_arrays([*IMAGES, *NOISE[:3]], [*LABELS, *np.zeros((3, *QUERY.shape))]))


def test_a_mask_is_emptied_below_the_presence_asked_for_and_not_at_it(task):
    plain = task.predict(QUERY, threshold=0.3)
    value = presence(plain.probability, plain.mask, task.on_grid([QUERY])[0, 0], None)
    assert value == pytest.approx(plain.probability[plain.mask].mean())
    assert plain.mask.any() and 0.3 < value < 1
    kept = task.predict(QUERY, threshold=0.3, absent_below=value)
    assert np.array_equal(kept.mask, plain.mask) and kept.emptied == ""
    assert kept.notes == (*plain.notes, UNKNOWN_NOTE)
    emptied = task.predict(QUERY, threshold=0.3, absent_below=min(1.0, value * 1.01))
    assert not emptied.mask.any() and emptied.emptied == "absent" and emptied.confidence == 0
    assert np.array_equal(emptied.probability, plain.probability)
    assert f"presence {value:.2f}, below absent_below" in emptied.notes[0]


def test_a_support_that_shows_absence_tells_it_by_an_images_look(knowing):
    free = knowing.predict_batch([QUERY, NOISE[3]], threshold=0.3)
    assert all(answer.mask.any() for answer in free)
    kept, emptied = knowing.predict_batch([QUERY, NOISE[3]], threshold=0.3, absent_below=ABSENT_BELOW)
    assert np.array_equal(kept.mask, free[0].mask) and kept.emptied == "" and kept.notes == free[0].notes
    assert not emptied.mask.any() and emptied.emptied == "absent"


def test_looks_by_hand(knowing):
    entries = knowing.support.on_grid(knowing.grid, "stretch")
    assert Looks.of(entries[:5]) is None and Looks.of(entries[5:]) is None
    looks = Looks.of(entries)
    with_it, without = ([looks.presence(entry[0]) for entry in part] for part in (entries[:5], entries[5:]))
    assert min(with_it) > 0.5 > max(without)  # of what it was fitted on
    # Kinds that change places give the mirrored answer.
    image = knowing.on_grid([QUERY])[0, 0]
    swapped = entries.copy()
    swapped[:5, 1], swapped[5:, 1] = 0, 1
    assert looks.presence(image) > 0.5
    assert Looks.of(swapped).presence(image) == pytest.approx(1 - looks.presence(image), abs=1e-5)


def test_a_frozen_task_tells_it_too_until_it_is_a_file(knowing, tmp_path):
    frozen = knowing.freeze(kind="static")
    asked = {"threshold": 1e-3, "absent_below": ABSENT_BELOW}
    assert frozen.predict(NOISE[3], threshold=1e-3).mask.any() and frozen.predict(NOISE[3], **asked).emptied == "absent"
    assert pickle.loads(pickle.dumps(frozen)).predict(NOISE[3], **asked).emptied == "absent"
    frozen.save(tmp_path / "frozen.onnx")
    assert UNKNOWN_NOTE in FrozenTask.open(tmp_path / "frozen.onnx").predict(NOISE[3], **asked).notes


def test_blank_and_empty_answers_stay_what_they_are(task):
    assert task.predict(QUERY * 0, absent_below=1.0).emptied == "blank"
    empty = task.predict(QUERY, threshold=0.999999, absent_below=1.0)
    assert not empty.mask.any() and empty.emptied == "" and "mask is empty" in empty.notes[0]


def test_an_absent_label_hides_no_other(segmenter):
    maps = np.where(LABELS > 0, 2, 1)
    task = segmenter.prepare_labels(LabelledSupport.from_arrays(IMAGES, maps))
    free = segmenter.prepare_labels(LabelledSupport.from_arrays(IMAGES, maps), overlap="independent")
    each = free.predict(QUERY, threshold=0.3).predictions
    found = {name: mean_inside(one.probability, one.mask) for name, one in each.items()}
    low, high = sorted(found, key=found.__getitem__)
    assert 0 < found[low] < found[high]
    answer = task.predict(QUERY, threshold=0.3, absent_below=found[high])
    assert answer.predictions[low].emptied == "absent" and not answer.masks[low].any()
    assert np.array_equal(answer.masks[high], free.predict(QUERY, threshold=0.3).masks[high])


@pytest.mark.parametrize("value", [-0.1, 1.1, "0.5", True, float("nan")])
def test_values_that_are_no_presence(task, value):
    with pytest.raises(InputError, match="absent_below is .*; give a number from 0 to 1, or None"):
        task.predict(QUERY, absent_below=value)
