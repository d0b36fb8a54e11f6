"""What one folded CrossBlock computes, as nodes: shared by the whole model and by the streamed stages.

Everywhere u is the query map, v the support entries' maps, and m their weighted mean, all flattened to (N,C,H,W) with N
running over queries B, sets K and entries S in this order, as far as the tensor depends on them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from universeg_rt.spec import DOUBLED

from ..folds.folded import BorderKernels, FoldedBlock, FoldedNetwork
from .graph import GraphBuilder


@dataclass(frozen=True)
class Layout:
    """1-D shape tensors (names) or integers that unflatten N into queries, sets and (for support maps) entries."""

    queries: str | int
    sets: str | int
    entries: str | int = 1


@dataclass(frozen=True)
class SupportOutputs:
    """Tensors which a block's support step made; None where nothing reads them."""

    mean: str | None = None
    mean_down: str | None = None
    entries_down: str | None = None
    entries: str | None = None


def query_term(g: GraphBuilder, block: FoldedBlock, u: str) -> str:
    """q = Wu * u + b."""
    return g.conv(u, f"{block.label}/query_term", block.query_term_weight, block.cross_bias)


def support_query_term(g: GraphBuilder, block: FoldedBlock, q: str) -> str:
    """r = Ws * q + bs, what the query adds to every support entry before its activation."""
    return g.conv(q, f"{block.label}/support_query_term", block.support_weight, block.support_bias)


def target(g: GraphBuilder, network: FoldedNetwork, block: FoldedBlock, mean_z: str) -> str:
    """u' = φ(Wt * mean_i(z_i) + bt)."""
    label = block.label
    out = g.conv(mean_z, f"{label}/target", block.target_weight, block.target_bias)
    return g.leaky_relu(out, f"{label}/query", network.spec.negative_slope)


def mean_cross_term(g: GraphBuilder, block: FoldedBlock, m: str) -> str:
    """Wv * mean_i(v_i), the mean before the convolution."""
    return g.conv(m, f"{block.label}/mean_term", block.support_term_weight)


def support_term(g: GraphBuilder, block: FoldedBlock, v: str) -> str:
    """What enters the block's support-mean operation from each entry.

    Without a cross activation Ws * (Wv * v_i), composed where that pays; with one Wv * v_i.
    """
    label = block.label
    if block.composed_weight is not None:
        return composed(g, label, v, block.composed_weight, block.border_kernels, f"{label}/support_term")
    z = g.conv(v, f"{label}/support_term", block.support_term_weight)
    if not block.mean_before_convolution:
        return z
    return g.conv(z, f"{label}/support", block.support_weight)


def support_step(g: GraphBuilder, network: FoldedNetwork, block: FoldedBlock, v: str, term: str, weights: str,
                 support: Layout, query: Layout) -> SupportOutputs:
    """The block's work for each entry: from its input maps v and the query's term to all that later steps read."""
    label, x = block.label, support_term(g, block, v)
    x_6d = g.reshape(x, f"{label}/support_6d",
                     [support.queries, support.sets, support.entries, g.shape(x, f"{label}/support_image", 1)])
    return support_operation(g, network, block, x_6d, term, weights, query)


def support_operation(g: GraphBuilder, network: FoldedNetwork, block: FoldedBlock, x_6d: str, term: str, weights: str,
                      query: Layout) -> SupportOutputs:
    """`support_step` from the support term (B or 1,K,S,C,H,W) on.

    Without a cross activation the operation activates the block's output v'_i, and `mean` is that of v'_i; with one it
    activates z_i, and `mean` is that of z_i, from which the query's path goes on.
    """
    spec, label = network.spec, block.label
    wanted = network.entries_are_read(block)
    term_6d = g.reshape(
        term, f"{label}/term_6d",
        [query.queries, query.sets, 1, g.shape(term, f"{label}/term_image", 1)])
    down = block.spec.is_halved

    def operation(outputs: list[str], pool: bool) -> list[str]:
        made = g.support_mean(x_6d, term_6d, weights, f"{label}/support_mean", outputs, pool, spec.negative_slope)
        return [
            g.reshape(t, f"{t}_4d", [-1, g.shape(t, f"{t}_image", 2 if name.endswith("mean") else 3)])
            for name, t in zip(outputs, made)
        ]

    if not block.mean_before_convolution:
        if block.support_weight is None:
            return SupportOutputs(mean=operation(["mean"], pool=False)[0])
        mean, z = operation(["mean", "z"], pool=False)
        entries = g.conv(z, f"{label}/support", block.support_weight, block.support_bias)
        entries = g.leaky_relu(entries, f"{label}/entries", spec.negative_slope)
        return SupportOutputs(mean=mean, entries=entries,
                              entries_down=g.downsample(entries, f"{label}/down", spec.downsample) if down else None)
    if down and spec.downsample == "max_pool":
        return SupportOutputs(*operation(["mean", "down_mean", "down"] + ["entries"] * wanted, pool=True))
    made = operation(["mean"] + ["entries"] * (wanted or down), pool=False)
    outputs = SupportOutputs(mean=made[0], entries=made[1] if len(made) > 1 else None)
    if not down:
        return outputs
    return SupportOutputs(  # the mean of 2x2 squares is linear: it may be taken after the mean over the support
        outputs.mean, g.downsample(outputs.mean, f"{label}/down_mean", spec.downsample),
        g.downsample(outputs.entries, f"{label}/down", spec.downsample), outputs.entries if wanted else None)


def joined(g: GraphBuilder, maps: Sequence[tuple[str, str]], name: str, up_name: str) -> str:
    """The maps that a block reads, concatenated. Each comes with how it is resized; DOUBLED ones are upsampled here."""
    parts = [g.upsample(x, up_name) if resize == DOUBLED else x for x, resize in maps]
    return g.concat(parts, name) if len(parts) > 1 else parts[0]


def composed(g: GraphBuilder, label: str, v: str, weight: np.ndarray, k: BorderKernels, name: str) -> str:
    """One 5x5 convolution, with kernels of their own on the outermost pixels, laid side by side; `label` begins the
    names of its parts, `name` is that of the result."""
    first, last = (0, 3), (-3, None)
    rows = {name: g.slice(v, f"{label}/{name}_rows", 2, *limits) for name, limits in (("top", first), ("bottom", last))}
    columns = {
        name: g.slice(v, f"{label}/{name}_columns", 3, *limits)
        for name, limits in (("left", first), ("right", last))
    }

    def band(name: str, left: str, middle: str, right: str) -> str:
        return g.concat([left, middle, right], f"{label}/{name}_band", axis=3)

    def edge_row(name: str, edge, left_corner, right_corner) -> str:
        corners = [
            g.conv(g.slice(rows[name], f"{label}/{name}_{side}_pixels", 3, *limits), f"{label}/{name}_{side}", kernel,
                   pads=(0, 0, 0, 0))
            for side, limits, kernel in (("left", first, left_corner), ("right", last, right_corner))
        ]
        return band(name, corners[0], g.conv(rows[name], f"{label}/{name}", edge, pads=(0, 1, 0, 1)), corners[1])

    middle = band(
        "middle",
        g.conv(columns["left"], f"{label}/left", k.left, pads=(1, 0, 1, 0)),
        g.conv(v, f"{label}/composed", weight, pads=(1, 1, 1, 1)),
        g.conv(columns["right"], f"{label}/right", k.right, pads=(1, 0, 1, 0)),
    )
    top = edge_row("top", k.top, k.top_left, k.top_right)
    bottom = edge_row("bottom", k.bottom, k.bottom_left, k.bottom_right)
    return g.concat([top, middle, bottom], name, axis=2)
