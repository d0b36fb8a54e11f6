"""Every kind of fault that is planted is found and named, and a clean support raises no suspicion."""

from __future__ import annotations

import numpy as np
import pytest

from universeg_rt import SupportSet
from universeg_rt.supports.inspect import TURNS, against, inspect, other_modality
from universeg_rt.supports.sheet import support_sheet

from ...conftest import material


@pytest.fixture(scope="module")
def found(faults, shipped):
    return inspect(faults.support, shipped)


def kinds(found):
    return {entry.name: {each.kind for each in entry.suspicions} for entry in found.entries if entry.suspicions}


def test_planted_faults_are_found(found):
    seen = kinds(found)
    for kind in ("inverted", "transposed", "mirrored", "misaligned", "empty", "other modality"):
        assert kind in seen.pop(kind), kind
    assert "labels disagree" in seen.pop("copy of good 0") and "labels disagree" in seen.pop("good 0")
    assert not seen, "the others are as they should be"
    assert found.duplicates == (("good 0", "copy of good 0"),)


def test_a_clean_support_raises_no_suspicion(faults, shipped):
    clean = inspect(faults.clean, shipped)
    assert not kinds(clean) and not clean.duplicates
    assert min(entry.dice for entry in clean.entries) > 0.5


def test_figures_are_those_of_the_entries(found, faults):
    for entry, name, image, label in zip(found.entries, faults.support.names, faults.support.images,
                                         faults.support.labels, strict=True):
        assert (entry.name, entry.size) == (name, image.shape) and entry.area == label.mean()
        assert (entry.low, entry.high) == (image.min(), image.max())


def test_without_the_network_what_needs_none_is_found(faults):
    found = inspect(faults.support, None)
    seen = kinds(found)
    assert seen["empty"] == {"empty"} and seen["other modality"] == {"other modality"}
    assert found.duplicates and all(entry.dice is None for entry in found.entries)


def test_few_entries_are_not_judged_by_the_others(faults, shipped):
    found = inspect(faults.clean.subset([0, 1, 2]), shipped)
    assert not kinds(found) and all(entry.dice is None for entry in found.entries)


def test_copies_are_no_judges_of_each_other(faults, shipped):
    images, labels = [faults.clean.images[0]] * 6, [faults.clean.labels[0]] * 6
    found = inspect(SupportSet.from_arrays(images, labels), shipped)
    assert all(entry.dice is None for entry in found.entries) and len(found.duplicates[0]) == 6


def test_each_turn_is_named_where_the_others_are_certain(faults):
    label = faults.clean.labels[4]
    areas = np.array([each.mean() for each in faults.clean.labels])
    certain = label.astype(np.float32)
    assert not against(label, certain, areas)
    for kind, turn in TURNS.items():
        assert [each.kind for each in against(turn(label), certain, areas)] == [kind]
    (moved,) = against(np.roll(label, (-9, 20), (0, 1)), certain, areas)
    assert moved.kind == "misaligned" and "moved +9 down and -20 right" in moved.why
    assert [each.kind for each in against(~label, certain, areas)] == ["inverted"]
    assert not against(label, np.full(label.shape, 0.5, np.float32), areas), "who knows nothing accuses nobody"


def test_the_sheet_frames_what_is_suspicious(found, faults):
    sheet = support_sheet(faults.support, found)
    red = (sheet == (255, 80, 80)).all(axis=2)
    assert sheet.dtype == np.uint8 and sheet.ndim == 3
    clean = inspect(faults.clean, None)
    assert red.sum() > 10 * (support_sheet(faults.clean, clean) == (255, 80, 80)).all(axis=2).sum()


@pytest.mark.slow
def test_faults_planted_into_a_real_task(shipped):
    """Kidneys in MRI, of the data sets that thresholds were chosen on."""
    data = np.load(material("data", "ukrin_kidney.npz"))
    order = np.random.default_rng(0).permutation(len(data["images"]))[:14]
    images, labels = data["images"][order], data["labels"][order].astype(bool)
    labels[1], labels[3], labels[6] = ~labels[1], labels[3].T, False
    seen = kinds(inspect(SupportSet.from_arrays(images, labels), shipped))
    assert seen.pop("1") == {"inverted"} and seen.pop("3") == {"transposed"} and seen.pop("6") == {"empty"}
    assert len(seen) <= 1


def test_another_modality_needs_enough_entries_to_tell():
    images = np.random.default_rng(0).random((5, 32, 32)).astype(np.float32)
    assert other_modality(images) == {}
