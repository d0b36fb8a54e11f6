"""The network cut in two, prepare and predict: values in float64, what passes between them, names and dynamic axes."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install torch")

from universeg_rt.export.emit import emit_predict, emit_prepare, emit_whole
from universeg_rt.export.emit.support_mean import DOMAIN
from universeg_rt.export.folds import fold

from .test_emit import episode, evaluator_of, random_weights, reference_logits

pytestmark = pytest.mark.torch


def io_names(values) -> dict[str, list]:
    return {v.name: [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in values}


def between(spec) -> dict[str, list]:
    """The tensors that pass from prepare to predict, with their axes."""
    features = spec.encoder_features[0]
    names = {"support_term": ["K", "S", features, "H", "W"], "mean_term": ["K", features, "H", "W"],
             "normalised_weights": ["K", "S"]}
    if spec.cross_activation != "none":
        del names["mean_term"]
    return names


def test_the_pair_is_the_reference(small_spec):
    weights = random_weights(small_spec)
    network = fold(small_spec, weights)
    prepare = evaluator_of(emit_prepare(network, {}, "0", np.float64))
    predict = evaluator_of(emit_predict(network, {}, "0", np.float64))
    size = 2 * small_spec.size_multiple
    for queries, sets, entries, height, width in [(1, 1, 1, size, size), (2, 3, 4, size, 2 * size)]:
        query, images, labels = episode(small_spec, queries, sets, entries, height, width)
        entry_weights = np.random.default_rng(1).random((sets, entries)) + 0.1
        made = prepare.run(None, {"support_images": images, "support_labels": labels, "weights": entry_weights})
        prepared = dict(zip(prepare.output_names, made))
        expected = reference_logits(small_spec, weights, query, images, labels, entry_weights)
        logits, probability = predict.run(None, {"query": query, **prepared})
        assert logits.shape == (queries, sets, 1, height, width)
        assert np.abs(logits - expected).max() < 1e-9 * np.abs(expected).max()
        assert np.abs(probability - (1 / (1 + np.exp(-expected))).mean(axis=1)).max() < 1e-9


def test_names_and_axes_are_the_documented_ones(small_spec):
    network = fold(small_spec, random_weights(small_spec))
    prepare, predict = emit_prepare(network, {}, "0"), emit_predict(network, {}, "0")
    assert io_names(prepare.graph.output) == between(small_spec)
    assert io_names(prepare.graph.input) == {
        "support_images": ["K", "S", 1, "H", "W"], "support_labels": ["K", "S", 1, "H", "W"],
        "weights": ["weight_sets", "weight_entries"]}
    assert io_names(predict.graph.input) == {"query": ["B", 1, "H", "W"], **between(small_spec)}
    assert io_names(predict.graph.output) == {"logits": ["B", "K", 1, "H", "W"], "probability": ["B", 1, "H", "W"]}
    for model, kind in ((prepare, "prepare"), (predict, "predict")):
        assert {p.key: p.value for p in model.metadata_props}["universeg.kind"] == kind


def test_the_pair_does_what_the_whole_model_does_and_nothing_twice(small_spec):
    """Every convolution and support-mean operation stands on exactly one side."""
    network = fold(small_spec, random_weights(small_spec))
    def work(model: onnx.ModelProto) -> list[str]:
        return sorted(n.name for n in model.graph.node if n.op_type == "Conv" or n.domain == DOMAIN)

    prepare, predict, whole = (work(emit(network, {}, "0")) for emit in (emit_prepare, emit_predict, emit_whole))
    assert sorted(prepare + predict) == whole
    assert all(name.startswith("enc0/") for name in prepare) and any("support_mean" in name for name in predict)
