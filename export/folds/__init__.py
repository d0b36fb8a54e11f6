"""The exact rewrites of a UniverSeg network, one a file; each states its algebra and its condition.

Rewrites which hold as well but are not taken, with the reason, are listed in `NOT_TAKEN`; the measurements behind the
reasons are in benchmarks/NOTES.md.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from universeg_rt.spec import NetworkSpec

from ..folded import FoldedNetwork
from . import (
    border_term,
    compose,
    dead_support_branch,
    mean_before_convolution,
    mean_through_upsampling,
    split_query_term,
    streamed_support,
)

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

NOT_TAKEN: dict[str, str] = {}


def fold(spec: NetworkSpec, weights: Mapping[str, np.ndarray]) -> FoldedNetwork:
    """Fold a network by every fold in `FOLDS`; the result's notes say what was applied where, and why not elsewhere."""
    network = FoldedNetwork.from_weights(spec, weights)
    for module in FOLDS:
        network = module.apply(network)
    return network
