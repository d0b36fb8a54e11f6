"""What runtimes read of a frozen file: logits of a static one, probabilities of an exact one."""

from __future__ import annotations

import numpy as np
import pytest

from universeg_rt import Ensemble, Segmenter, SupportSet
from universeg_rt.errors import RunnerError
from universeg_rt.frozen.base import logits_of, readable
from universeg_rt.frozen.record import EXACT, LOGITS, PROBABILITY, STATIC
from universeg_rt.frozen.runners import OnnxRuntime
from universeg_rt.runners.options import Options

from ...conftest import discs, native_part
from ..runners.conftest import queries


def test_a_runtime_gives_the_logits_of_the_task_or_of_the_native_runner(small_bundle):
    native_part()
    with Segmenter.open(small_bundle, runner="native") as segmenter:
        task = segmenter.prepare(SupportSet.from_arrays(*discs(4)), Ensemble(1, 4))
        exact, static, asked = task.freeze(kind=EXACT), task.freeze(kind=STATIC), queries(2)
        wanted = {EXACT: task._run(asked)[:, 0], STATIC: static.runner.run(asked)}
    assert static.runner.name == "native"
    for frozen, output in ((exact, PROBABILITY), (static, LOGITS)):
        assert readable(frozen.model, frozen.kind)[1] == output
        found = OnnxRuntime(frozen.model, frozen.kind, frozen.spec, Options()).run(asked)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, wanted[frozen.kind], atol=2e-3)


def test_logits_of_probabilities_are_finite_and_turn_back():
    values = np.float32([[0, 1e-30, 0.25, 0.5, 0.999, 1]])
    found = logits_of(values, PROBABILITY)
    assert found.dtype == np.float32 and np.isfinite(found).all() and 16.6 < found[0, -1] < 16.7
    assert np.abs(1 / (1 + np.exp(-found.astype(np.float64))) - values).max() < 1e-7
    assert logits_of(found, LOGITS) is found


def test_a_static_file_without_logits_is_refused(small_bundle):
    from universeg_rt import Bundle

    bundle = Bundle.open(small_bundle)
    with pytest.raises(RunnerError, match="no static network that universeg-export wrote .no node of the model gives"):
        OnnxRuntime(bundle.load("fp32", "whole").whole(), STATIC, bundle.manifest.spec, Options())
