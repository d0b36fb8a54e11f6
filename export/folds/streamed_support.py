"""Streamed support: the support goes through a block a few entries at a time, so memory does not grow with S there.

Blocks exchange sums over the support (weighted means) and the per-entry maps that a later block reads. Both can be made
from any chunk of entries alone,

    mean_i x_i  =  Σ_chunks Σ_{i in chunk} w_i x_i,

so full-resolution maps exist for one chunk only; what is kept of each entry is its downsampled output and the skip
connections that a living support branch reads. Condition: the block has per-entry work.
"""

from __future__ import annotations

from .folded import FoldedBlock, FoldedNetwork


def apply(network: FoldedNetwork) -> FoldedNetwork:
    def decide(_: FoldedNetwork, block: FoldedBlock):
        if not block.reads_entries:
            return None, "the block reads only means, there is nothing left to stream"
        return {"streamed": True}, "entries meet only in weighted means"

    return network.rewrite("streamed_support", decide)
