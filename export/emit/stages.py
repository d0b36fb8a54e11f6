"""The network as a sequence of small ONNX models, through which a runner streams one support set for one query.

Tensors are handed from stage to stage by name. A tensor whose first dimension is called "S" has a map for each support
entry; a stage that reads one is run chunk by chunk over S, and what it makes without "S" in front are that chunk's share
of a weighted mean: the runner adds the shares up. The runner needs to know nothing else of the network.

Given: `query` (1,1,H,W); `support` (S,2,H,W), image and label; `weights` (S,), summing to 1. Asked for: `logits` (1,1,H,W).
These and the shares of means are float32 in a float16 network too; all else that is handed on has the network's type, but
for entries' maps that an int8 convolution reads: these are handed on as its integers, in a quarter of the memory.
A stage that depends on the support alone is run once a support set, one that depends on the query alone once a query.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx

from ..folds.folded import FoldedBlock, FoldedNetwork
from ..int8.quantise import Quantisation
from . import layers
from .graph import GraphBuilder
from .layers import Layout


@dataclass(frozen=True)
class Stage:
    """One step: its name, in the order of the list, and its model."""

    name: str
    model: onnx.ModelProto


def emit_stages(network: FoldedNetwork, metadata: dict[str, str], version: str, dtype: type = np.float32,
                quantisation: Quantisation | None = None) -> list[Stage]:
    """Emit all stages in the order in which they run."""
    return _Emitter(network, metadata, version, dtype, quantisation).emit()


_ONE, _CHUNK = Layout(1, 1), Layout(1, 1, -1)


class _Emitter:
    def __init__(self, network, metadata, version, dtype, quantisation) -> None:
        self.network, self.metadata, self.version, self.dtype = network, metadata, version, dtype
        self.quantisation = None if quantisation is None else quantisation.for_cpu_kernels()
        self.stages: list[Stage] = []

    def emit(self) -> list[Stage]:
        first = self.network.blocks[0]
        if first.mean_before_convolution:
            self._input_mean()
        for block in self.network.blocks:
            if block.mean_before_convolution:
                self._mean_first_block(block)
            else:
                self._activated_block(block)
        return self.stages

    # One block ----------------------------------------------------------------------------------------------------

    def _mean_first_block(self, block: FoldedBlock) -> None:
        """The query's path needs only the mean of the block's input; the entries follow."""
        label, alive = layers.block_label(block), block.support_weight is not None
        first = block is self.network.blocks[0]
        if first:  # apart, since it is the same for all members of an ensemble
            g = self._graph()
            q = layers.query_term(g, block, self._query_in(g, block))
            self._out(g, q, f"{label}.query_term", 1, block)
            if alive:
                self._out(g, layers.support_query_term(g, block, q), f"{label}.term", 1, block)
            self._close(g, f"{label}.term")
        g = self._graph()
        if first:
            q = g.input(f"{label}.query_term", [1, block.features, *self._size(block)])
        else:
            q = layers.query_term(g, block, self._query_in(g, block))
            if alive:
                self._out(g, layers.support_query_term(g, block, q), f"{label}.term", 1, block)
        mean_z = g.node("Add", [q, layers.mean_cross_term(g, block, self._mean_in(g, block))], f"{label}/mean_z")
        self._query_out(g, block, layers.target(g, self.network, block, mean_z))
        self._close(g, f"{label}.query")
        if alive:
            self._support(block)

    def _activated_block(self, block: FoldedBlock) -> None:
        """The entries come first: the query's path goes on from the mean of their activated cross convolutions."""
        label = layers.block_label(block)
        g = self._graph()
        self._out(g, layers.query_term(g, block, self._query_in(g, block)), f"{label}.term", 1, block)
        self._close(g, f"{label}.term")
        self._support(block)
        g = self._graph()
        mean_z = g.narrow(g.input(f"{label}.mean", [1, block.features, *self._size(block)], wide=True), f"{label}/mean_z")
        self._query_out(g, block, layers.target(g, self.network, block, mean_z))
        self._close(g, f"{label}.query")

    def _support(self, block: FoldedBlock) -> None:
        label, g = layers.block_label(block), self._graph()
        v = self._entries_in(g, block)
        term = g.input(f"{label}.term", [1, block.features, *self._size(block)])
        weights = g.reshape(g.input("weights", ["S"], wide=True), "weights/row", [1, -1])
        out = layers.support_step(g, self.network, block, v, term, weights, _CHUNK, _ONE)
        self._out(g, out.mean, f"{label}.mean", 1, block, wide=True)
        if out.down is not None:
            self._entries_out(g, out.down, f"{label}.entries_down", block, below=1)
        if out.down_mean is not None:
            self._out(g, out.down_mean, f"{label}.mean_down", 1, block, below=1, wide=True)
        if out.entries is not None and layers.entries_are_read(self.network, block):
            self._entries_out(g, out.entries, f"{label}.entries", block)
        self._close(g, f"{label}.support")

    def _input_mean(self) -> None:
        g = self._graph()
        support = g.input("support", ["S", 2, "H0", "W0"], wide=True)
        row = g.reshape(g.input("weights", ["S"], wide=True), "weights/row", [1, -1])
        matrix = g.reshape(support, "support/matrix", [g.shape(support, "support/entries", 0, 1), -1])
        mean = g.reshape(g.node("MatMul", [row, matrix], "mean/product"), "mean", [1, g.shape(support, "support/image", 1)])
        g.output(mean, "support.mean", [1, 2, "H0", "W0"], wide=True)
        self._close(g, "support.mean")

    # Where a block's inputs come from and its outputs go ------------------------------------------------------------

    def _query_in(self, g: GraphBuilder, block: FoldedBlock) -> str:
        if block is self.network.blocks[0]:
            return self._given(g, "query", [1, 1, "H0", "W0"])
        return self._chained(g, block, "query", 1)

    def _mean_in(self, g: GraphBuilder, block: FoldedBlock) -> str:
        if block is self.network.blocks[0]:
            return self._given(g, "support.mean", [1, 2, "H0", "W0"])
        mean = self._chained(g, block, "mean", 1, wide=True)
        return g.narrow(mean, f"{layers.block_label(block)}/mean_in_narrow")

    def _entries_in(self, g: GraphBuilder, block: FoldedBlock) -> str:
        if block is self.network.blocks[0]:
            return self._given(g, "support", ["S", 2, "H0", "W0"])
        return self._chained(g, block, "entries", "S")

    @staticmethod
    def _given(g: GraphBuilder, name: str, shape: list) -> str:
        return g.narrow(g.input(name, shape, wide=True), f"{name}/narrow")

    def _chained(self, g: GraphBuilder, block: FoldedBlock, what: str, first: int | str, wide: bool = False) -> str:
        """The previous block's output: downsampled for an encoder block, upsampled ‖ skip for a decoder block."""
        blocks, label = self.network.blocks, layers.block_label(block)
        previous = blocks[blocks.index(block) - 1]
        before = layers.block_label(previous)
        if not block.spec.is_decoder:
            scale = self._scale(previous, below=1) if first == "S" else None
            return self._in(g, f"{before}.{what}_down", [first, previous.features, *self._size(block)], wide, scale)
        x = g.input(f"{before}.{what}", [first, previous.features, *self._size(previous)], wide=wide)
        skip = self.network.encoder[block.spec.level]
        scale = self._scale(skip) if first == "S" else None
        skip_in = self._in(g, f"{layers.block_label(skip)}.{what}", [first, skip.features, *self._size(block)], wide, scale)
        return g.concat([g.upsample(x, f"{label}/{what}_up"), skip_in], f"{label}/{what}_in")

    def _entries_out(self, g: GraphBuilder, tensor: str, name: str, block: FoldedBlock, below: int = 0) -> None:
        scale = self._scale(block, below)
        if scale is not None:
            tensor = g.to_integers(tensor, name, scale)
        g.output(tensor, name, ["S", block.features, *self._size(block, below)], integers=scale is not None)

    @staticmethod
    def _in(g: GraphBuilder, name: str, shape: list, wide: bool, scale: np.float32 | None) -> str:
        if scale is None:
            return g.input(name, shape, wide=wide)
        return g.from_integers(g.input(name, shape, integers=True), name, scale)

    def _scale(self, block: FoldedBlock, below: int = 0) -> np.float32 | None:
        """Scale of the int8 convolution that reads a block's entries (or downsampled ones) directly; None without one."""
        network = self.network
        if self.quantisation is None:
            return None
        if below:
            reader = network.blocks[network.blocks.index(block) + 1]
        elif block.spec.is_decoder or block is network.encoder[-1]:
            return None  # upsampled first
        else:
            reader = network.decoder[len(network.decoder) - 1 - block.spec.level]
        scale = self.quantisation.inputs.get(f"{reader.label}/support_term")
        return None if scale is None else np.float32(scale)

    def _query_out(self, g: GraphBuilder, block: FoldedBlock, u: str) -> None:
        label = layers.block_label(block)
        if block is self.network.blocks[-1]:
            logits = g.conv(u, "head", self.network.head_weight, self.network.head_bias)
            g.output(g.widen(logits, "head/wide"), "logits", [1, 1, *self._size(block)], wide=True)
            return
        self._out(g, u, f"{label}.query", 1, block)
        if layers.is_downsampled(self.network, block):
            down = g.downsample(u, f"{label}/query_down", self.network.spec.downsample)
            self._out(g, down, f"{label}.query_down", 1, block, below=1)

    # Small things ---------------------------------------------------------------------------------------------------

    def _graph(self) -> GraphBuilder:
        return GraphBuilder(self.dtype, wide_means=True, quantisation=self.quantisation)

    def _size(self, block: FoldedBlock, below: int = 0) -> list[str]:
        level = block.spec.level + below
        return [f"H{level}", f"W{level}"]

    def _out(self, g, tensor: str, name: str, first: int | str, block: FoldedBlock, below: int = 0, wide: bool = False) -> None:
        g.output(tensor, name, [first, block.features, *self._size(block, below)], wide)

    def _close(self, g: GraphBuilder, name: str) -> None:
        metadata = {**self.metadata, "universeg.kind": f"stage:{name}"}
        self.stages.append(Stage(name, g.model(name, metadata, self.version)))
