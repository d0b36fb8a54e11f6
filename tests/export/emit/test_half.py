"""Typed float16: where which type stands, the mean in float32, and the tolerance that half precision is held
against."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import pytest
from onnx import TensorProto

torch = pytest.importorskip("torch", reason="torch is not installed: pip install torch")
ort = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: pip install onnxruntime")

from universeg_rt.export.emit import emit_predict, emit_prepare, emit_stages, emit_whole
from universeg_rt.export.emit.graph import GraphBuilder
from universeg_rt.export.folds import fold
from universeg_rt.export.gate.parity import Case, CaseResult, HalfTolerance
from universeg_rt.spec import NetworkSpec

from ...conftest import random_weights

pytestmark = pytest.mark.torch

FLOAT, HALF = TensorProto.FLOAT, TensorProto.FLOAT16
# What may be float32: the callers' tensors and what is made of them before the cast, and the way from the logits on.
WIDE = ("weights/", "support", "support_4d", "support_mean", "head/", "normalised_weights", "query", "logits",
        "probability", "support_images", "support_labels", "weights", "upsample/scales")


def types(model: onnx.ModelProto) -> dict[str, int]:
    """Element type of every tensor."""
    graph = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True).graph
    values = [*graph.value_info, *graph.input, *graph.output]
    return {
        **{v.name: v.type.tensor_type.elem_type
           for v in values}, **{i.name: i.data_type
                                for i in graph.initializer}
    }


@pytest.fixture
def network(small_spec):
    return fold(small_spec, random_weights(small_spec))


def test_weights_and_maps_are_float16_and_nothing_else_is_float32(network):
    for emit in (emit_whole, emit_prepare, emit_predict):
        model = emit(network, {}, "0", np.float16)
        found = types(model)
        # Weights lie in the file of float32 numbers; a Cast, which runtimes do once, is all that reads them.
        numbers = {i.name for i in model.graph.initializer if i.name.endswith(("/weight", "/bias"))}
        readers = [node.op_type for node in model.graph.node if set(node.input) & numbers]
        assert numbers and readers == ["Cast"] * len(numbers)
        wide = [name for name, kind in found.items() if kind == FLOAT and name not in numbers]
        assert all(name.startswith(WIDE) for name in wide), wide
        floats = {name for name, kind in found.items() if kind == HALF}
        assert {f"{name}/half" for name in numbers} <= floats
        assert TensorProto.DOUBLE not in found.values()


def test_inputs_and_outputs_stay_float32_but_for_prepared_maps(network):
    whole, prepare, predict = (emit(network, {}, "0", np.float16) for emit in (emit_whole, emit_prepare, emit_predict))
    between = {v.name: v.type.tensor_type.elem_type for v in prepare.graph.output}
    assert between.pop("normalised_weights") == FLOAT and set(between.values()) == {HALF}
    for model in (whole, predict):
        assert {v.name: v.type.tensor_type.elem_type
                for v in model.graph.output} == {"logits": FLOAT, "probability": FLOAT}
    assert all(v.type.tensor_type.elem_type == FLOAT for v in (*whole.graph.input, *prepare.graph.input))
    given = {v.name: v.type.tensor_type.elem_type for v in predict.graph.input}
    assert given == {"query": FLOAT, "normalised_weights": FLOAT, **between}


def test_what_stages_hand_on(network):
    """Maps in float16; what callers give and get, and the shares of means, in float32."""
    for stage in emit_stages(network, {}, "0", np.float16):
        for value in (*stage.model.graph.input, *stage.model.graph.output):
            means = value.name.endswith((".mean", ".mean_down"))
            wide = means or value.name in ("query", "support", "weights", "logits")
            assert value.type.tensor_type.elem_type == (FLOAT if wide else HALF), value.name


def operation(pool: bool, half: bool, wide_means: bool = False):
    """A model of one support-mean operation on ONNX Runtime."""
    g = GraphBuilder(np.float16 if half else np.float32, wide_means)
    x, q = g.input("x", [1, "K", "S", 2, "H", "W"]), g.input("q", [1, 1, 1, 2, "H", "W"])
    made = g.support_mean(x, q, g.input("w", ["K", "S"], wide=True), "op",
                          ["mean", "pooled_mean", "pooled", "activated"][:4 if pool else 1], pool, 0.01)
    for name in made:
        axes = "abcdef" if name.endswith(("pooled", "activated")) else "abcde"
        g.output(name, f"{name}/out", list(axes), wide_means and name.endswith("mean"))
    session = ort.InferenceSession(g.model("m", {}, "0").SerializeToString(), providers=["CPUExecutionProvider"])
    return lambda **feed: session.run(None, feed)


@pytest.mark.parametrize("pool", [False, True])
def test_the_mean_of_float16_maps_is_summed_in_float32(pool):
    """4096 entries of 8: a float16 sum of weighted entries, each 8/4096, stops growing at 4."""
    entries = 4096
    x = np.full((1, 1, entries, 2, 2, 2), 8, np.float16)
    weights = np.full((1, entries), 1 / entries, np.float32)
    total = np.float16(0)
    for _ in range(entries):
        total = np.float16(total + np.float16(8 / entries))
    assert total < 5, "a float16 sum must fail here"
    mean = operation(pool, half=True)(x=x, q=np.zeros((1, 1, 1, 2, 2, 2), np.float16), w=weights)[0]
    assert mean.dtype == np.float16 and np.array_equal(mean, np.full_like(mean, 8))


@pytest.mark.parametrize("pool", [False, True])
def test_every_output_is_rounded_once(pool):
    """Equal to float32 arithmetic on the same float16 inputs, rounded at the end."""
    rng = np.random.default_rng(0)
    x, q = rng.standard_normal((1, 2, 5, 2, 4, 6)).astype(np.float16), rng.standard_normal(
        (1, 1, 1, 2, 4, 6)).astype(np.float16)
    w = np.full((2, 5), 0.2, np.float32)
    wide = operation(pool, half=False)(x=x.astype(np.float32), q=q.astype(np.float32), w=w)
    for ours, expected in zip(operation(pool, half=True)(x=x, q=q, w=w), wide):
        assert np.array_equal(ours, expected.astype(np.float16))
    shares = operation(pool, half=True, wide_means=True)(x=x, q=q, w=w)
    assert shares[0].dtype == np.float32 and np.array_equal(shares[0], wide[0])


def result(error: float, flipped: int = 0, half: CaseResult | None = None, entries: int = 2) -> CaseResult:
    return CaseResult("m", Case("random", 10, 10, entries, 1), error, flipped, 100, 1.0, half)


def test_half_precision_is_judged_beside_plain_half_precision():
    plain = result(0.01)
    assert HalfTolerance().admits(result(0.02, half=plain))
    assert not HalfTolerance().admits(result(0.0201, half=plain))
    assert HalfTolerance().admits(result(0.0299, half=plain, entries=1))
    assert not HalfTolerance().admits(result(0.0301, half=plain, entries=1))
    assert not HalfTolerance().admits(result(float("nan"), half=plain))
    assert HalfTolerance().admits(result(1e-3, half=result(0.0))), "float32's own tolerance is enough"
    assert not HalfTolerance().admits(result(0.01, flipped=1,
                                             half=plain)), "1 of 100 pixels, where plain half flips none"
    assert HalfTolerance().admits(result(0.01, flipped=2, half=result(0.01, flipped=1)))
    assert not HalfTolerance().admits(result(float("inf"), half=result(float("inf")))), "overflow excuses no overflow"
    with pytest.raises(ValueError, match="was not run"):
        HalfTolerance().admits(result(0.0))


def test_the_plain_half_reference_rounds():
    """It is neither float32 nor far from it."""
    from universeg_rt.export.gate.parity import Reference

    spec = NetworkSpec("none", (6, 5), (4,), "max_pool")
    reference = Reference(spec, random_weights(spec))
    error = np.abs(reference.logits("random", 16, 16, 3) - reference.logits("random", 16, 16, 3, half=True)).max()
    assert 1e-5 < error < 0.1 * np.abs(reference.logits("random", 16, 16, 3)).max()


def test_a_composed_network_in_half_keeps_its_border(network):
    """Weights are rounded after they were composed, not before."""
    first = network.blocks[0]
    if first.composed_weight is None:
        pytest.skip("this network's first block is not composed")
    model = emit_prepare(network, {}, "0", np.float16)
    stored = {i.name: onnx.numpy_helper.to_array(i) for i in model.graph.initializer}
    cast = {node.output[0]: node.input[0] for node in model.graph.node if node.op_type == "Cast"}
    initializers = {
        name.removesuffix("/half"): stored[source].astype(np.float16)
        for name, source in cast.items() if source in stored
    }
    assert np.array_equal(initializers["enc0/composed/weight"], first.composed_weight.astype(np.float16))
    for corner in dataclasses.fields(first.border_kernels):
        kernel = getattr(first.border_kernels, corner.name)
        assert np.array_equal(initializers[f"enc0/{corner.name}/weight"], kernel.astype(np.float16))
