"""Sets that share their entries: the same logits to the bit as written out, in memory that does not grow with the
number of sets."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from universeg_rt import Bundle, Ensemble, InputError, Segmenter, SupportSet
from universeg_rt.runners import open_runner, shared

from ...conftest import SMALL_GRID, discs


@pytest.fixture(params=["native", "onnxruntime"])
def runner(request, small_bundle):
    if request.param == "native":
        pytest.importorskip("universeg_rt._native",
                            reason="the native runner is not built here: reinstall where there is a C++ compiler")
    return open_runner(Bundle.open(small_bundle), request.param)


def sets(count: int, entries: int, members: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    support = rng.random((count, 2, *SMALL_GRID), np.float32)
    support[:, 1] = support[:, 1] > 0.5
    weights = np.zeros((members, count), np.float32)
    for row in weights:
        chosen, counts = np.unique(rng.choice(count, entries), return_counts=True)
        row[chosen] = counts / entries
    return support, weights


@pytest.mark.parametrize("group", [2**40, 3 * 5 * 2 * 32 * 32 * 4, 1])
def test_the_same_bits_as_written_out(runner, monkeypatch, group):
    monkeypatch.setattr(shared, "GROUP_BYTES", group)
    support, weights = sets(9, 5, 7)
    largest = max((row > 0).sum() for row in weights)
    written, rows = np.zeros((7, largest, 2, *SMALL_GRID), np.float32), np.zeros((7, largest), np.float32)
    for k, row in enumerate(weights):
        used = np.flatnonzero(row)
        written[k, : len(used)], rows[k, : len(used)] = support[used], row[used]
    queries = np.random.default_rng(1).random((2, 1, *SMALL_GRID), np.float32)
    expected = runner.run(runner.prepare(written, rows), queries)
    prepared = runner.prepare(support, weights)
    assert isinstance(prepared, shared.SharedEntries) == (group < 2**40)
    assert np.array_equal(runner.run(prepared, queries), expected)


def test_a_thousand_members_take_the_memory_of_their_entries(runner, monkeypatch):
    monkeypatch.setattr(shared, "GROUP_BYTES", 2**22)
    support = SupportSet.from_arrays(*discs(64))
    segmenter = Segmenter(runner=runner, bundle=None)
    monkeypatch.setattr(Segmenter, "grid", SMALL_GRID)
    tracemalloc.start()
    task = segmenter.prepare(support, Ensemble(1000, 64, replacement=True))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    written_out = 1000 * 40 * 2 * SMALL_GRID[0] * SMALL_GRID[1] * 4
    assert peak < 3e7 < written_out / 10
    assert len(task.prepared.weights) == 1000


@pytest.mark.parametrize("entries, weights", [((0, 2, 32, 32), (1, 0)), ((3, 2, 32, 32), (1, 2)),
                                              ((3, 2, 32, 32), (0, 3))])
def test_shapes_that_do_not_fit(runner, entries, weights):
    with pytest.raises(InputError, match="entries have shape"):
        runner.prepare(np.zeros(entries, np.float32), np.zeros(weights, np.float32))


def test_weights_and_entries_that_do_not_fit(runner):
    with pytest.raises(InputError, match="sum to"):
        runner.prepare(np.zeros((3, 2, 32, 32), np.float32), np.zeros((2, 3), np.float32))
    with pytest.raises(InputError, match="support has shape"):
        runner.prepare(np.zeros((3, 1, 32, 32), np.float32), np.full((1, 3), 1 / 3, np.float32))
