"""The exact rewrites of a UniverSeg network, one a file; each states its algebra and its condition.

Rewrites which hold as well but are not taken, with the reason, are listed in `NOT_TAKEN`, one that only some forms of
the network take in `BY_FORM`; the measurements behind the reasons are in benchmarks/NOTES.md.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from universeg_rt.errors import InputError
from universeg_rt.spec import NetworkSpec

from . import (
    biases_in_constant,
    border_term,
    compose,
    compose_query,
    constant_through_target,
    dead_support_branch,
    mean_before_convolution,
    mean_through_upsampling,
    split_query_term,
    streamed_support,
)
from .folded import FoldedNetwork

# In this order: later folds rely on what earlier ones found.
FOLDS = (
    split_query_term,
    mean_before_convolution,
    dead_support_branch,
    mean_through_upsampling,
    compose,
    border_term,
    streamed_support,
)

# Of the static network, which is given each block's support term instead of a support; in this order.
STATIC_FOLDS = (constant_through_target, biases_in_constant, compose_query)

# A rewrite of how often something is computed, not of a block: some forms of the network take it, and the table's
# figures do not.
BY_FORM = {
    "prepared_support":
        "the first block's support term reads no query. prepare.onnx and predict.onnx (GPU runners) compute it once "
        "for each support and keep it, 4.2 MB an entry and ensemble member at 128x128 in float32; the stages and the "
        "native runner (CPUs) compute it anew for each query, a ninth of its time, and keep memory small",
}

NOT_TAKEN = {
    "upsampled_half_at_low_resolution":
        "a decoder's upsampled input could be convolved before it is interpolated, but with ONNX Runtime's operators "
        "that is no faster than the convolution it replaces",
    "late_activation":
        "LeakyReLU could be moved behind the max pool, but the activated full-resolution map is itself read, by its "
        "mean and by the skip connection",
}


def fold(spec: NetworkSpec, weights: Mapping[str, np.ndarray]) -> FoldedNetwork:
    """Fold a network by every fold in `FOLDS`; the result's notes say what was applied where, and why not elsewhere."""
    network = FoldedNetwork.from_weights(spec, weights)
    for module in FOLDS:
        network = module.apply(network)
    return network


def fold_static(network: FoldedNetwork) -> FoldedNetwork:
    """Fold what `fold` gave for its static form, by every fold in `STATIC_FOLDS`.

    Raises InputError for a network that has none: with an activation in the cross convolution a block's query path
    reads each support entry together with the query, not one term of the support.
    """
    if not all(block.mean_before_convolution for block in network.blocks):
        raise InputError(
            "a network with an activation in the cross convolution has no static form: its query reads every "
            "support entry anew; freeze it as exact")
    for module in STATIC_FOLDS:
        network = module.apply(network)
    return network
