"""FoldedNetwork: the value that the folds rewrite and the emitter reads; plain arrays and facts, no ONNX, no
PyTorch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from universeg_rt.spec import BlockSpec, NetworkSpec


@dataclass(frozen=True)
class BorderKernels:
    """What a composed 5x5 kernel becomes on the outermost pixels (folds/border_term.py).

    A kernel of an edge or corner has only the taps that lie inside the image: top and bottom (C,Cv,3,5), left and right
    (C,Cv,5,3), corners (C,Cv,3,3).
    """

    top: np.ndarray
    bottom: np.ndarray
    left: np.ndarray
    right: np.ndarray
    top_left: np.ndarray
    top_right: np.ndarray
    bottom_left: np.ndarray
    bottom_right: np.ndarray


@dataclass(frozen=True)
class FoldedBlock:
    """One CrossBlock and what the folds made of it. Weights are (out, in, height, width), biases (out,).

    A field that is None or False belongs to a fold that has not been applied (or does not apply) to this block.
    """

    spec: BlockSpec
    cross_weight: np.ndarray
    cross_bias: np.ndarray
    target_weight: np.ndarray
    target_bias: np.ndarray
    support_weight: np.ndarray | None  # None: dead_support_branch
    support_bias: np.ndarray | None
    query_term_weight: np.ndarray | None = None  # split_query_term: (C,Cu,3,3)
    support_term_weight: np.ndarray | None = None  # split_query_term: (C,Cv,3,3)
    mean_before_convolution: bool = False
    mean_through_upsampling: bool = False
    composed_weight: np.ndarray | None = None  # compose: (C,Cv,5,5)
    border_kernels: BorderKernels | None = None  # border_term
    streamed: bool = False
    constant_after_target: bool = False  # constant_through_target
    biases_in_constant: bool = False  # biases_in_constant
    query_composed_weight: np.ndarray | None = None  # compose_query: (C,Cu,5,5)
    query_border_kernels: BorderKernels | None = None  # compose_query

    @property
    def label(self) -> str:
        return self.spec.label

    @property
    def features(self) -> int:
        return self.spec.features

    @property
    def reads_entries(self) -> bool:
        """Whether the block reads the support entries' maps, not just their mean."""
        return self.support_weight is not None or not self.mean_before_convolution


@dataclass(frozen=True)
class FoldNote:
    """What one fold did on one block: applied, or the reason why not."""

    fold: str
    block: str
    applied: bool
    reason: str


@dataclass(frozen=True)
class FoldedNetwork:
    """A network's specification, its blocks in order, its head, and a note of every fold tried."""

    spec: NetworkSpec
    blocks: tuple[FoldedBlock, ...]
    head_weight: np.ndarray
    head_bias: np.ndarray
    notes: tuple[FoldNote, ...] = ()

    @classmethod
    def from_weights(cls, spec: NetworkSpec, weights: Mapping[str, np.ndarray]) -> FoldedNetwork:
        """The unfolded network; `weights` are those of `NetworkSpec.weight_shapes`, in float32 or float64."""
        blocks = []
        for block in spec.blocks():
            conv = {
                part: (weights[f"{block.name}.{key}.weight"], weights[f"{block.name}.{key}.bias"])
                for part, key in (("cross", "cross.cross_conv"), ("target", "target.vmapped.conv"),
                                  ("support", "support.vmapped.conv"))
            }
            blocks.append(FoldedBlock(block, *conv["cross"], *conv["target"], *conv["support"]))
        return cls(spec, tuple(blocks), weights["out_conv.conv.weight"], weights["out_conv.conv.bias"])

    def sources(self, block: FoldedBlock) -> tuple[FoldedBlock, ...]:
        """The blocks that `block` reads, in the order of its input channels."""
        return tuple(self.blocks[edge.block] for edge in block.spec.sources)

    def entries_are_read(self, block: FoldedBlock) -> bool:
        """Whether a block reads this one's entries before any halving, not just their mean."""
        return any(self.blocks[i].reads_entries for i in block.spec.full_readers)

    def rewrite(self, fold: str, decide) -> FoldedNetwork:
        """Apply `decide(network, block) -> (changed fields or None, reason)` to every block and note the outcome."""
        blocks, notes = [], []
        for block in self.blocks:
            changes, reason = decide(self, block)
            blocks.append(block if changes is None else replace(block, **changes))
            notes.append(FoldNote(fold, block.spec.name, changes is not None, reason))
        return replace(self, blocks=tuple(blocks), notes=self.notes + tuple(notes))
