"""The SDK's face: predictions against the reference network, geometry, ensembles, threads, estimates."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from universeg_rt import Ensemble, InputError, SupportSet
from universeg_rt.imaging.preprocess import Placement
from universeg_rt.runners.cpu import streaming as stages

from ..conftest import SMALL_GRID, SMALL_SPEC, discs, random_weights


@pytest.fixture(scope="module")
def support():
    return SupportSet.from_arrays(*discs(7))


def reference_members(support, ensemble, image, aspect="stretch"):
    """Member probabilities (K,h,w) on the grid by the reference network, from the definition: every entry as drawn."""
    torch = pytest.importorskip("torch", reason="the reference network needs torch")
    from universeg_rt.training.network.reference import UniverSeg

    network = UniverSeg(SMALL_SPEC)
    network.load_state_dict({k: torch.from_numpy(v) for k, v in random_weights(SMALL_SPEC).items()})
    entries = torch.from_numpy(support.on_grid(SMALL_GRID, aspect))
    query = torch.from_numpy(Placement.of(image.shape, SMALL_GRID, aspect).image_to_grid(image, SMALL_GRID))
    rng = np.random.default_rng(ensemble.seed)
    out = []
    for _ in range(ensemble.members):
        drawn = rng.choice(len(support), ensemble.support_size or len(support), replace=ensemble.replacement)
        chosen = entries[torch.from_numpy(drawn)][None]
        with torch.inference_mode():
            out.append(torch.sigmoid(network(query[None, None], chosen[:, :, :1], chosen[:, :, 1:]))[0, 0].numpy())
    return np.stack(out)


@pytest.mark.parametrize("ensemble", [
    Ensemble(), Ensemble(members=3, support_size=4, seed=5),
    Ensemble(members=4, support_size=16, replacement=True, seed=2), Ensemble(support_size=1),
])
@pytest.mark.parametrize("aspect", ["stretch", "pad"])
def test_a_prediction_is_the_mean_of_the_reference_over_the_members(segmenter, support, ensemble, aspect):
    image = discs(1, 45, 61, seed=9)[0][0]
    prediction = segmenter.prepare(support, ensemble, aspect=aspect).predict(image)
    members = reference_members(support, ensemble, image, aspect)
    placement = Placement.of(image.shape, SMALL_GRID, aspect)
    assert np.abs(prediction.probability - placement.back(members.mean(0))).max() < 1e-4
    assert np.abs(prediction.spread - placement.back(members.std(0))).max() < 1e-4
    assert (prediction.spread.max() > 1e-3) == (ensemble.members > 1)
    assert np.array_equal(prediction.mask, prediction.probability >= 0.5)
    for array, kind in ((prediction.mask, bool), (prediction.probability, np.float32), (prediction.spread, np.float32)):
        assert array.shape == image.shape and array.dtype == kind
    assert prediction.timing.total > prediction.timing.network > 0


def test_chunks_do_not_change_the_answer(segmenter, support, monkeypatch):
    image = discs(1, seed=3)[0][0]
    whole = segmenter.prepare(support).predict(image).probability
    for chunk in (1, 2, 3):
        monkeypatch.setattr(stages, "CHUNK_PIXELS", chunk * SMALL_GRID[0] * SMALL_GRID[1])
        assert np.abs(segmenter.prepare(support).predict(image).probability - whole).max() < 1e-5


def test_a_batch_is_its_images_one_by_one(segmenter, support):
    images = [discs(1, h, w, seed=h)[0][0] for h, w in ((40, 40), (33, 70), (128, 100))]
    task = segmenter.prepare(support, Ensemble(2, 3))
    for image, prediction in zip(images, task.predict_batch(images)):
        assert np.array_equal(prediction.probability, task.predict(image).probability)
    assert task.predict_batch([]) == []
    assert len(task.predict_batch(discs(3)[0])) == 3


def test_several_threads_get_the_answers_of_one(segmenter, support):
    tasks = [segmenter.prepare(support, Ensemble(2, 5, seed=s)) for s in range(2)]
    images = list(discs(8, seed=4)[0])
    expected = [[task.predict(image).probability for image in images] for task in tasks]
    jobs = [(t, i) for t in range(2) for i in range(8)] * 3
    with ThreadPoolExecutor(6) as pool:
        for (t, i), found in zip(jobs, pool.map(lambda job: tasks[job[0]].predict(images[job[1]]).probability, jobs)):
            assert np.array_equal(found, expected[t][i])


def test_scale_and_offset_of_an_image_do_not_matter(segmenter, support):
    image = discs(1, seed=3)[0][0]
    task = segmenter.prepare(support)
    a, b = task.predict(image).probability, task.predict(image * 37.5 - 4000.0).probability
    assert np.abs(a - b).max() < 1e-4


@pytest.mark.parametrize("image, message", [
    (np.zeros((3, 40, 40)), "expected one grey image"),
    (np.full((40, 40), np.nan), "NaN"), (np.zeros((0, 3)), "shape"),
])
def test_bad_queries_are_refused(segmenter, support, image, message):
    with pytest.raises(InputError, match=message):
        segmenter.prepare(support).predict(image)


def test_a_bad_image_in_a_batch_is_named_before_anything_runs(segmenter, support):
    good = discs(1)[0][0]
    with pytest.raises(InputError, match="image 1 holds .* NaN"):
        segmenter.prepare(support).predict_batch([good, good * np.nan])
    with pytest.raises(InputError, match=r"expected \(N,H,W\)"):
        segmenter.prepare(support).predict_batch(good)


def test_bad_preparations_are_refused(segmenter, support):
    with pytest.raises(InputError, match="make a SupportSet"):
        segmenter.prepare(discs(2))
    with pytest.raises(InputError, match="aspect"):
        segmenter.prepare(support, aspect="zoom")
    with pytest.raises(InputError, match="8, but the support set has 7 entries"):
        segmenter.prepare(support, Ensemble(support_size=8))


def test_estimates_grow_with_support_and_members(segmenter):
    small, large, members = segmenter.estimate(1), segmenter.estimate(200), segmenter.estimate(200, 5)
    assert 0 < small.seconds <= large.seconds < members.seconds
    assert 0 < small.bytes < large.bytes < members.bytes
    assert members.seconds == pytest.approx(5 * large.seconds)
    with pytest.raises(InputError, match="support_size is 0"):
        segmenter.estimate(0)


@pytest.mark.parametrize("call, message", [
    (lambda s, t: s.prepare(t.support, {"members": 3}), "ensemble is a dict; give an Ensemble"),
    (lambda s, t: s.prepare(t.support, aspect=["pad"]), "aspect is"),
    (lambda s, t: s.estimate(None), "support_size is None"),
    (lambda s, t: t.predict_batch(image for image in ()), "images is a generator; give an array"),
    (lambda s, t: t.predict_batch(7), "images is a int"),
    (lambda s, t: t.support.subset([True, False]), "index True is no integer; .* numpy.flatnonzero"),
    (lambda s, t: t.support.subset(["a"]), "index 'a' is no integer"),
    (lambda s, t: SupportSet.from_arrays(None, None), "images is a NoneType"),
    (lambda s, t: SupportSet.from_arrays(*discs(2), names=5), "names is a int"),
    (lambda s, t: SupportSet.load(5), "the path is a int"),
])
def test_values_of_a_wrong_kind_are_input_errors(segmenter, support, call, message):
    with pytest.raises(InputError, match=message):
        call(segmenter, segmenter.prepare(support))


def test_a_path_for_an_image_is_said_to_be_one(segmenter, support):
    task = segmenter.prepare(support)
    for ask in (task.predict, lambda path: task.predict_batch([path]), task.member_probabilities):
        with pytest.raises(InputError, match=r"image is a path, 'x\.png'; read the file first"):
            ask("x.png")
