"""Exact files on OpenVINO: the answers of the task, of every variant."""

from __future__ import annotations

import numpy as np
import pytest

from universeg_rt import Ensemble, Segmenter, SupportSet
from universeg_rt.frozen.record import EXACT
from universeg_rt.frozen_task import FrozenTask

from ...conftest import discs, quick_gate, random_weights

pytest.importorskip("openvino", reason="openvino is not installed: pip install '.[openvino]'")


@pytest.mark.parametrize("members", [1, 3])
def test_an_exact_file_gives_the_answers_of_the_task_for_any_number_of_queries(small_bundle, tmp_path, members):
    task = Segmenter.open(small_bundle).prepare(SupportSet.from_arrays(*discs(5)), Ensemble(members, 4))
    task.freeze(kind=EXACT).save(tmp_path / "task.onnx")
    opened, images = FrozenTask.open(tmp_path / "task.onnx", runner="openvino", threads=1), discs(3, seed=5)[0]
    for some in (images[:1], images):
        for found, wanted in zip(opened.predict_batch(some), task.predict_batch(some), strict=True):
            np.testing.assert_allclose(found.probability, wanted.probability, atol=1e-5)


@pytest.mark.parametrize("variant", [{"cross_activation": "leaky_relu"}, {"downsample": "bilinear"}], ids=str)
def test_other_variants(tmp_path, variant):
    pytest.importorskip("torch", reason="exporting needs torch: pip install '.[export]'")
    from universeg_rt.export.build import build_bundle
    from universeg_rt.spec import NetworkSpec

    spec = NetworkSpec(**{"cross_activation": "none", "downsample": "max_pool", **variant}, encoder_features=(4, 4),
                       decoder_features=(4,))
    with quick_gate():
        build_bundle(spec, random_weights(spec), tmp_path / "other", name="other", grid=(16, 16))
    task = Segmenter.open(tmp_path / "other").prepare(SupportSet.from_arrays(*discs(4)))
    task.freeze(kind=EXACT).save(tmp_path / "task.onnx")
    opened, image = FrozenTask.open(tmp_path / "task.onnx", runner="openvino"), discs(1, seed=5)[0][0]
    np.testing.assert_allclose(opened.predict(image).probability, task.predict(image).probability, atol=1e-4)


@pytest.mark.parametrize("precision, within", [("fp16", 5e-3), ("int8", 0.06)])
def test_other_precisions_of_the_shipped_weights(tmp_path, precision, within):
    """Runtimes round in different places: the weights of a bundle that no gate has seen would show nothing."""
    support, image = SupportSet.from_arrays(*discs(4, 128, 128)), discs(1, 128, 128, seed=5)[0][0]
    task = Segmenter.open(runner="onnxruntime", precision=precision).prepare(support)
    task.freeze(kind=EXACT).save(tmp_path / "task.onnx")
    opened = FrozenTask.open(tmp_path / "task.onnx", runner="openvino")
    found, wanted = (each.predict(image, logits=True) for each in (opened, task))
    assert wanted.mask.any() and (found.mask != wanted.mask).mean() < 1e-3
    np.testing.assert_allclose(found.probability, wanted.probability, atol=within)
