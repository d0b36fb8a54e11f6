"""The static way: a frozen task a member, whichever entries it drew."""

from __future__ import annotations

import numpy as np
import pytest

from universeg_rt import Ensemble, Segmenter, SupportSet, proxies
from universeg_rt.training.evaluation.static import AutoSegmenter, StaticSegmenter

from ...conftest import discs, native_part


@pytest.fixture(scope="module")
def static(small_bundle):
    native_part()
    return StaticSegmenter.open(small_bundle, runner="native", threads=1)


def test_members_are_the_frozen_tasks_of_what_they_drew(static, small_bundle):
    images, labels = discs(5)
    support, query = SupportSet.from_arrays(images, labels), discs(1, seed=3)[0][0]
    ensemble = Ensemble(2, 4, replacement=True, seed=2)
    found = static.prepare(support, ensemble).member_probabilities(query)
    exact = Segmenter.open(small_bundle, runner="native", threads=1)
    drawn = np.random.default_rng(2)
    for member in found:
        entries = sorted(drawn.choice(5, 4, replace=True))
        assert len(set(entries)) > 2
        frozen = exact.prepare(support.subset(entries)).freeze(kind="static")
        np.testing.assert_array_equal(frozen.member_probabilities(query)[0], member)


def test_an_entry_alone_is_its_own_proxy(static, small_bundle, monkeypatch):
    monkeypatch.setattr(proxies, "SMOOTH", 0)
    images, labels = discs(1)
    support = SupportSet.from_arrays(images, labels)
    exact = Segmenter.open(small_bundle, runner="native", threads=1).prepare(support)
    found = static.prepare(support).member_probabilities(images[0])
    assert np.abs(found - exact.member_probabilities(images[0])).max() < 2e-3, "but for half precision"


def test_auto_is_what_freezing_takes(static, small_bundle):
    """Static where the price allows, and the exact answer where too few entries have one."""
    images, labels = discs(5)
    auto = AutoSegmenter.open(small_bundle, runner="native", threads=1)
    exact = Segmenter.open(small_bundle, runner="native", threads=1)
    kinds = []
    for count in (2, 5):
        support = SupportSet.from_arrays(images[:count], labels[:count])
        members = auto.prepare(support)
        wanted = exact.prepare(support).freeze()
        np.testing.assert_array_equal(members.member_probabilities(images[4]), wanted.member_probabilities(images[4]))
        kinds.append(members.frozen[0].kind)
    assert kinds == ["exact", "static"]
