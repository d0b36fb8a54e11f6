"""Pruning drops what hurts, says why, and keeps enough."""

from __future__ import annotations

import numpy as np
import pytest

from universeg_rt import InputError, SupportSet
from universeg_rt.supports.prune import prune


@pytest.fixture(scope="module")
def spoilt(faults):
    """Two entries whose labels mark the ground in place of the target."""
    labels = [np.array(label) for label in faults.clean.labels]
    for i in (2, 6):
        labels[i] = ~labels[i]
    return SupportSet.from_arrays(faults.clean.images, labels, faults.clean.names)


@pytest.fixture
def scored(monkeypatch):
    """The network's place is taken by a rule: a set gives a Dice of 0.9, less 0.2 for each spoilt entry in it; an entry
    that is spoilt itself gets 0.1. What was asked: (query, set)."""
    asked = []

    def score(runner, entries, query, chosen, done):
        asked.append((query, sorted(map(int, chosen))))
        done(1)
        return 0.1 if query in (2, 6) else 0.9 - 0.2 * len({2, 6} & set(map(int, chosen)))

    monkeypatch.setattr("universeg_rt.supports.prune._score", score)
    return asked


def test_by_a_rule_that_is_known_exactly_the_spoilt_ones_go(spoilt, shipped, scored):
    runs = []
    found = prune(spoilt, shipped, least=4, done=runs.append)
    assert [entry.name for entry in found.dropped] == ["good 2", "good 6"] and sum(runs) == len(scored)
    assert found.support.names == tuple(name for name in spoilt.names if name not in ("good 2", "good 6"))
    for entry in found.dropped:
        assert entry.gain == pytest.approx(0.2) and entry.error == pytest.approx(0, abs=1e-9) and "dropped" in entry.why
    assert all(query not in chosen for query, chosen in scored), "no entry is in the set that it is judged by"
    assert all(len(chosen) <= 8 for _, chosen in scored)


def test_of_several_the_worst_go_first_and_never_below_the_least(spoilt, shipped, scored):
    found = prune(spoilt, shipped, least=len(spoilt) - 1)
    assert len(found.support) == len(spoilt) - 1 and len(found.dropped) == 1
    assert sum(entry.gain is not None and entry.gain > 0.1 for entry in found.entries) == 2


def test_entries_without_the_target_stay(spoilt, shipped, scored):
    labels = [label if i != 2 else np.zeros_like(label) for i, label in enumerate(spoilt.labels)]
    found = prune(SupportSet.from_arrays(spoilt.images, labels, spoilt.names), shipped, least=4)
    assert [entry.name for entry in found.dropped] == ["good 6"] and found.entries[2].gain is None


def test_the_network_agrees(spoilt, shipped, monkeypatch):
    monkeypatch.setattr("universeg_rt.supports.prune.JUDGES", 4)
    monkeypatch.setattr("universeg_rt.supports.prune.CANDIDATES", 7)
    found = prune(spoilt, shipped, least=4)
    asked = [entry for entry in found.entries if entry.gain is not None]
    assert {entry.name for entry in asked} == {"good 2", "good 6"} and all(entry.dice < 0.2 for entry in asked)
    assert all(entry.dice > 0.6 for entry in found.entries if entry not in asked)
    assert all(entry.gain > 0 for entry in asked) and set(found.dropped) <= set(asked)


@pytest.mark.parametrize("least, message", [
    (14, "14 entries and 14 are to be kept"), (0, "give an integer from 1"), (2.0, "give an integer from 1"),
])
def test_too_few(faults, shipped, least, message):
    with pytest.raises(InputError, match=message):
        prune(faults.clean, shipped, least=least)
