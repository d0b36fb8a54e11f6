"""The whole network as ONNX: in one model, and as the same model cut in two, `prepare` and `predict`.

Any number of queries B, support sets K (ensemble members) and support entries S, any image size.

Inputs of `model.onnx`; `prepare.onnx` has all but the first
    query               (B,1,H,W)    images in [0, 1]
    support_images      (K,S,1,H,W)  K support sets of S entries each, shared by all queries
    support_labels      (K,S,1,H,W)  values in {0, 1}
    weights             (K,S)        of the means over each set, may be left out (all equal); normalised in the graph;
                                     a zero pads a set that is smaller than S
Outputs of `model.onnx` and of `predict.onnx`
    logits              (B,K,1,H,W)  of each member
    probability         (B,1,H,W)    mean over the members of the sigmoid (paper section 3.3)
Outputs of `prepare.onnx`, and with `query` the inputs of `predict.onnx`: all that reads no query, C features of the
first block
    support_term        (K,S,C,H,W)  what each entry adds in the first block's support-mean operation: Ws * (Wv * v_i),
    or
                                     Wv * v_i where a cross activation follows
    mean_term           (K,C,H,W)    Wv * mean_i(v_i), what the set adds to the query's path of the first block; only
    where
                                     the mean is taken before the convolution (no cross activation)
    normalised_weights  (K,S)        each row summing to 1

All of them are float32, in a float16 network too, but for `support_term` and `mean_term`, which have the network's
type.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import onnx

from universeg_rt.spec import HALVED, Flow

from ..folds.folded import FoldedBlock, FoldedNetwork
from . import layers
from .graph import GraphBuilder
from .layers import Layout, SupportOutputs
from .quantise import Quantisation


@dataclass(frozen=True)
class _Outputs(SupportOutputs):
    """What a block gave: with the support's tensors the query's map, and the same halved where a block reads it so."""

    query: str = ""
    query_down: str | None = None


@dataclass(frozen=True)
class Prepared:
    """Names of the tensors between `prepare` and `predict`; shapes as above."""

    support_term: str
    mean_term: str | None
    weights: str


def emit_whole(network: FoldedNetwork, metadata: dict[str, str], version: str, dtype: type = np.float32,
               quantisation: Quantisation | None = None) -> onnx.ModelProto:
    """Emit the whole model; `dtype` float64 is for checking the algebra."""
    g = GraphBuilder(dtype, quantisation=quantisation)
    query = g.input("query", ["B", 1, "H", "W"], wide=True)
    _query_side(g, network, query, _support_side(g, network))
    return g.model("universeg", {**metadata, "universeg.kind": "whole"}, version)


def emit_prepare(network: FoldedNetwork, metadata: dict[str, str], version: str, dtype: type = np.float32,
                 quantisation: Quantisation | None = None) -> onnx.ModelProto:
    """Emit what is done once a support set."""
    g = GraphBuilder(dtype, quantisation=quantisation)
    prepared, features = _support_side(g, network), network.blocks[0].features
    g.output(prepared.support_term, "support_term", ["K", "S", features, "H", "W"])
    if prepared.mean_term is not None:
        g.output(prepared.mean_term, "mean_term", ["K", features, "H", "W"])
    g.output(prepared.weights, "normalised_weights", ["K", "S"], wide=True)
    return g.model("universeg_prepare", {**metadata, "universeg.kind": "prepare"}, version)


def emit_predict(network: FoldedNetwork, metadata: dict[str, str], version: str, dtype: type = np.float32,
                 quantisation: Quantisation | None = None) -> onnx.ModelProto:
    """Emit what is done once a query, from the tensors that `prepare` made."""
    g = GraphBuilder(dtype, quantisation=quantisation)
    first = network.blocks[0]
    query = g.input("query", ["B", 1, "H", "W"], wide=True)
    support_term = g.input("support_term", ["K", "S", first.features, "H", "W"])
    mean_term = g.input("mean_term", ["K", first.features, "H", "W"]) if first.mean_before_convolution else None
    weights = g.input("normalised_weights", ["K", "S"], wide=True)
    _query_side(g, network, query, Prepared(support_term, mean_term, weights))
    return g.model("universeg_predict", {**metadata, "universeg.kind": "predict"}, version)


def _support_side(g: GraphBuilder, network: FoldedNetwork) -> Prepared:
    """Declare the support's inputs and do all that reads no query."""
    images = g.input("support_images", ["K", "S", 1, "H", "W"], wide=True)
    labels = g.input("support_labels", ["K", "S", 1, "H", "W"], wide=True)
    given = g.input("weights", ["weight_sets", "weight_entries"], default=np.ones((1, 1)), wide=True)
    sets, entries = g.shape(images, "sizes/sets", 0, 1), g.shape(images, "sizes/entries", 1, 2)
    weights = _normalised(g, given, sets, entries)
    support = g.concat([images, labels], "support", axis=2)
    image = g.shape(support, "support/image", 2)
    first = network.blocks[0]
    label = first.label
    v = g.narrow(g.reshape(support, "support_4d", [-1, image]), "support_4d/narrow")
    x = layers.support_term(g, first, v)
    x_5d = g.reshape(x, f"{label}/support_5d", [sets, entries, g.shape(x, f"{label}/support_image", 1)])
    if not first.mean_before_convolution:
        return Prepared(x_5d, None, weights)
    m = g.narrow(_input_mean(g, support, weights, sets, image), "support_mean/narrow")
    return Prepared(x_5d, layers.mean_cross_term(g, first, m), weights)


def _query_side(g: GraphBuilder, network: FoldedNetwork, query: str, prepared: Prepared) -> None:
    """Do all that reads a query and declare the outputs."""
    queries = g.shape(query, "sizes/queries", 0, 1)
    sets = g.shape(prepared.weights, "sizes/weight_sets", 0, 1)
    entries = g.shape(prepared.weights, "sizes/weight_entries", 1, 2)
    mixed_query, mixed_support = Layout(queries, sets), Layout(queries, sets, entries)
    flow: Flow[_Outputs] = Flow([block.spec for block in network.blocks])
    for block in network.blocks:
        if block.spec.is_first:
            u, state = _first_block(g, network, block, g.narrow(query, "query/narrow"), prepared, queries, sets)
        else:
            joined = partial(_joined, g, block, flow.read(block.spec))
            query_in = joined("query")
            through = block.mean_through_upsampling if block.spec.is_decoder else block.mean_before_convolution
            state = SupportOutputs(mean=joined("mean", through), entries=joined("entries", block.reads_entries))
            u, state = _block(g, network, block, query_in, state, prepared.weights, mixed_query, mixed_support)
        down = g.downsample(u, f"{block.label}/query_down", network.spec.downsample) if block.spec.is_halved else None
        flow.keep(block.spec, _Outputs(query=u, query_down=down, **vars(state)))
    logits = g.widen(g.conv(u, "head", network.head_weight, network.head_bias), "head/wide")
    logits = g.reshape(logits, "head/members", [queries, sets, g.shape(logits, "head/image", 1)])
    probability = g.node("ReduceMean", [g.node("Sigmoid", [logits], "head/sigmoid")], "head/ensemble_mean",
                         axes=[1], keepdims=0)
    g.output(logits, "logits", ["B", "K", 1, "H", "W"], wide=True)
    g.output(probability, "probability", ["B", 1, "H", "W"], wide=True)


def _joined(g: GraphBuilder, block: FoldedBlock, read: Sequence[tuple[_Outputs, str]], what: str,
            wanted: bool = True) -> str | None:
    """The maps `what` of the blocks that a block reads, resized and concatenated; None where they are not wanted."""
    if not wanted:
        return None
    maps = [(getattr(out, f"{what}_down" if resize == HALVED else what), resize) for out, resize in read]
    name = f"{block.label}/{what}_in"
    return layers.joined(g, maps, name, f"{name}_up")


def _first_block(g: GraphBuilder, network: FoldedNetwork, block: FoldedBlock, u: str, prepared: Prepared,
                 queries: str, sets: str) -> tuple[str, SupportOutputs]:
    """The CrossBlock that mixes queries and sets: until here the query knows no sets and the support no queries."""
    label = block.label
    x_6d = g.unsqueeze(prepared.support_term, f"{label}/support_6d", 0)
    q = layers.query_term(g, block, u)
    layout = Layout(queries, 1)
    if not block.mean_before_convolution:
        out = layers.support_operation(g, network, block, x_6d, q, prepared.weights, layout)
        return layers.target(g, network, block, out.mean), out
    # (B,1,...) + (1,K,...) spreads over queries and sets.
    q_5d = g.reshape(q, f"{label}/query_term_5d", [queries, 1, g.shape(q, f"{label}/q_image", 1)])
    spread = g.node("Add", [q_5d, g.unsqueeze(prepared.mean_term, f"{label}/mean_term_5d", 0)], f"{label}/mean_z_5d")
    mean_z = g.reshape(spread, f"{label}/mean_z", [-1, g.shape(spread, f"{label}/z_image", 2)])
    new_u = layers.target(g, network, block, mean_z)
    if block.support_weight is None:
        return new_u, SupportOutputs()
    r = layers.support_query_term(g, block, q)
    return new_u, layers.support_operation(g, network, block, x_6d, r, prepared.weights, layout)


def _block(g: GraphBuilder, network: FoldedNetwork, block: FoldedBlock, u: str, state: SupportOutputs, weights: str,
           query_layout: Layout, support_layout: Layout) -> tuple[str, SupportOutputs]:
    """A later CrossBlock: (u, support state) -> (u', support state)."""
    q = layers.query_term(g, block, u)
    if not block.mean_before_convolution:
        out = layers.support_step(g, network, block, state.entries, q, weights, support_layout, query_layout)
        return layers.target(g, network, block, out.mean), out
    mean_z = g.node("Add", [q, layers.mean_cross_term(g, block, state.mean)], f"{block.label}/mean_z")
    new_u = layers.target(g, network, block, mean_z)
    if block.support_weight is None:
        return new_u, SupportOutputs()
    r = layers.support_query_term(g, block, q)
    return new_u, layers.support_step(g, network, block, state.entries, r, weights, support_layout, query_layout)


def _normalised(g: GraphBuilder, weights: str, sets: str, entries: str) -> str:
    """(K,S), each row summing to 1."""
    full = g.node("Expand", [weights, g.concat([sets, entries], "weights/shape", axis=0)], "weights/full")
    total = g.node("ReduceSum", [full, g.constant("int/1", [1])], "weights/total", keepdims=1)
    return g.node("Div", [full, total], "weights/normalised")


def _input_mean(g: GraphBuilder, support: str, weights: str, sets: str, image: str) -> str:
    """Weighted mean of the support's own images and labels, (K,2,H,W)."""
    matrix = g.reshape(support, "support_mean/matrix", [sets, g.shape(support, "support_mean/entries", 1, 2), -1])
    product = g.node("MatMul", [g.unsqueeze(weights, "support_mean/row", 1), matrix], "support_mean/product")
    return g.reshape(product, "support_mean", [sets, image])
