"""The emitted graphs themselves, in float64, against the reference network: values, dynamic axes, weights, names."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.inliner
import pytest
from onnx.reference import ReferenceEvaluator

torch = pytest.importorskip("torch", reason="torch is not installed: pip install torch")

from universeg_rt.export.emit import emit_stages, emit_whole
from universeg_rt.export.emit.support_mean import DOMAIN
from universeg_rt.export.folds import fold
from universeg_rt.training.network.reference import UniverSeg

from ...conftest import random_weights as float32_weights

pytestmark = pytest.mark.torch


def random_weights(spec, dtype=np.float64):
    return float32_weights(spec, dtype=dtype)


def evaluator_of(model: onnx.ModelProto) -> ReferenceEvaluator:
    """ONNX's own evaluator, in whatever type; it wants the model-local functions inlined."""
    return ReferenceEvaluator(onnx.inliner.inline_local_functions(model))


def episode(spec, queries, sets, entries, height, width, seed=0):
    rng = np.random.default_rng(seed)
    query = rng.random((queries, 1, height, width))
    images = rng.random((sets, entries, 1, height, width))
    labels = (rng.random((sets, entries, 1, height, width)) > 0.5).astype(np.float64)
    return query, images, labels


def reference_logits(spec, weights, query, images, labels, entry_weights=None) -> np.ndarray:
    """(B,K,1,H,W) of the reference network in float64."""
    model = UniverSeg(spec).double()
    model.load_state_dict({k: torch.from_numpy(v) for k, v in weights.items()})
    out = []
    with torch.inference_mode():
        for k in range(len(images)):
            given = (x if x is None else torch.from_numpy(x[k])[None].expand(len(query), *x.shape[1:])
                     for x in (images, labels, entry_weights))
            out.append(model(torch.from_numpy(query), *given).numpy())
    return np.stack(out, axis=1)


def run_stages(stages, query, images, labels, entry_weights, chunk):
    """What a runner does, as plainly as possible, for one query and one set."""
    tensors = {"query": query[None], "support": np.concatenate([images, labels], axis=1),
               "weights": entry_weights / entry_weights.sum()}
    for stage in stages:
        evaluator = evaluator_of(stage.model)
        inputs = {i.name: i.type.tensor_type.shape.dim[0].dim_param == "S" for i in stage.model.graph.input}
        outputs = {o.name: o.type.tensor_type.shape.dim[0].dim_param == "S" for o in stage.model.graph.output}
        if not any(inputs.values()):
            tensors.update(zip(outputs, evaluator.run(None, {n: tensors[n] for n in inputs})))
            continue
        parts = []
        for start in range(0, len(images), chunk):
            feed = {n: tensors[n][start : start + chunk] if entry else tensors[n] for n, entry in inputs.items()}
            parts.append(evaluator.run(None, feed))
        for (name, entry), values in zip(outputs.items(), zip(*parts)):
            tensors[name] = np.concatenate(values) if entry else sum(values)
    return tensors["logits"]


def test_whole_model_is_the_reference(small_spec):
    weights = random_weights(small_spec)
    model = emit_whole(fold(small_spec, weights), {}, "0", np.float64)
    evaluator = evaluator_of(model)
    size = 2 * small_spec.size_multiple
    for queries, sets, entries, height, width in [(1, 1, 1, size, size), (2, 3, 4, size, 2 * size)]:
        query, images, labels = episode(small_spec, queries, sets, entries, height, width)
        logits, probability = evaluator.run(None, {"query": query, "support_images": images, "support_labels": labels})
        expected = reference_logits(small_spec, weights, query, images, labels)
        assert np.abs(logits - expected).max() < 1e-9 * np.abs(expected).max()
        assert np.abs(probability - (1 / (1 + np.exp(-expected))).mean(axis=1)).max() < 1e-9


def test_whole_model_takes_weights_of_the_mean(small_spec):
    weights = random_weights(small_spec)
    evaluator = evaluator_of(emit_whole(fold(small_spec, weights), {}, "0", np.float64))
    size = 2 * small_spec.size_multiple
    query, images, labels = episode(small_spec, 1, 2, 3, size, size)
    entry_weights = np.array([[1.0, 3.0, 2.0], [1.0, 1.0, 0.0]])
    logits, _ = evaluator.run(None, {"query": query, "support_images": images, "support_labels": labels,
                                     "weights": entry_weights})
    expected = reference_logits(small_spec, weights, query, images, labels, entry_weights)
    assert np.abs(logits - expected).max() < 1e-9 * np.abs(expected).max()
    smaller = reference_logits(small_spec, weights, query, images[1:, :2], labels[1:, :2])
    assert np.abs(logits[:, 1:] - smaller).max() < 1e-9 * np.abs(expected).max(), "a weight of zero must pad"


@pytest.mark.parametrize("chunk", [1, 2, 8])
def test_stages_are_the_reference(small_spec, chunk):
    weights = random_weights(small_spec)
    stages = emit_stages(fold(small_spec, weights), {}, "0", np.float64)
    size = 2 * small_spec.size_multiple
    query, images, labels = episode(small_spec, 1, 1, 5, size, 2 * size)
    entry_weights = np.array([[0.1, 0.3, 0.2, 0.0, 0.4]])
    logits = run_stages(stages, query[0], images[0], labels[0], entry_weights[0], chunk)
    expected = reference_logits(small_spec, weights, query, images, labels, entry_weights)[:, 0]
    assert np.abs(logits - expected).max() < 1e-9 * np.abs(expected).max()


def test_names_metadata_functions_and_strict_shapes(small_spec):
    network = fold(small_spec, random_weights(small_spec))
    whole = emit_whole(network, {"universeg.spec": small_spec.to_json()}, "1.2.3")
    stages = emit_stages(network, {"universeg.spec": small_spec.to_json()}, "1.2.3")
    for model in [whole] + [s.model for s in stages]:
        names = [n.name for n in model.graph.node]
        assert all(names) and len(set(names)) == len(names)
        props = {p.key: p.value for p in model.metadata_props}
        assert props["universeg.spec"] == small_spec.to_json() and props["universeg.kind"]
        assert model.producer_name == "universeg_rt" and model.producer_version == "1.2.3"
        inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
        typed = {v.name for v in list(inferred.graph.value_info) + list(inferred.graph.output)}
        assert {o for n in model.graph.node for o in n.output if o} <= typed
    custom = [n for n in whole.graph.node if n.domain == DOMAIN]
    alive = [b for b in network.blocks if b.streamed]
    assert len(custom) == len(alive), "one support-mean operation a block with per-entry work"
    assert {n.op_type for n in custom} == {f.name for f in whole.functions if f.domain == DOMAIN}
    read = {name for n in whole.graph.node for name in n.input}
    for node in custom:
        outputs = {a.name: a.i for a in node.attribute}["outputs"]
        assert [name in read for name in node.output] == [i < outputs for i in range(len(node.output))]


def test_emission_is_reproducible_to_the_byte(small_spec):
    network = fold(small_spec, random_weights(small_spec, dtype=np.float32))
    first, second = (emit_whole(network, {"a": "b"}, "0").SerializeToString(deterministic=True) for _ in range(2))
    assert first == second
