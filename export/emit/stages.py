"""The network as a sequence of small ONNX models, through which a runner streams one support set for one query.

Tensors are handed from stage to stage by name. A tensor whose first dimension is called "S" has a map for each support
entry; a stage that reads one is run chunk by chunk over S, and what it makes without "S" in front are that chunk's
share of a weighted mean: the runner adds the shares up. The runner needs to know nothing else of the network.

Given: `query` (1,1,H,W); `support` (S,2,H,W), image and label; `weights` (S,), summing to 1. Asked for: `logits`
(1,1,H,W).
These and the shares of means are float32 in a float16 network too; all else that is handed on has the network's type,
but for entries' maps that an int8 convolution reads: these are handed on as its integers, in a quarter of the memory.
A stage that depends on the support alone is run once a support set, one that depends on the query alone once a query.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx

from universeg_rt.spec import HALVED, QUERY_CHANNELS, SAME, SUPPORT_CHANNELS

from ..folds.folded import FoldedBlock, FoldedNetwork
from . import layers
from .graph import GraphBuilder
from .layers import Layout
from .quantise import Quantisation


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
        if self.network.blocks[0].mean_before_convolution:
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
        label, alive = block.label, block.support_weight is not None
        first = block.spec.is_first
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
        label = block.label
        g = self._graph()
        self._out(g, layers.query_term(g, block, self._query_in(g, block)), f"{label}.term", 1, block)
        self._close(g, f"{label}.term")
        self._support(block)
        g = self._graph()
        mean_z = g.narrow(g.input(f"{label}.mean", [1, block.features, *self._size(block)], wide=True),
                          f"{label}/mean_z")
        self._query_out(g, block, layers.target(g, self.network, block, mean_z))
        self._close(g, f"{label}.query")

    def _support(self, block: FoldedBlock) -> None:
        label, g = block.label, self._graph()
        v = self._entries_in(g, block)
        term = g.input(f"{label}.term", [1, block.features, *self._size(block)])
        weights = g.reshape(g.input("weights", ["S"], wide=True), "weights/row", [1, -1])
        out = layers.support_step(g, self.network, block, v, term, weights, _CHUNK, _ONE)
        self._out(g, out.mean, f"{label}.mean", 1, block, wide=True)
        if out.entries_down is not None:
            self._entries_out(g, out.entries_down, f"{label}.entries_down", block, below=1)
        if out.mean_down is not None:
            self._out(g, out.mean_down, f"{label}.mean_down", 1, block, below=1, wide=True)
        if out.entries is not None and self.network.entries_are_read(block):
            self._entries_out(g, out.entries, f"{label}.entries", block)
        self._close(g, f"{label}.support")

    def _input_mean(self) -> None:
        g = self._graph()
        support = g.input("support", ["S", SUPPORT_CHANNELS, "H0", "W0"], wide=True)
        row = g.reshape(g.input("weights", ["S"], wide=True), "weights/row", [1, -1])
        matrix = g.reshape(support, "support/matrix", [g.shape(support, "support/entries", 0, 1), -1])
        mean = g.reshape(g.node("MatMul", [row, matrix], "mean/product"), "mean",
                         [1, g.shape(support, "support/image", 1)])
        g.output(mean, "support.mean", [1, SUPPORT_CHANNELS, "H0", "W0"], wide=True)
        self._close(g, "support.mean")

    # Where a block's inputs come from and its outputs go ------------------------------------------------------------

    def _query_in(self, g: GraphBuilder, block: FoldedBlock) -> str:
        if block.spec.is_first:
            return self._given(g, "query", [1, QUERY_CHANNELS, "H0", "W0"])
        return self._chained(g, block, "query", 1)

    def _mean_in(self, g: GraphBuilder, block: FoldedBlock) -> str:
        if block.spec.is_first:
            return self._given(g, "support.mean", [1, SUPPORT_CHANNELS, "H0", "W0"])
        mean = self._chained(g, block, "mean", 1, wide=True)
        return g.narrow(mean, f"{block.label}/mean_in_narrow")

    def _entries_in(self, g: GraphBuilder, block: FoldedBlock) -> str:
        if block.spec.is_first:
            return self._given(g, "support", ["S", SUPPORT_CHANNELS, "H0", "W0"])
        return self._chained(g, block, "entries", "S")

    @staticmethod
    def _given(g: GraphBuilder, name: str, shape: list) -> str:
        return g.narrow(g.input(name, shape, wide=True), f"{name}/narrow")

    def _chained(self, g: GraphBuilder, block: FoldedBlock, what: str, first: int | str, wide: bool = False) -> str:
        """The outputs of the block's sources, resized as it reads them, one after the other."""
        maps = []
        for source, edge in zip(self.network.sources(block), block.spec.sources):
            below = int(edge.resize == HALVED)
            scale = self._scale(source, below) if first == "S" else None
            name = f"{source.label}.{what}" + "_down" * below
            x = self._in(g, name, [first, source.features, *self._size(source, below)], wide, scale)
            maps.append((x, edge.resize))
        return layers.joined(g, maps, f"{block.label}/{what}_in", f"{block.label}/{what}_up")

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
        """Scale of the int8 convolution that reads a block's (downsampled) entries directly; None without one."""
        resize = HALVED if below else SAME  # a doubled map is interpolated first
        readers = [self.network.blocks[edge.block] for edge in block.spec.readers if edge.resize == resize]
        if self.quantisation is None or not readers:
            return None
        scale = self.quantisation.inputs.get(f"{readers[0].label}/support_term")
        return None if scale is None else np.float32(scale)

    def _query_out(self, g: GraphBuilder, block: FoldedBlock, u: str) -> None:
        label = block.label
        if block.spec.is_last:
            logits = g.conv(u, "head", self.network.head_weight, self.network.head_bias)
            g.output(g.widen(logits, "head/wide"), "logits", [1, 1, *self._size(block)], wide=True)
            return
        self._out(g, u, f"{label}.query", 1, block)
        if block.spec.is_halved:
            down = g.downsample(u, f"{label}/query_down", self.network.spec.downsample)
            self._out(g, down, f"{label}.query_down", 1, block, below=1)

    # Small things ---------------------------------------------------------------------------------------------------

    def _graph(self) -> GraphBuilder:
        return GraphBuilder(self.dtype, wide_means=True, quantisation=self.quantisation)

    def _size(self, block: FoldedBlock, below: int = 0) -> list[str]:
        level = block.spec.level + below
        return [f"H{level}", f"W{level}"]

    def _out(self, g, tensor: str, name: str, first: int | str, block: FoldedBlock, below: int = 0,
             wide: bool = False) -> None:
        g.output(tensor, name, [first, block.features, *self._size(block, below)], wide)

    def _close(self, g: GraphBuilder, name: str) -> None:
        metadata = {**self.metadata, "universeg.kind": f"stage:{name}"}
        self.stages.append(Stage(name, g.model(name, metadata, self.version)))
