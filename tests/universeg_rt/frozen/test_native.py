"""Exact files on the native runner: the task's answers, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest

from universeg_rt import Ensemble, RunnerError, Segmenter, SupportSet
from universeg_rt.frozen.record import EXACT
from universeg_rt.frozen_task import FrozenTask

from ...conftest import discs, native_part, quick_gate, random_weights
from ..runners.conftest import queries


@pytest.fixture(autouse=True)
def built():
    native_part()


@pytest.mark.parametrize("members", [1, 3])
def test_an_exact_file_gives_the_answers_of_the_task_to_its_bits_where_there_is_one_member(small_bundle, tmp_path,
                                                                                           members):
    task = Segmenter.open(small_bundle, runner="native", threads=1).prepare(
        SupportSet.from_arrays(*discs(5)), Ensemble(members, 4))
    task.freeze(kind=EXACT).save(tmp_path / "task.onnx")
    opened = FrozenTask.open(tmp_path / "task.onnx", threads=1)
    assert (opened.runner.name, opened.runner.threads) == ("native", 1)
    for image, asked in zip(discs(2, seed=5)[0], queries(2)):
        np.testing.assert_allclose(opened.predict(image).probability, task.predict(image).probability, atol=1e-6)
        if members == 1:
            np.testing.assert_array_equal(opened.runner.run(asked[None]), task._run(asked[None])[:, 0])


def test_a_file_in_half_precision_is_computed_in_float32(typed_bundle, tmp_path):
    support = SupportSet.from_arrays(*discs(4))
    plain = Segmenter.open(typed_bundle, runner="native", precision="fp32").prepare(support)
    half = Segmenter.open(typed_bundle, runner="onnxruntime", precision="fp16").prepare(support)
    half.freeze(kind=EXACT).save(tmp_path / "task.onnx")
    opened = FrozenTask.open(tmp_path / "task.onnx", runner="native")
    for image in discs(2, seed=5)[0]:
        np.testing.assert_allclose(opened.predict(image).probability, plain.predict(image).probability, atol=2e-3)


def test_int8_is_left_to_onnx_runtime(typed_bundle, tmp_path):
    task = Segmenter.open(typed_bundle, runner="onnxruntime", precision="int8").prepare(
        SupportSet.from_arrays(*discs(4)))
    task.freeze(kind=EXACT).save(tmp_path / "task.onnx")
    with pytest.raises(RunnerError, match="not in int8; use runner='onnxruntime'"):
        FrozenTask.open(tmp_path / "task.onnx", runner="native")
    assert FrozenTask.open(tmp_path / "task.onnx").runner.name == "onnxruntime"


@pytest.mark.parametrize("variant", [{"cross_activation": "leaky_relu"}, {"downsample": "bilinear"}], ids=str)
def test_a_network_that_the_native_runner_lacks_is_left_to_onnx_runtime(tmp_path, variant):
    """The tensors of such a file have the names of the others': run all the same, it would give another mask."""
    pytest.importorskip("torch", reason="exporting needs torch: pip install '.[export]'")
    from universeg_rt.export.build import build_bundle
    from universeg_rt.spec import NetworkSpec

    spec = NetworkSpec(**{"cross_activation": "none", "downsample": "max_pool", **variant}, encoder_features=(4, 4),
                       decoder_features=(4,))
    with quick_gate():
        build_bundle(spec, random_weights(spec), tmp_path / "other", name="other", grid=(16, 16))
    task = Segmenter.open(tmp_path / "other").prepare(SupportSet.from_arrays(*discs(4)))
    task.freeze(kind=EXACT).save(tmp_path / "task.onnx")
    with pytest.raises(RunnerError, match="the native runner cannot run this file"):
        FrozenTask.open(tmp_path / "task.onnx", runner="native")
    opened = FrozenTask.open(tmp_path / "task.onnx")
    assert opened.runner.name == "onnxruntime" and "not native" in opened.runner.reason
    image = discs(1, seed=5)[0][0]
    np.testing.assert_allclose(opened.predict(image).probability, task.predict(image).probability, atol=1e-4)
