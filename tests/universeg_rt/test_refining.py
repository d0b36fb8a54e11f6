"""A closer look: windows, thresholds and their choice, on a network whose answers are drawn by hand."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from universeg_rt import Ensemble, InputError, LabelledSupport, RunnerError, SupportSet, refining
from universeg_rt.answers.thresholds import THRESHOLDS
from universeg_rt.imaging.windows import check_region, cut, scale_of, window_around
from universeg_rt.refining import Left, around_labels, decide

from ..conftest import discs

IMAGES, LABELS = discs(6, 60, 60)
QUERY = discs(1, 60, 60, seed=9)[0][0]
REGION = (10, 12, 40, 50)


@pytest.fixture(scope="module")
def support():
    return SupportSet.from_arrays(IMAGES, LABELS)


def test_support_windows_follow_each_label(support):
    labels = np.array(LABELS) > 0
    labels[0] = False
    images = IMAGES.copy()
    images[1] = np.where(np.arange(60) < 2, 5, 9)  # nothing but one value in the window
    labels[1] = False
    labels[1, 20:30, 40:50] = True
    found = around_labels(SupportSet.from_arrays(images, labels))
    for i in (0, 1):
        assert np.array_equal(found.images[i], images[i]) and np.array_equal(found.labels[i], labels[i])
    for i in range(2, 6):
        box = check_region(labels[i], (60, 60))
        assert np.array_equal(found.images[i], cut(images[i], box)) and found.labels[i].sum() == labels[i].sum()


def test_a_region_is_answered_by_the_windowed_support_and_put_back(segmenter, support):
    refined = segmenter.prepare(support, Ensemble(2, 4)).refine("off")
    wanted = segmenter.prepare(around_labels(support), Ensemble(2, 4)).predict(cut(QUERY, REGION), logits=True)
    (found,) = refined.predict_in([QUERY], [REGION], logits=True)
    for part in ("mask", "probability", "spread"):
        assert np.array_equal(cut(getattr(found, part), REGION), getattr(wanted, part))
        assert np.count_nonzero(getattr(found, part)) == np.count_nonzero(getattr(wanted, part))
        assert getattr(found, part).shape == QUERY.shape
    assert np.array_equal(found.logits, wanted.logits)


def test_regions_may_be_masks_or_missing(segmenter, support):
    task = segmenter.prepare(support)
    refined = task.refine("off")
    mask = np.zeros(QUERY.shape, bool)
    mask[20:30, 20:35] = True
    found = refined.predict_in([QUERY] * 3, [mask, None, mask & False])
    (wanted,) = refined.predict_in([QUERY], [check_region(mask, QUERY.shape)])
    assert np.array_equal(found[0].probability, wanted.probability)
    whole = task.predict(QUERY)
    assert np.array_equal(found[1].probability, whole.probability)
    assert np.array_equal(found[2].probability, whole.probability)
    outside = [None, (0, 0, 99, 9), None]
    for regions, message in (([None], "3 images but 1 regions"), (outside, "region 1 is .0, 0, 99")):
        with pytest.raises(InputError, match=message):
            refined.predict_in([QUERY] * 3, regions)


def test_slices_in_order_look_around_the_mask_before(segmenter, support):
    refined = segmenter.prepare(support).refine("off")
    slices = [QUERY, IMAGES[0], QUERY * 0, IMAGES[1]]
    found = refined.predict_in_order(slices, REGION)
    region = REGION
    for image, each in zip(slices, found):
        (wanted,) = refined.predict_in([image], [region])
        assert np.array_equal(each.probability, wanted.probability)
        region = each.mask
    assert found[2].emptied == "blank"


def test_a_second_pass_is_a_window_around_the_first_mask(segmenter, support, monkeypatch):
    task = segmenter.prepare(support)
    refined = task.refine("window")
    assert refined.choice == refining.Choice("window", 0.5, {}, 0, "asked for") and refined.choice.gain == 0
    blob = np.zeros(QUERY.shape, np.float32)
    blob[25:35, 10:20] = 0.4  # below the threshold: what is likely is looked at
    first = refining.replace(task.predict(QUERY), probability=blob, mask=blob >= 0.5)
    whole = refining.replace(first, probability=blob * 0 + 0.9, mask=blob >= 0)
    placed = refined.place([QUERY, QUERY])
    found = refined.look_again(placed, [first, whole], 0.5)
    box = (25, 10, 35, 20)
    window = window_around(box, QUERY.shape, scale_of(box, QUERY.shape))
    (wanted,) = refined.predict_in([QUERY], [window])
    assert np.array_equal(found[0].probability, wanted.probability)
    assert found[0].timing.network > first.timing.network and found[1] is whole, "of both passes together"
    assert refined.predict(QUERY * 0).emptied == "blank"


@pytest.mark.parametrize("off, window, thresholds, how, kind, threshold", [
    ([0.5] * 4, [0.8] * 4, {0.3: [0.6] * 4}, "auto", "window", 0.5),
    ([0.5] * 4, [0.5] * 4, {0.3: [0.6] * 4}, "auto", "threshold", 0.3),
    ([0.5] * 4, [0.52] * 4, {0.3: [0.51] * 4}, "auto", "off", 0.5),
    ([0.5] * 4, [1.0, 0.1, 1.0, 0.1], {0.3: [0.2] * 4}, "auto", "off", 0.5),  # gains within their error
    ([0.5] * 4, [0.9] * 4, {0.7: [0.51] * 4}, "threshold", "threshold", 0.7),
])
def test_choices_follow_dice_on_what_was_left_out(off, window, thresholds, how, kind, threshold):
    rows = np.zeros((4, len(THRESHOLDS)))
    for value, scores in {0.5: off, **thresholds}.items():
        rows[:, THRESHOLDS.index(value)] = scores
    choice = decide(Left(np.array(off), np.array(window), rows), how)
    assert (choice.kind, choice.threshold, choice.entries) == (kind, threshold, 4)
    assert choice.dice["window"] == pytest.approx(np.mean(window))
    assert choice.gain == pytest.approx(choice.dice[kind] - np.mean(off))
    assert choice.reason == "asked for" or kind in choice.reason or "95 %" in choice.reason


def test_entries_left_out_are_answered_without_themselves(segmenter, support):
    copied = SupportSet.from_arrays([*IMAGES, IMAGES[2]], [*LABELS, LABELS[2]])
    seen = []

    class Noted:
        def prepare(self, rest, ensemble=None, **options):
            seen.append(rest)
            return segmenter.prepare(rest, ensemble, **options)

    task = segmenter.prepare(copied, Ensemble(support_size=7))
    left = refining.measure(task, Noted(), copied, Ensemble(support_size=7), 0)
    assert len(left.off) == len(left.window) == len(left.thresholds) == 6, "a copy is no further entry"
    assert np.array_equal(left.off, left.thresholds[:, THRESHOLDS.index(0.5)])
    assert all(len(rest) in (4, 5) for rest in seen)
    assert all(("2" in rest.names) == ("6" in rest.names) for rest in seen)


def test_refined_tasks_choose_pickle_and_close(segmenter, support):
    task = segmenter.prepare(support, Ensemble(support_size=6))
    refined = task.refine()
    assert refined.choice.entries == 6 and {"off", "window", "threshold"} == set(refined.choice.dice)
    threshold = task.refine("threshold")
    again = pickle.loads(pickle.dumps(threshold))
    assert again.choice == threshold.choice and repr(again) == repr(threshold)
    assert again.predict(QUERY).threshold == threshold.choice.threshold
    assert again.predict(QUERY, threshold=0.25).threshold == 0.25
    with pytest.raises(InputError, match="how is 'both'; accepted: off, window, threshold, auto"):
        task.refine("both")
    with pytest.raises(InputError, match="has 2 different images, and choosing leaves some out: give at least 3"):
        segmenter.prepare(SupportSet.from_arrays(IMAGES[:2], LABELS[:2])).refine()
    refined.close()
    with pytest.raises(RunnerError, match="closed"):
        refined.predict(QUERY)


def test_labels_are_refined_each_for_itself(segmenter):
    maps = np.where(LABELS > 0, 2, 0)
    maps[:, :9, :9] = 1
    task = segmenter.prepare_labels(LabelledSupport.from_arrays(IMAGES, maps), overlap="independent")
    refined = task.refine("window")
    found = pickle.loads(pickle.dumps(refined)).predict(QUERY)
    for name, one in task.tasks.items():
        assert np.array_equal(found.predictions[name].probability, one.refine("window").predict(QUERY).probability)
    assert "refined" in repr(refined) and refined.refined["label 1"].choice.kind == "window"


def test_a_slice_of_noise_is_not_looked_into(segmenter, support):
    """And a window that shows nothing but noise is of a slice that shows more."""
    refined = segmenter.prepare(support).refine("off")
    air = np.hypot(*np.random.default_rng(0).normal(0, 2, (2, *QUERY.shape)))
    half = air.copy()
    half[:, half.shape[1] // 2 :] += 200
    box = (0, 0, QUERY.shape[0], QUERY.shape[1] // 2)
    first, second = refined.predict_in([air, half], [box, box], volume_range=(0, 200))
    assert first.emptied == "noise" and not first.mask.any() and second.emptied == ""
    assert refined.predict_in([air], [box])[0].emptied == "", "without a volume it is an image as others"
