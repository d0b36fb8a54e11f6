"""Split query term: the query's share of the cross convolution is computed once a query, not once a support entry.

    W * (u ‖ v_i) + b  =  Wv * v_i + q,    q = Wu * u + b,    W = [Wu | Wv]

The query's channels come first in W. Condition: none, convolution is linear in its input channels.
"""

from __future__ import annotations

from .folded import FoldedBlock, FoldedNetwork


def apply(network: FoldedNetwork) -> FoldedNetwork:
    def decide(_: FoldedNetwork, block: FoldedBlock):
        channels = block.spec.query_channels
        return {
            "query_term_weight": block.cross_weight[:, :channels],
            "support_term_weight": block.cross_weight[:, channels:],
        }, "always holds"

    return network.rewrite("split_query_term", decide)
