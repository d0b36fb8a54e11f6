"""Compose: a block's two 3x3 convolutions of the support become one 5x5 where few channels come in.

    Ws * (Wv * v_i + q) + bs  =  (Ws∘Wv) * v_i + (Ws * q + bs),
    (Ws∘Wv)[o,c,y,x] = Σ_{m,a,b} Ws[o,m,a,b] Wv[m,c,y-a,x-b]

12 times less work in v1's first block (2 -> 64 channels). Exact inside the image; along the border see border_term.
Condition: no activation between the two convolutions, a living support branch, and fewer multiplications
(25·Cv < 9·Cv + 9·C).
"""

from __future__ import annotations

import numpy as np

from .folded import FoldedBlock, FoldedNetwork


def apply(network: FoldedNetwork) -> FoldedNetwork:
    def decide(net: FoldedNetwork, block: FoldedBlock):
        inputs, features = block.spec.support_channels, block.features
        if net.spec.cross_activation != "none":
            return None, "an activation stands between the two convolutions"
        if block.support_weight is None:
            return None, "the block has no second convolution (dead support branch)"
        pays, reason = composing_pays(inputs, features)
        if not pays:
            return None, reason
        return {"composed_weight": compose(block.support_weight, block.support_term_weight)}, reason

    return network.rewrite("compose", decide)


def composing_pays(inputs: int, features: int) -> tuple[bool, str]:
    """Whether one 5x5 convolution of `inputs` channels takes fewer multiplications than two 3x3, and by how much."""
    one, two = 25 * inputs, 9 * (inputs + features)
    if one < two:
        return True, f"{one} instead of {two} multiplications an output"
    return False, f"one 5x5 of {inputs} channels costs more than two 3x3 ({one} >= {two})"


def compose(second: np.ndarray, first: np.ndarray) -> np.ndarray:
    """Kernel of `second * (first * v)`: (C,M,a,b) and (M,Cv,c,d) -> (C,Cv,a+c-1,b+d-1), summed in float64.

    Kernels are those of cross-correlation, as every deep-learning library stores them.
    """
    height, width = first.shape[2:]
    out = np.zeros((second.shape[0], first.shape[1], second.shape[2] + height - 1, second.shape[3] + width - 1))
    for a in range(second.shape[2]):
        for b in range(second.shape[3]):
            out[:, :, a : a + height, b : b + width] += np.einsum(
                "om,mcyx->ocyx", second[:, :, a, b].astype(np.float64), first.astype(np.float64))
    return out.astype(second.dtype)
