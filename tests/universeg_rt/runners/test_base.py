"""What every runner is held to: shapes, and logits that are numbers."""

from __future__ import annotations

import numpy as np
import pytest

from universeg_rt import Bundle, InputError, RunnerError, Segmenter, SupportSet
from universeg_rt.runners import RUNNERS, open_runner
from universeg_rt.runners.base import Runner
from universeg_rt.runners.choose import backend

from ...conftest import discs


class Odd(Runner):
    """Gives what it is told to."""

    name = "odd"

    def __init__(self, logits) -> None:
        self.logits = logits

    @classmethod
    def open(cls, bundle, precision, options):
        raise NotImplementedError

    def _prepare(self, support, weights):
        return "prepared"

    def _run(self, prepared, queries):
        assert prepared == "prepared"
        return self.logits

    def peak_bytes(self, support_size, members, height, width):
        return 1


def run(logits):
    runner = Odd(logits)
    return runner.run(runner.prepare(np.zeros((3, 2, 2, 8, 8), np.float32), np.full((3, 2), 0.5, np.float32)),
                      np.zeros((2, 1, 8, 8), np.float32))


GOOD = np.zeros((2, 3, 1, 8, 8), np.float32)


def test_good_logits_pass_as_they_are():
    assert run(GOOD) is GOOD


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_logits_that_are_no_numbers_are_no_mask(value):
    logits = GOOD.copy()
    logits[1, 2, 0, 3:5, 7] = value
    with pytest.raises(
            RunnerError,
            match=r"the runner odd \(fp32, CPU\) gave 2 logits of 384 that are not finite numbers; .*precision='fp32'"):
        run(logits)


@pytest.mark.parametrize("logits", [
    GOOD[:1],
    GOOD[:, :2],
    GOOD[:, :, 0],
    GOOD[..., :7],
    GOOD.astype(np.float16),
    GOOD.astype(np.float64),
    GOOD.astype(complex),
    GOOD.tolist(),
    None,
    np.zeros((0, ), np.float32),
])
def test_misshapen_logits_are_no_mask(logits):
    with pytest.raises(RunnerError, match=r"expected \(2, 3, 1, 8, 8\) of float32"):
        run(logits)


def test_queries_of_another_size_than_the_support_are_refused_once_for_all():
    runner = Odd(GOOD)
    prepared = runner.prepare(np.zeros((1, 1, 2, 8, 8), np.float32), np.ones((1, 1), np.float32))
    with pytest.raises(InputError, match=r"queries are \(8, 16\), the support was prepared at \(8, 8\)"):
        runner.run(prepared, np.zeros((1, 1, 8, 16), np.float32))


def test_no_backend_goes_around_the_check():
    for name in RUNNERS:
        assert backend(name).run is Runner.run and backend(name).prepare is Runner.prepare


@pytest.mark.parametrize("name", ["native", "onnxruntime", "openvino"])
def test_a_network_that_overflows_is_an_error_and_no_empty_mask(small_bundle, tmp_path, monkeypatch, name):
    """A support so large that float32 overflows stands for damaged weights: real arithmetic, no stand-in."""
    monkeypatch.setenv("UNIVERSEG_RT_CACHE", str(tmp_path))
    try:
        runner = open_runner(Bundle.open(small_bundle), name, threads=1)
    except RunnerError as error:
        pytest.skip(f"{name} does not start here: {error}")
    support = np.full((1, 2, 2, 32, 32), 3e38, np.float32)
    prepared = runner.prepare(support, np.full((1, 2), 0.5, np.float32))
    with pytest.raises(RunnerError, match="not finite numbers"):
        runner.run(prepared, np.full((1, 1, 32, 32), 3e38, np.float32))


def test_the_error_reaches_who_predicts(small_bundle):
    segmenter = Segmenter.open(small_bundle)
    task = segmenter.prepare(SupportSet.from_arrays(*discs(2)))
    segmenter.runner._run = lambda prepared, queries: np.full((1, 1, 1, 32, 32), np.nan, np.float32)
    with pytest.raises(RunnerError, match="not finite numbers"):
        task.predict(discs(1)[0][0])


def test_where_it_runs_is_said_of_every_runner():
    runner = Odd(GOOD)
    assert runner.threads is None and runner.place == "CPU"
    runner.threads = 1
    assert runner.place == "CPU, 1 thread"
    runner.threads, runner.device = 4, "CPU, avx2"
    assert runner.place == "CPU, avx2, 4 threads"
