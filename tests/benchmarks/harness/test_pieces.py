"""The pieces of the work under pytest-benchmark; without `--benchmark-enable` each runs once, as a test of what it
gives.

    python -m pytest tests/benchmarks/harness/test_pieces.py --benchmark-enable
"""

from __future__ import annotations

import numpy as np
import pytest

from universeg_rt import Bundle, RunnerError, Segmenter
from universeg_rt.benchmarks.harness.case import Case
from universeg_rt.imaging.preprocess import Placement
from universeg_rt.predictor import Query
from universeg_rt.runners import RUNNERS, open_runner
from universeg_rt.runners.cpu.streaming import StagedRunner

CASE = Case(16, 1, 1, 128, 2)
CHUNK = 4


@pytest.fixture(scope="module", params=RUNNERS)
def runner(request):
    try:
        opened = open_runner(Bundle.open(), request.param, "fp32", CASE.threads)
    except RunnerError as error:
        pytest.skip(str(error))
    if not isinstance(opened, StagedRunner):
        pytest.skip(f"{request.param} does not run stages: it has no pieces of its own")
    return opened


def feed_of(runner, stage, rng) -> dict:
    """Random inputs for a stage at 128x128, a chunk of entries; sizes follow the level in a tensor's name."""
    feed = {}
    for name, shape in stage.session.inputs.items():
        first = CHUNK if name in stage.per_entry else 1
        if name == "weights":
            feed[name] = np.full(CHUNK, 1 / CHUNK, np.float32)
            continue
        side = CASE.size >> level_of(name)
        feed[name] = rng.random((first, shape[1], side, side), np.float32)
    return {name: runner._value(value) for name, value in feed.items()}


def level_of(tensor: str) -> int:
    """`enc1.entries_down` -> 2: the v1 network has four encoder and three decoder levels."""
    if "." not in tensor or tensor.startswith("support"):
        return 0
    block, what = tensor.split(".")
    level = int(block[3:]) if block.startswith("enc") else 2 - int(block[3:])
    return level + what.endswith("_down")


@pytest.mark.parametrize("piece", ["enc0.support", "enc1.support", "dec1.support"],
                         ids=["first block", "encoder block", "decoder block"])
def test_a_block(benchmark, runner, piece):
    benchmark.group = f"{piece}, {CHUNK} entries"
    stage = next(s for s in runner._stages if s.name == piece)
    feed = feed_of(runner, stage, np.random.default_rng(0))
    made = dict(zip(stage.session.outputs, benchmark(stage.session.run, feed)))
    mean = runner._array(made[piece.replace("support", "mean")])
    side = CASE.size >> level_of(piece)
    assert mean.shape == (1, 64, side, side) and np.isfinite(mean).all()
    if (entries := made.get(piece.replace("support", "entries"))) is not None:
        assert np.abs(runner._array(entries).mean(axis=0) - mean[0]).max() < 1e-4 * np.abs(mean).max()


def test_preprocessing(benchmark):
    image = np.random.default_rng(0).integers(0, 4096, (512, 512)).astype(np.int16)

    def there():
        return Placement.of(image.shape, (128, 128), "pad").image_to_grid(image, (128, 128))

    small = benchmark(there)
    assert small.shape == (128, 128) and small.min() == 0 and small.max() == 1


def test_preprocessing_of_a_support(benchmark):
    entries = benchmark(lambda: CASE.support.on_grid((128, 128), "stretch"))
    assert np.array_equal(entries[:, 0], np.stack(CASE.support.images))
    assert np.array_equal(entries[:, 1], np.stack(CASE.support.labels))


def test_postprocessing(benchmark):
    segmenter = Segmenter.open(threads=CASE.threads)
    task = segmenter.prepare(CASE.support.subset(range(2)))
    placement = Placement.of((512, 400), (128, 128), "pad")
    logits = np.random.default_rng(0).normal(size=(5, 1, 128, 128)).astype(np.float32)
    query = Query(np.zeros((512, 400)), "query", None, 1.0, None, placement, (), 0.0)
    prediction = benchmark(lambda: task._finish(logits, query, 0.0, 0.5, False))
    assert prediction.mask.shape == (512, 400) and 0 < prediction.spread.max() < 0.5


def test_an_ensemble(benchmark):
    case = Case(4, 3, 1, 128, 2)
    segmenter = Segmenter.open(threads=case.threads)
    image = case.images[0]
    prediction = benchmark(lambda: segmenter.prepare(case.support, case.ensemble).predict(image))
    alone = [
        segmenter.prepare(case.support.subset(indices)).predict(image).probability
        for indices, _ in case.ensemble.draw(len(case.support))
    ]
    assert np.abs(prediction.probability - np.mean(alone, axis=0)).max() < 1e-4
    assert np.abs(prediction.spread - np.std(alone, axis=0)).max() < 1e-4
