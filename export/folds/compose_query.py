"""Compose the query's convolutions: a static block's two 3x3 convolutions become one 5x5 where few channels come in.

    Wt * (Wu * u)  =  (Wt∘Wu) * u

as in compose.py, exact along the border by kernels of the outermost pixels as in border_term.py. In v1's first block (1
-> 64 channels) that saves a fifth of the whole static network; on ONNX Runtime it saves more than its slices cost.
Condition: nothing stands between the two convolutions, and fewer multiplications (25·Cu < 9·Cu + 9·C).
"""

from __future__ import annotations

from .border_term import border_kernels
from .compose import compose, composing_pays
from .folded import FoldedBlock, FoldedNetwork


def apply(network: FoldedNetwork) -> FoldedNetwork:
    def decide(_: FoldedNetwork, block: FoldedBlock):
        if not block.biases_in_constant:
            return None, "something stands between the query's two convolutions"
        pays, reason = composing_pays(block.spec.query_channels, block.features)
        if not pays:
            return None, reason
        return {"query_composed_weight": compose(block.target_weight, block.query_term_weight),
                "query_border_kernels": border_kernels(block.target_weight, block.query_term_weight)}, reason

    return network.rewrite("compose_query", decide)
