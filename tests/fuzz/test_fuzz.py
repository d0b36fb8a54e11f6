"""A short run of every mutation fuzzer; `python -m tests.fuzz` runs them at length."""

from __future__ import annotations

import random

import pytest

from .harness import modules, run
from .mutate import changed, damaged

CASES, SEED = 25, 1


@pytest.fixture(scope="module")
def results():
    return {result.name: result for result in run(modules(), CASES, SEED)}


@pytest.mark.parametrize("name", modules())
def test_odd_input_gives_a_result_or_a_typed_error(results, name):
    result = results[name]
    if result.skipped:
        pytest.skip(result.skipped)
    assert not result.defects, "\n".join(result.defects)
    assert sum(result.counts.values()) == CASES


def test_the_harness_sees_every_kind_of_defect_and_goes_on_behind_it():
    (result,) = run(["defects"], 100, SEED, seconds=1.0)
    assert dict(result.counts) == {
        "success": 2, "InputError": 1, "raw KeyError": 1, "time-out": 1, "death (-6)": 1, "memory": 2,
        "raw SystemExit": 1
    }
    assert len(result.defects) == 6 and "in <lambda>" in result.defects[1] and "Aborted" in result.defects[2]


def test_the_same_seed_gives_the_same_cases():
    def drawn(seed):
        rng = random.Random(seed)
        return [damaged(rng,
                        bytes(range(256)) * 8)
                for _ in range(50)], [changed(rng, {"a": [1, {"b": 2.0}], "c": "x"})[0] for _ in range(50)]

    assert drawn(1) == drawn(1) != drawn(2)
