"""What freezing costs and from which probability it marks: no label leaks into the price, and `auto` follows it."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from universeg_rt import Ensemble, InputError, SupportSet, freezing
from universeg_rt.frozen.record import Price
from universeg_rt.frozen.runners import open_frozen_runner
from universeg_rt.frozen_task import FrozenTask

from ..conftest import discs
from .test_freezing import COUNT, images, segmenter, support  # noqa: F401 (fixtures)


def test_no_label_of_an_entry_is_in_its_own_answers(segmenter, monkeypatch):
    """Other labels for two entries that are left out together change nothing in the masks that judge them."""
    images, labels = discs(COUNT)

    def masks(given):
        task = segmenter.prepare(SupportSet.from_arrays(images, given))
        seen = {}
        with monkeypatch.context() as patch:
            patch.setattr(freezing, "dice", lambda mask, other: seen.setdefault(len(seen), mask).sum() * 0.0)
            frozen = task.freeze(kind="static", threshold=0.3)
        assert frozen.price.entries == COUNT
        return list(seen.values())

    pair = np.random.default_rng(0).permutation(COUNT)[:2]
    changed = labels.copy()
    changed[pair] = changed[pair][:, ::-1]
    before, after = masks(labels), masks(changed)
    # Of the first two entries: both kinds, from 0.5 and from the threshold on, and one against the other.
    own = [kind * COUNT + i for kind in range(5) for i in range(2)]
    assert len(before) == 5 * COUNT
    assert all(np.array_equal(before[i], after[i]) for i in own)
    assert not all(np.array_equal(a, b) for a, b in zip(before, after)), "the others' supports did change"


def test_copies_of_an_entry_are_left_out_with_it(segmenter):
    images, labels = discs(4)
    once = segmenter.prepare(SupportSet.from_arrays(images, labels))
    twice = segmenter.prepare(SupportSet.from_arrays([*images, *images], [*labels, *labels]))
    exact = [task.freeze(kind="static").price.exact_dice for task in (once, twice)]
    assert exact[1] < 0.98 and exact[1] == pytest.approx(exact[0], abs=0.1)


def test_the_price_is_that_of_the_proxies_given(segmenter, support, images):
    task = segmenter.prepare(support)
    noise = list(np.random.default_rng(0).random((4, 40, 36)))
    prices = [task.freeze(proxies, kind="static").price for proxies in ("support", images, noise)]
    assert len({price.static_dice for price in prices}) == 3 and len({price.exact_dice for price in prices}) == 1


def test_auto_takes_static_where_it_costs_no_more_than_may_be_lost(segmenter, support):
    task = segmenter.prepare(support)
    loss = task.freeze(kind="static").price.loss
    assert loss > 1e-6, "random weights lose something"
    assert task.freeze(max_loss=1).kind == task.freeze(max_loss=loss).kind == "static"
    refused = task.freeze(max_loss=max(0.0, loss - 1e-6))
    assert refused.kind == "exact" and f"{loss:.4f}" in refused.reason and refused.price.loss == loss


def test_a_gain_is_said_to_be_one(segmenter, support, monkeypatch):
    price = Price(8, 0.9, 0.912, 0.95, exact_at_half=0.9, static_at_half=0.912)
    monkeypatch.setattr(freezing, "_price", lambda *_: price)
    assert segmenter.prepare(support).freeze().reason == "static gains 0.0120 Dice"


def test_what_is_chosen_is_where_the_entries_left_out_have_the_best_dice(segmenter, support, images, tmp_path):
    """Random weights call a disc improbable everywhere: another threshold gains, and is said with what 0.5 gives."""
    task = segmenter.prepare(support)
    chosen, plain = task.freeze(kind="static", threshold="choose"), task.freeze(kind="static")
    price = chosen.price
    assert chosen.threshold == chosen.record.threshold == price.static_threshold != 0.5
    assert price.static_dice > price.static_at_half
    assert plain.threshold == 0.5 and plain.price.static_dice == plain.price.static_at_half == price.static_at_half
    said = f"static (marked from {chosen.threshold:g} on; from 0.5 on {price.static_at_half:.3f})"
    assert said in str(price) and "0.5 on" not in str(plain.price)
    chosen.save(tmp_path / "task.onnx")
    for opened in (FrozenTask.open(tmp_path / "task.onnx"), pickle.loads(pickle.dumps(chosen))):
        found = opened.predict(images[0])
        assert found.threshold == chosen.threshold
        np.testing.assert_allclose(found.probability, plain.predict(images[0]).probability, atol=1e-6)
        assert np.array_equal(found.mask, found.probability >= chosen.threshold)


def test_what_gains_too_little_is_not_chosen(segmenter, support, monkeypatch):
    monkeypatch.setattr("universeg_rt.answers.thresholds.LEAST_GAIN", 0.9)
    frozen = segmenter.prepare(support).freeze(kind="static", threshold="choose")
    assert frozen.threshold == 0.5 and frozen.price.static_dice == frozen.price.static_at_half


def test_exact_leaves_nothing_out_to_choose_by(segmenter, support):
    with pytest.raises(InputError, match=r"leaves no entries out to choose by; take task.refine\('threshold'\)"):
        segmenter.prepare(support).freeze(kind="exact", threshold="choose")


@pytest.mark.parametrize("entries, options, kind", [
    (2, {}, "exact"), (COUNT, {"max_loss": 0}, "exact"), (COUNT, {"kind": "exact"}, "exact"),
    (COUNT, {"max_loss": 1}, "static")])
def test_a_given_threshold_is_kept_whatever_is_taken(segmenter, images, entries, options, kind):
    task = segmenter.prepare(SupportSet.from_arrays(*discs(entries)))
    frozen = task.freeze(threshold=0.2, **options)
    found = frozen.predict(images[0])
    assert (frozen.kind, frozen.threshold, found.threshold) == (kind, 0.2, 0.2)
    if frozen.price.loss is not None:
        assert frozen.price.exact_threshold == frozen.price.static_threshold == 0.2


def test_auto_compares_both_kinds_where_each_marks_best(segmenter, support):
    price = segmenter.prepare(support).freeze(kind="static", threshold="choose").price
    frozen = segmenter.prepare(support).freeze(max_loss=0, threshold="choose")
    wanted = price.static_threshold if price.loss <= 0 else price.exact_threshold
    assert frozen.threshold == wanted and frozen.price == price
    assert price.exact_threshold != 0.5, "random weights are no better in the exact network"


def made_up(entries):
    """Entries left out, of (label, exact, static) each a probability of all of a 4x4 image's left half."""
    out, found = [], []
    for label, exact, static in entries:
        half = np.array([1, 1, 0, 0], np.float32)[None].repeat(4, 0)
        maps = [half * np.float32(p) for p in (label, exact, static)]
        out.append(freezing._LeftOut((), maps[0], maps[0] >= 0.5, maps[1], [], [], False))
        found.append(maps[2])
    return out, found


@pytest.mark.parametrize("entries, static, false, loss, threshold", [
    ([(1, 0.9, 0.9)] * 4 + [(0, 0, 0)] * 4, 1.0, (0, 0), 0.0, 0.5),
    ([(1, 0.9, 0.9)] * 4 + [(0, 0, 0.95), (0, 0, 0)] * 2, 1.0, (0, 2), 0.5, 0.5),  # static alone marks
    ([(1, 0.9, 0.9)] * 4 + [(0, 0.9, 0.9)] * 4, 1.0, (4, 4), 0.0, 0.5),
    ([(1, 0.9, 0.3)] * 8, 1.0, (0, 0), 0.0, 0.3),
    ([(1, 0.9, 0.6)] * 5 + [(0, 0, 0.85)] * 30, 1.0, (0, 30), 1.0, 0.5),  # no target is given up for empty masks
    ([(1, 0.9, 0.3)] * 5, 1.0, (0, 0), 0.0, 0.3), ([(1, 0.9, 0.3)] * 4, 0.0, (0, 0), 1.0, 0.5),  # too few to say so
])
def test_entries_without_the_target_count_for_themselves(monkeypatch, entries, static, false, loss, threshold):
    without, found = made_up(entries)
    monkeypatch.setattr(freezing, "_static_answers", lambda *_: found)
    price = freezing._price(None, without, False, None, "")
    shown = sum(label for label, _, _ in entries)
    assert (price.entries, price.absent, price.static_threshold) == (shown, len(entries) - shown, threshold)
    assert (price.exact_dice, price.static_dice, price.loss) == (1.0, static, loss)
    assert (price.exact_false, price.static_false) == false
    assert ("without the target" in str(price)) == bool(price.absent)
    assert price.loss_is_of == ("of the entries without the target" if false[1] > false[0] else "Dice")


def test_without_the_target_in_any_entry_nothing_is_chosen(monkeypatch):
    without, found = made_up([(0, 0, 0.85)] * 8)
    monkeypatch.setattr(freezing, "_static_answers", lambda *_: found)
    price = freezing._price(None, without, False, None, "")
    assert price.loss is None and (price.exact_threshold, price.static_threshold) == (0.5, 0.5)
    assert "no entry that could be judged shows the target" in str(price)


def test_a_threshold_and_its_price_are_not_chosen_on_the_same_entries(monkeypatch):
    """Seven entries show the target from 0.3 down, one from 0.15: what is said of each is by what the others choose."""
    without, found = made_up([(1, 0.9, 0.3)] * 7 + [(1, 0.9, 0.15)])
    monkeypatch.setattr(freezing, "_static_answers", lambda *_: found)
    price = freezing._price(None, without, False, None, "")
    assert price.static_threshold == 0.1 and price.static_dice == pytest.approx(7 / 8), "the last alone wants 0.1"
    assert price.static_at_half == 0


@pytest.mark.parametrize("ensemble, taken", [
    (Ensemble(2, 2), False), (Ensemble(1, 4), False), (Ensemble(2, 5), True), (Ensemble(), True)], ids=str)
def test_auto_asks_for_sets_that_stay_much_the_same(segmenter, support, ensemble, taken):
    """A pair left out of sets of two leaves others, of which the price would be."""
    frozen = segmenter.prepare(support, ensemble).freeze(max_loss=1)
    assert (frozen.kind == "static") == taken and ("says little" in frozen.reason) != taken
    assert frozen.price.loss is not None


def test_near_copies_in_the_support_are_said_with_the_price(segmenter):
    images, labels = discs(COUNT)
    assert segmenter.prepare(SupportSet.from_arrays(images, labels)).freeze(kind="static").price.note == ""
    noise = np.random.default_rng(0).integers(0, 2, images.shape, np.uint8)
    twice = SupportSet.from_arrays(np.concatenate([images, images // 2 + noise]), np.concatenate([labels, labels]))
    price = segmenter.prepare(twice).freeze(kind="static").price
    assert "look nearly like others (correlation above 0.98), which flatters exact" in price.note
    assert price.note in str(price)


def test_the_price_builds_one_network(segmenter, support, monkeypatch):
    """The same price as of a network for each entry."""
    opened, task = [], segmenter.prepare(support)
    monkeypatch.setattr(freezing, "open_frozen_runner", lambda *a: opened.append(a) or open_frozen_runner(*a))
    price = task.freeze(kind="static").price
    assert len(opened) == 1
    monkeypatch.setattr("universeg_rt.frozen.native.Native.with_constants", lambda self, maps: None)
    assert task.freeze(kind="static").price == price and len(opened) == 1 + COUNT


def test_without_a_price_auto_takes_exact_and_says_why(segmenter, support, monkeypatch):
    monkeypatch.setattr(freezing, "_price", lambda *_: Price(note="nothing is marked"))
    frozen = segmenter.prepare(support).freeze()
    assert frozen.kind == "exact" and frozen.reason == "nothing is marked"
