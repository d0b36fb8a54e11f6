"""Values in messages: short, however long, deep or huge they are."""

from __future__ import annotations

import sys

import pytest

from universeg_rt.errors import shown

HUGE = [16**50_000 - 1, -(16**50_000), 10**700, [10**5000], {10**5000: 1}, {"a": (10**5000,)}, 60**20_000]


@pytest.mark.parametrize("value", HUGE, ids=list("abcdefg"))  # pytest would write them out
def test_a_huge_integer_is_shown_by_its_ends(value):
    text = shown(value)
    assert len(text) < 150 and "..." in text and "0x" in text


def test_other_integers_are_shown_as_they_are():
    for value in (0, -5, 2**64, 10**75, True):
        assert shown(value) == repr(value)
    assert len(shown(10**500)) == 80 and shown(-(16**600 - 1)).startswith("-0xfff")


def test_it_does_not_depend_on_what_python_is_set_to():
    before = sys.get_int_max_str_digits()
    try:
        sys.set_int_max_str_digits(640)
        for bits in (1999, 2000, 2001, 2200):
            assert len(shown(2**bits)) <= 80
    finally:
        sys.set_int_max_str_digits(before)
