"""Biases in the constant: a static block's two biases join the constant map that it adds anyway.

    Wt * (Wu * u + b) + bt + Wt * m  =  Wt * (Wu * u) + c,      c = Wt * (b + m) + bt

Wt * b is no bias: along the border Wt sees zeros outside the image, where b is not, so it is a map like Wt * m. Neither
convolution has a bias then, and nothing stands between them. Condition: the constant is added behind the target
convolution.
"""

from __future__ import annotations

from .folded import FoldedBlock, FoldedNetwork


def apply(network: FoldedNetwork) -> FoldedNetwork:
    def decide(_: FoldedNetwork, block: FoldedBlock):
        if not block.constant_after_target:
            return None, "the block has no constant map behind its convolutions"
        return {"biases_in_constant": True}, "a bias is a constant map"

    return network.rewrite("biases_in_constant", decide)
