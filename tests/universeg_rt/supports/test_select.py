"""Selecting what is like a query, and covering several."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from universeg_rt import InputError, SupportSet
from universeg_rt.supports.select import cover, select

from ...conftest import discs


@pytest.fixture(scope="module")
def support():
    return SupportSet.from_arrays(*discs(10))


def test_a_query_finds_itself_first(support):
    for i in (0, 4, 9):
        found = select(support, [support.images[i]], 1)
        assert found.support.names == (str(i),) and found.similarity[0] == pytest.approx(1, abs=1e-5)


def test_of_one_query_the_nearest_are_chosen(support):
    order = [select(support, [support.images[3]], n).support.names for n in range(1, 11)]
    assert all(set(few) < set(more) for few, more in zip(order, order[1:]))
    likeness = dict(zip(order[-1], select(support, [support.images[3]], 10).similarity))
    for n, names in enumerate(order[:-1], 1):
        assert sorted(names) == sorted(sorted(likeness, key=lambda name: -likeness[name])[:n])


def test_of_several_each_has_one_that_is_like_it(support):
    found = select(support, [support.images[i] for i in (1, 5, 8)], 3)
    assert found.support.names == ("1", "5", "8")


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 5), st.integers(1, 12), st.integers(1, 15), st.integers(0, 99))
def test_covering_takes_different_entries_and_no_more_than_there_are(queries, entries, count, seed):
    likeness = np.random.default_rng(seed).uniform(-1, 1, (queries, entries)).astype(np.float32)
    chosen = cover(likeness, count)
    assert len(chosen) == len(set(chosen)) == min(count, entries)
    assert chosen[0] == int(likeness.sum(axis=0).argmax()) or count == 0
    assert cover(likeness, count, [entries - 1])[0] == entries - 1


@pytest.mark.parametrize("queries, count, message", [
    ([], 1, "no query is given"), (None, 0, "count is 0; accepted: 1 to 10"), (None, 11, "accepted: 1 to 10"),
    ([np.zeros((20, 20))], 1, "query 0 is constant"), (None, True, "count is True"),
])
def test_bad_selections(support, queries, count, message):
    with pytest.raises(InputError, match=message):
        select(support, [support.images[0]] if queries is None else queries, count)
