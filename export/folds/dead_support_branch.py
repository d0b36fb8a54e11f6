"""Dead support branch: the last decoder block's support output v'_i = φ(Ws * z_i + bs) is read by nothing.

Condition: the block is the network's last. Its z_i are still needed for their mean unless mean_before_convolution
holds.
"""

from __future__ import annotations

from .folded import FoldedBlock, FoldedNetwork


def apply(network: FoldedNetwork) -> FoldedNetwork:
    def decide(_: FoldedNetwork, block: FoldedBlock):
        if not block.spec.is_last:
            return None, "a later block reads this block's support output"
        return {"support_weight": None, "support_bias": None}, "nothing reads the last block's support output"

    return network.rewrite("dead_support_branch", decide)
