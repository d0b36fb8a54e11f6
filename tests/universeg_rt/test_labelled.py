"""Several labels: what one task a label gives, with the work on images done once, and one map in the end."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from PIL import Image

from universeg_rt import Ensemble, InputError, LabelledSupport, Percentiles, RunnerError, SupportSet
from universeg_rt.labelled_predictor import label_map
from universeg_rt.prediction import Prediction, Timing

from ..conftest import discs

IMAGES, DISCS = discs(6)
MAPS = np.where(DISCS > 0, 7, 0).astype(np.uint8)
MAPS[:, :9, :9] = 3
MAPS[0] = 0
ENSEMBLE = Ensemble(2, 4)
QUERIES = [discs(1, 45, 61, seed=9)[0][0], IMAGES[0] * 0, discs(1, 33, 30, seed=4)[0][0]]


@pytest.fixture(scope="module")
def support():
    return LabelledSupport.from_arrays(IMAGES, MAPS, label_names={3: "corner", 9: "absent"})


@pytest.mark.parametrize("aspect, normalise", [("stretch", "minmax"), ("pad", Percentiles(1, 99))])
def test_independent_labels_are_what_a_task_for_each_gives(segmenter, support, aspect, normalise):
    task = segmenter.prepare_labels(support, ENSEMBLE, aspect=aspect, normalise=normalise, overlap="independent")
    found = task.predict_batch(QUERIES, threshold={"corner": 0.4}, logits=True)
    for name, value, threshold in (("corner", 3, 0.4), ("label 7", 7, 0.5)):
        alone = segmenter.prepare(SupportSet.from_arrays(IMAGES, MAPS == value), ENSEMBLE, aspect=aspect,
                                  normalise=normalise)
        for each, wanted in zip(found, alone.predict_batch(QUERIES, threshold=threshold, logits=True)):
            got = each.predictions[name]
            for part in ("mask", "probability", "spread", "logits"):
                assert np.array_equal(getattr(got, part), getattr(wanted, part))
            assert (got.notes, got.threshold, got.emptied) == (wanted.notes, threshold, wanted.emptied)
            assert got.confidence == wanted.confidence
            assert each.masks[name] is got.mask
    assert not found[1].labels.any() and found[1].predictions["corner"].emptied == "blank"


def test_argmax_gives_a_pixel_to_the_most_probable_label(segmenter, support):
    free = segmenter.prepare_labels(support, ENSEMBLE, overlap="independent").predict(QUERIES[0], threshold=0.3)
    found = segmenter.prepare_labels(support, ENSEMBLE).predict(QUERIES[0], threshold=0.3)
    p = np.stack([free.predictions[name].probability for name in ("corner", "label 7")])
    wanted = np.where(p.max(0) >= 0.3, np.array([3, 7])[p.argmax(0)], 0)
    assert np.array_equal(found.labels, wanted) and found.labels.dtype == np.uint8
    assert found.labels.any() and np.array_equal(found.labels, free.labels)
    for name, value in (("corner", 3), ("label 7", 7)):
        assert np.array_equal(found.masks[name], found.labels == value)
    assert found.timing.network > found.predictions["corner"].timing.network


def test_a_label_that_another_hides_is_noted():
    def of(probability):
        values = np.full((2, 2), probability, np.float32)
        return Prediction(values >= 0.5, values, values * 0, Timing(0, 0, 0))

    assert (label_map({"a": of(0.6), "b": of(0.9)}, {"a": 1, "b": 300}) == 300).all()
    assert (label_map({"a": of(0.7), "b": of(0.7)}, {"a": 5, "b": 3}) == 5).all()
    assert not label_map({"a": of(0.4), "b": of(0.1)}, {"a": 5, "b": 3}).any()
    assert label_map({"a": of(0.9)}, {"a": 300}).dtype == np.uint16


def test_images_are_read_once_for_all_labels(segmenter, support, monkeypatch):
    from universeg_rt import predictor
    from universeg_rt import support as supports

    seen = []
    for module in (predictor, supports):
        original = module.normalised
        monkeypatch.setattr(module, "normalised", lambda *a, original=original: seen.append(a[2]) or original(*a))
    with segmenter.prepare_labels(support) as task:
        task.predict_batch(QUERIES)
    assert len(seen) == len(support) + len(QUERIES)


def test_labels_are_chosen_by_name_or_value_in_that_order(segmenter, support):
    task = segmenter.prepare_labels(support, labels=["label 7", 3])
    assert list(task.predict(QUERIES[0]).predictions) == ["label 7", "corner"]
    assert task.values == {"label 7": 7, "corner": 3} and support.values == (3, 7)
    assert support.value_of("7") == 7
    for labels, message in (([9], "no label 9; it has 3 .corner., 7 .label 7."), ([3, "corner"], "each label once"),
                            ([], "at least one"), ("corner", "give a list"), ([True], "no label True")):
        with pytest.raises(InputError, match=message):
            segmenter.prepare_labels(support, labels=labels)
    with pytest.raises(InputError, match="overlap is 'both'; accepted: argmax, independent"):
        segmenter.prepare_labels(support, overlap="both")
    with pytest.raises(InputError, match="make a LabelledSupport"):
        segmenter.prepare_labels(SupportSet.from_arrays(IMAGES, DISCS))
    with pytest.raises(InputError, match="threshold names the label 'liver'; the task has"):
        task.predict(QUERIES[0], threshold={"liver": 0.4})
    with pytest.raises(InputError, match="threshold is 2"):
        task.predict(QUERIES[0], threshold={"corner": 2})


def test_tasks_close_pickle_and_say_what_they_are(segmenter, support):
    task = segmenter.prepare_labels(support, ENSEMBLE, labels=[7, 3], aspect="pad", overlap="independent")
    again = pickle.loads(pickle.dumps(task))
    assert np.array_equal(again.predict(QUERIES[0]).labels, task.predict(QUERIES[0]).labels)
    assert repr(again) == repr(task) and "label 7, corner, independent" in repr(task)
    assert again.support.sha256 == support.sha256 and not again.support.labels[0].flags.writeable
    again.close()
    with pytest.raises(RunnerError, match="closed"):
        again.predict(QUERIES[0])
    with pytest.raises(RunnerError, match="closed"):
        pickle.dumps(again)


def test_notes_name_the_label_they_are_about(segmenter):
    maps = MAPS.copy()
    maps[1:5][maps[1:5] == 3] = 0
    task = segmenter.prepare_labels(LabelledSupport.from_arrays(IMAGES, maps))
    assert any(note.startswith("label 3: 5 of 6 support labels are empty") for note in task.notes)


def test_supports_come_from_folders_and_archives(tmp_path):
    for i, (image, labels) in enumerate(zip(IMAGES, MAPS)):
        for part, array in (("images", image), ("labels", labels)):
            (tmp_path / part).mkdir(exist_ok=True)
            Image.fromarray(array).save(tmp_path / part / f"{i}.png")
    wanted = LabelledSupport.from_arrays(IMAGES, MAPS)
    assert LabelledSupport.load(tmp_path).sha256 == wanted.sha256
    np.savez(tmp_path / "a.npz", images=IMAGES, labels=MAPS)
    found = LabelledSupport.load(tmp_path / "a.npz", label_names={7: "disc"})
    assert found.sha256 == wanted.sha256 and found.label_names == {3: "label 3", 7: "disc"}
    assert repr(found) == "LabelledSupport(6 entries, {3: 'label 3', 7: 'disc'})"
    np.savez(tmp_path / "b.npz", images=IMAGES)
    with pytest.raises(InputError, match="holds images; expected the arrays images and labels"):
        LabelledSupport.load(tmp_path / "b.npz")


@pytest.mark.parametrize("labels, message", [
    (MAPS.astype(float) + 0.5, "holds 0.5; give integers from 0 to 65535"),
    (MAPS.astype(int) - 1, "holds -1; give integers"), (MAPS.astype(int) * 10**5, "holds [37]00000; give integers"),
    (MAPS * 0, "the labels are empty in every entry"), (MAPS[:, 1:], "they must be the same"),
    (np.where(MAPS > 0, np.nan, 0), "holds nan"), (MAPS.astype(complex), "expected bool or the numbers"),
])
def test_label_maps_that_are_refused(labels, message):
    with pytest.raises(InputError, match=message):
        LabelledSupport.from_arrays(IMAGES, labels)


def test_label_maps_of_other_types_and_names_given_twice():
    assert LabelledSupport.from_arrays(IMAGES, MAPS.astype(float)).sha256 == LabelledSupport.from_arrays(
        IMAGES, MAPS).sha256
    assert LabelledSupport.from_arrays(IMAGES, MAPS > 0).values == (1,)
    with pytest.raises(InputError, match="two labels have the same name"):
        LabelledSupport.from_arrays(IMAGES, MAPS, label_names={3: "a", 7: "a"})
