"""Policies of an ensemble: which entries answer a query, the same by hand as by the task, and what they refuse."""

from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from universeg_rt import Ensemble, InputError, RunnerError, SupportSet
from universeg_rt import sets as sets_module
from universeg_rt.imaging.embedding import embed

from ..conftest import discs


@pytest.fixture(scope="module")
def support():
    return SupportSet.from_arrays(*discs(9))


@pytest.fixture(scope="module")
def images():
    return list(discs(6, seed=7)[0])


def order(segmenter, support, image):
    """Entries by similarity of their embeddings to the image's, from the definition."""
    entries = embed(support.on_grid(segmenter.grid, "stretch")[:, 0])
    query = embed(segmenter.prepare(support).on_grid([image])[:, 0])[0]
    return np.argsort(-(entries @ query), kind="stable")


def test_nearest_is_a_task_of_the_most_similar_entries(segmenter, support, images):
    task = segmenter.prepare(support, Ensemble(1, 3, policy="nearest"))
    chosen = set()
    for image in images:
        nearest = sorted(order(segmenter, support, image)[:3])
        by_hand = segmenter.prepare(support.subset(nearest)).predict(image)
        assert np.array_equal(task.predict(image).probability, by_hand.probability)
        chosen.add(tuple(nearest))
    assert len(chosen) > 1, "the images ask for different entries"


def test_members_of_nearest_draw_from_as_many_as_they_hold_together(segmenter, support, images):
    ensemble = Ensemble(2, 3, seed=4, policy="nearest")
    task = segmenter.prepare(support, ensemble)
    for image in images:
        draw = task.sets.draw_for(task.on_grid([image])[0, 0])
        assert set(draw.used) <= set(order(segmenter, support, image)[:6])
        assert np.allclose(draw.weights.sum(1), 1) and ((draw.weights > 0).sum(1) == 3).all()
        rng, nearest = np.random.default_rng(4), order(segmenter, support, image)[:6]
        wanted = [segmenter.prepare(support.subset(sorted(rng.choice(nearest, 3, replace=False)))) for _ in range(2)]
        found = task.member_probabilities(image)
        for each, by_hand in zip(found, wanted, strict=True):
            np.testing.assert_allclose(each, by_hand.predict(image).probability, atol=1e-6)
        assert np.array_equal(task.predict(image).probability, task.predict(image).probability)


def test_a_batch_of_nearest_is_its_images_one_by_one(segmenter, support, images):
    task = segmenter.prepare(support, Ensemble(2, 3, policy="nearest"))
    mixed = [*images, images[0], images[2]]
    for image, prediction in zip(mixed, task.predict_batch(mixed), strict=True):
        alone = segmenter.prepare(support, task.ensemble).predict(image)
        np.testing.assert_allclose(prediction.probability, alone.probability, atol=1e-6)
        np.testing.assert_allclose(prediction.spread, alone.spread, atol=1e-6)


def test_what_is_asked_for_again_is_prepared_once_and_little_is_kept(segmenter, support, images, monkeypatch):
    prepared, prepare = [], segmenter.runner.prepare

    def counted(support, weights):
        if support.ndim == 4:  # not what the runner itself asks for when it has written the sets out
            prepared.append(support)
        return prepare(support, weights)

    monkeypatch.setattr(segmenter.runner, "prepare", counted)
    task = segmenter.prepare(support, Ensemble(1, 3, policy="nearest"))
    assert not prepared, "nothing is known of a query yet"
    for _ in range(3):
        task.predict(images[0])
    assert len(prepared) == 1
    task.predict_batch([images[0]] * 4)
    assert len(prepared) == 1
    monkeypatch.setattr(sets_module, "KEPT", 1)
    task.predict_batch(images)
    assert len(task.sets._kept) == 1


def test_several_threads_get_the_answers_of_one(segmenter, support, images):
    task = segmenter.prepare(support, Ensemble(1, 2, policy="nearest"))
    expected = [task.predict(image).probability for image in images]
    with ThreadPoolExecutor(4) as pool:
        for i, found in enumerate(pool.map(lambda i: task.predict(images[i % 6]).probability, range(24))):
            assert np.array_equal(found, expected[i % 6])


def test_all_is_every_entry(segmenter, support, images):
    everything = segmenter.prepare(support, Ensemble(policy="all")).predict(images[0])
    assert np.array_equal(everything.probability, segmenter.prepare(support).predict(images[0]).probability)


def test_a_nearest_task_cannot_be_frozen_and_says_why(segmenter, support):
    task = segmenter.prepare(support, Ensemble(1, 3, policy="nearest"))
    for ask in (task.freeze, lambda: task.draw, lambda: task.prepared):
        with pytest.raises(InputError, match="draws other entries for each query.* 'random' or 'all'"):
            ask()
    task.close()
    with pytest.raises(RunnerError, match="closed"):
        task.freeze()


def test_a_nearest_task_travels(segmenter, support, images):
    task = segmenter.prepare(support, Ensemble(1, 3, policy="nearest"))
    again = pickle.loads(pickle.dumps(task))
    assert repr(again) == repr(task) and "1 member of 3 nearest" in repr(task)
    assert np.array_equal(again.predict(images[0]).probability, task.predict(images[0]).probability)


@pytest.mark.parametrize("values, message", [
    ({"policy": "best"}, "policy is 'best'; accepted: random, nearest, all"),
    ({"policy": ["all"]}, "policy is"),
    ({"policy": "nearest"}, "needs a support_size"),
    ({"policy": "all", "support_size": 4}, "takes every entry, but support_size is 4"),
    ({"policy": "all", "replacement": True}, "holds an entry once"),
    ({"policy": "nearest", "support_size": 4, "replacement": True}, "holds an entry once"),
])
def test_values_that_do_not_go_with_the_policy(values, message):
    with pytest.raises(InputError, match=message):
        Ensemble(**values)


def test_nearest_of_more_than_there_are(segmenter, support):
    with pytest.raises(InputError, match="support_size is 10, but the support set has 9 entries; take at most 9"):
        segmenter.prepare(support, Ensemble(1, 10, policy="nearest"))
    with pytest.raises(InputError, match="draws for a query"):
        Ensemble(1, 3, policy="nearest").draw(9)
