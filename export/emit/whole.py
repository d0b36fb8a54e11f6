"""The whole network as one ONNX model: any number of queries, support sets and support entries, any image size.

Inputs
    query           (B,1,H,W)    images in [0, 1]
    support_images  (K,S,1,H,W)  K support sets (ensemble members) of S entries each, shared by all queries
    support_labels  (K,S,1,H,W)  values in {0, 1}
    weights         (K,S)        of the means over each set, may be left out (all equal); normalised in the graph;
                                 a zero pads a set that is smaller than S
Outputs
    logits          (B,K,1,H,W)  of each member
    probability     (B,1,H,W)    mean over the members of the sigmoid (paper section 3.3)
"""

from __future__ import annotations

import numpy as np
import onnx

from ..folded import FoldedNetwork
from . import layers
from .graph import GraphBuilder
from .layers import Layout, SupportOutputs


def emit_whole(network: FoldedNetwork, metadata: dict[str, str], version: str, dtype: type = np.float32) -> onnx.ModelProto:
    """Emit the whole model; `dtype` float64 is for checking the algebra."""
    g = GraphBuilder(dtype)
    query = g.input("query", ["B", 1, "H", "W"])
    images = g.input("support_images", ["K", "S", 1, "H", "W"])
    labels = g.input("support_labels", ["K", "S", 1, "H", "W"])
    given_weights = g.input("weights", ["weight_sets", "weight_entries"], default=np.ones((1, 1)))

    queries = g.shape(query, "sizes/queries", 0, 1)
    sets, entries = g.shape(images, "sizes/sets", 0, 1), g.shape(images, "sizes/entries", 1, 2)
    weights = _normalised(g, given_weights, sets, entries)
    support = g.concat([images, labels], "support", axis=2)
    image = g.shape(support, "support/image", 2)
    v = g.reshape(support, "support_4d", [-1, image])
    needs_input_mean = network.blocks[0].mean_before_convolution
    m = _input_mean(g, support, weights, sets, image) if needs_input_mean else None

    u, state = query, SupportOutputs(mean=m, entries=v)
    # Until the first block has mixed them, the query knows no sets and the support no queries.
    query_layout, support_layout = Layout(queries, 1), Layout(1, sets, entries)
    mixed_query, mixed_support = Layout(queries, sets), Layout(queries, sets, entries)
    skips = []
    for block in network.encoder:
        u, state = _block(g, network, block, u, state, weights, query_layout, support_layout)
        query_layout, support_layout = mixed_query, mixed_support
        if layers.is_downsampled(network, block):
            skips.append((u, state))
            u = g.downsample(u, f"{layers.block_label(block)}/query_down", network.spec.downsample)
            state = SupportOutputs(mean=state.down_mean, entries=state.down)
    for block in network.decoder:
        label = layers.block_label(block)
        skip_u, skip = skips.pop()
        u = _up_and_concat(g, u, skip_u, f"{label}/query_in")
        mean = entries_in = None
        if block.mean_through_upsampling:
            mean = _up_and_concat(g, state.mean, skip.mean, f"{label}/mean_in")
        if block.reads_entries:
            entries_in = _up_and_concat(g, state.entries, skip.entries, f"{label}/entries_in")
        u, state = _block(g, network, block, u, SupportOutputs(mean=mean, entries=entries_in), weights,
                          query_layout, support_layout)
    logits = g.conv(u, "head", network.head_weight, network.head_bias)
    logits = g.reshape(logits, "head/members", [queries, sets, g.shape(logits, "head/image", 1)])
    probability = g.node("ReduceMean", [g.node("Sigmoid", [logits], "head/sigmoid")], "head/ensemble_mean",
                         axes=[1], keepdims=0)
    g.output(logits, "logits", ["B", "K", 1, "H", "W"])
    g.output(probability, "probability", ["B", 1, "H", "W"])
    return g.model("universeg", {**metadata, "universeg.kind": "whole"}, version)


def _block(g, network, block, u, state, weights, query_layout, support_layout):
    """One CrossBlock: (u, support state) -> (u', support state)."""
    label = layers.block_label(block)
    q = layers.query_term(g, block, u)
    if not block.mean_before_convolution:
        out = layers.support_step(g, network, block, state.entries, q, weights, support_layout, query_layout)
        return layers.target(g, network, block, out.mean), out
    term = layers.mean_cross_term(g, block, state.mean)
    if query_layout.sets == 1:  # the first block: (B,1,...) + (1,K,...) spreads over queries and sets
        q_5d = g.reshape(q, f"{label}/query_term_5d", [query_layout.queries, 1, g.shape(q, f"{label}/q_image", 1)])
        term = g.reshape(term, f"{label}/mean_term_5d", [1, support_layout.sets, g.shape(term, f"{label}/m_image", 1)])
        spread = g.node("Add", [q_5d, term], f"{label}/mean_z_5d")
        mean_z = g.reshape(spread, f"{label}/mean_z", [-1, g.shape(spread, f"{label}/z_image", 2)])
    else:
        mean_z = g.node("Add", [q, term], f"{label}/mean_z")
    new_u = layers.target(g, network, block, mean_z)
    if block.support_weight is None:
        return new_u, SupportOutputs()
    r = layers.support_query_term(g, block, q)
    return new_u, layers.support_step(g, network, block, state.entries, r, weights, support_layout, query_layout)


def _up_and_concat(g: GraphBuilder, x: str, skip: str, name: str) -> str:
    """A decoder's input: upsampled ‖ skip."""
    return g.concat([g.upsample(x, f"{name}_up"), skip], name)


def _normalised(g: GraphBuilder, weights: str, sets: str, entries: str) -> str:
    """(K,S), each row summing to 1."""
    full = g.node("Expand", [weights, g.concat([sets, entries], "weights/shape", axis=0)], "weights/full")
    total = g.node("ReduceSum", [full, g.constant("int/1", [1])], "weights/total", keepdims=1)
    return g.node("Div", [full, total], "weights/normalised")


def _input_mean(g: GraphBuilder, support: str, weights: str, sets: str, image: str) -> str:
    """Weighted mean of the support's own images and labels, (K,2,H,W)."""
    matrix = g.reshape(support, "support_mean/matrix", [sets, g.shape(support, "support_mean/entries", 1, 2), -1])
    row = g.node("Unsqueeze", [weights, g.constant("int/1", [1])], "support_mean/row")
    product = g.node("MatMul", [row, matrix], "support_mean/product")
    return g.reshape(product, "support_mean", [sets, image])
