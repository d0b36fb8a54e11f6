"""Mean before convolution: the query's path needs the mean of the support maps, never the maps.

    mean_i z_i  =  mean_i (Wv * v_i + q)  =  Wv * mean_i(v_i) + q

so one convolution of the mean replaces the mean of S convolutions; a weighted mean whose weights sum to 1 folds just
the same. Condition: no activation between the cross convolution and the mean (cross_activation "none").
"""

from __future__ import annotations

from .folded import FoldedBlock, FoldedNetwork


def apply(network: FoldedNetwork) -> FoldedNetwork:
    def decide(net: FoldedNetwork, _: FoldedBlock):
        if net.spec.cross_activation != "none":
            return None, "the mean is taken after an activation, and the mean of LeakyReLU is not LeakyReLU of the mean"
        return {"mean_before_convolution": True}, "no activation between cross convolution and mean"

    return network.rewrite("mean_before_convolution", decide)
