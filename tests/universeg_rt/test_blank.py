"""Queries with nothing to see in them: an empty mask, probability 0 and a note, without the network."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from universeg_rt import Ensemble, SupportSet, Window
from universeg_rt.errors import BlankError, InputError

from ..conftest import discs

GOOD = discs(1, seed=7)[0][0] / 255


@pytest.fixture(scope="module")
def support():
    return SupportSet.from_arrays(*discs(7))


@pytest.fixture
def seen(segmenter, monkeypatch):
    """How many queries each run of the network was given."""
    counts, original = [], segmenter.runner.run

    def run(prepared, queries):
        counts.append(len(queries))
        return original(prepared, queries)

    monkeypatch.setattr(segmenter.runner, "run", run)
    return counts


@pytest.mark.parametrize("value", [0, -3.5, True])
def test_a_blank_query_is_empty_and_noted(segmenter, support, seen, value):
    found = segmenter.prepare(support, Ensemble(2, 3)).predict(np.full((50, 30), value), logits=True)
    assert found.mask.shape == found.spread.shape == (50, 30)
    assert not found.mask.any() and not found.probability.any() and not found.spread.any()
    assert found.emptied == "blank" and found.confidence == 0 and found.timing.network == 0
    assert found.logits.shape == (2, 32, 32) and (found.logits == -np.inf).all()
    assert found.notes[0] == f"image is constant ({value}): its mask is empty, and the network did not run for it"
    assert not seen


def test_blank_queries_in_a_batch_change_nothing_for_the_others(segmenter, support, seen):
    task = segmenter.prepare(support)
    alone = task.predict(GOOD)
    found = task.predict_batch([GOOD * 0, GOOD, GOOD * 0 + 1])
    assert seen == [1, 1]
    assert [each.emptied for each in found] == ["blank", "", "blank"]
    assert np.array_equal(found[1].probability, alone.probability)
    assert found[2].notes[0].startswith("image 2 is constant (1.0)")


def test_an_image_without_values_in_the_window_is_blank(segmenter, support, seen):
    task = segmenter.prepare(support, normalise=Window(20, 200))
    found = task.predict(GOOD * 9 + 300)
    assert not found.mask.any() and "constant within window 20 to 200 (its values lie from 300" in found.notes[0]
    assert not seen
    # A constant image is so named even where the window has its value.
    assert task.predict(np.full((9, 9), 50)).notes[0].startswith("image is constant (50)")


def test_frozen_tasks_have_the_blank_rule_too(segmenter, support):
    frozen = segmenter.prepare(support, Ensemble(3, 4)).freeze(kind="exact")
    assert not frozen.predict(GOOD * 0).mask.any()
    assert frozen.member_probabilities(GOOD * 0).shape == (3, *GOOD.shape)
    assert frozen.predict_batch([]) == []


def test_what_reads_images_itself_still_refuses_blank_ones(segmenter, support):
    task = segmenter.prepare(support)
    with pytest.raises(BlankError, match="image 1 is constant .0.0., there is nothing to see in it; leave it out"):
        task.on_grid([GOOD, GOOD * 0])
    with pytest.raises(InputError, match="constant"):
        task.freeze([GOOD * 0])


def test_the_error_survives_a_pickle():
    error = pickle.loads(pickle.dumps(BlankError("image is constant (0)", "; leave it out")))
    assert (error.short, str(error)) == ("image is constant (0)", "image is constant (0); leave it out")
