"""Constant through the target convolution: what a frozen task adds to a block's query path is one map behind both
convolutions.

A static network (training/network/folded_forward.py, `static_logits`) is given each block's support term m, (C,h,w):

    u' = φ( Wt * (Wu * u + b + m) + bt )  =  φ( Wt * (Wu * u + b) + bt + c ),      c = Wt * m

m reads no query, so Wt * m is computed once a task and added where the activation reads; that also lets Wt and Wu meet
(compose_query.py). Condition: the block's support reaches its query through this term alone, which needs the mean
before the convolution.
"""

from __future__ import annotations

import numpy as np

from .folded import FoldedBlock, FoldedNetwork


def apply(network: FoldedNetwork) -> FoldedNetwork:
    def decide(_: FoldedNetwork, block: FoldedBlock):
        if not block.mean_before_convolution:
            return None, "an activation stands between the support's term and the mean: there is no constant map"
        return {"constant_after_target": True}, "convolution is linear"

    return network.rewrite("constant_through_target", decide)


def constant(block: FoldedBlock, term: np.ndarray) -> np.ndarray:
    """What the block's static form adds, (C,h,w), of its support term Wv * mean_i(v_i), (C,h,w), in the term's type."""
    if block.biases_in_constant:
        term = term + block.cross_bias[:, None, None].astype(term.dtype)
    if block.constant_after_target:
        term = _convolved(block.target_weight.astype(term.dtype), term)
    if block.biases_in_constant:
        term = term + block.target_bias[:, None, None].astype(term.dtype)
    return term


def _convolved(weight: np.ndarray, x: np.ndarray) -> np.ndarray:
    """3x3 convolution (C,M,3,3) of (M,h,w) with zeros around it: (C,h,w)."""
    height, width = x.shape[1:]
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1)))
    taps = np.stack([padded[:, y : y + height, z : z + width] for y in range(3) for z in range(3)], axis=1)
    return (weight.reshape(len(weight), -1) @ taps.reshape(-1, height * width)).reshape(-1, height, width)
