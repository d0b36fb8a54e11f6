"""Mean through upsampling: a decoder's query path takes the mean of its support input at low resolution.

    mean_i (up(v_i) ‖ s_i)  =  up(mean_i v_i) ‖ mean_i s_i

Bilinear interpolation is linear in its input, so one map is upsampled instead of S. Where also the block's support
branch is dead, no per-entry map is upsampled or even kept. Condition: a decoder block with mean_before_convolution.
"""

from __future__ import annotations

from .folded import FoldedBlock, FoldedNetwork


def apply(network: FoldedNetwork) -> FoldedNetwork:
    def decide(_: FoldedNetwork, block: FoldedBlock):
        if not block.spec.is_decoder:
            return None, "an encoder block upsamples nothing"
        if not block.mean_before_convolution:
            return None, "the mean is taken of activated cross convolutions, not of the block's input"
        return {"mean_through_upsampling": True}, "upsampling is linear and only the mean is read"

    return network.rewrite("mean_through_upsampling", decide)
