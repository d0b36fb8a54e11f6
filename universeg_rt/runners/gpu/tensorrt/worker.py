"""What one thread needs to run queries through an engine: a stream, contexts, buffers for its shapes, CUDA graphs."""

from __future__ import annotations

import weakref
from collections import OrderedDict
from dataclasses import dataclass, field

import numpy as np

from ....bundle.engine import Profile
from ....errors import EngineError, RunnerError
from ....named_types import Array, Floats
from ..cuda.device import Buffer, Device, Graph
from .engine import Engine, Execution, Scratch


class Network:
    """The engines that run the network together within one profile; prepare None: `predict` is the whole network."""

    def __init__(self, prepare: Engine | None, predict: Engine, profile: Profile) -> None:
        self.prepare, self.predict, self.profile = prepare, predict, profile


Tensors = dict[str, tuple[Buffer, tuple[int, ...]]]  # memory and shape by the name under which the network reads them


class Prepared:
    """What a support set became, on the device."""

    def __init__(self, network: Network, tensors: Tensors, sets: int, entries: int, size: tuple[int, int]) -> None:
        self.network, self.tensors, self.sets, self.entries, self.size = network, tensors, sets, entries, size

SLOTS = 8  # shapes for which a thread keeps its buffers and graphs


@dataclass(eq=False)
class Slot:
    """What one shape needs: a context of its own, since a captured graph may read what its context keeps of a shape;
    the query and the logits in page-locked host memory; and every tensor on the device."""

    execution: Execution
    query: Array
    logits: Array
    buffers: dict[str, Buffer]
    runs: int = 0
    # Of each prepared support: the graph (None: it cannot be captured) and the generation of scratch memory it holds
    # for.
    graphs: weakref.WeakKeyDictionary[Prepared, tuple[Graph | None, int]] = field(
        default_factory=weakref.WeakKeyDictionary)


class Worker:
    """Runs queries for one thread. failures: gets a line for every shape that cannot be captured as a graph."""

    def __init__(self, device: Device, graphs: bool, failures: list[str]) -> None:
        self._device, self._graphs, self._failures = device, graphs, failures
        self._stream = device.stream()
        self._scratch = Scratch(device, self._stream)
        self._executions: dict[int, Execution] = {}  # of engines that keep several shapes apart by themselves
        self._slots: OrderedDict[tuple[object, ...], Slot] = OrderedDict()

    def run(self, prepared: Prepared, queries: Floats) -> Floats:
        """Logits (B,K,1,H,W) float32 of queries (B,1,H,W) within the profile. The result is the caller's own."""
        with self._device.current():
            slot = self._slot(prepared, queries.shape)
            slot.query[...] = queries
            graph, generation = slot.graphs.get(prepared, (None, -1))
            if graph is not None and generation == self._scratch.generation:
                graph.launch(self._stream)
                self._stream.synchronize()
                return slot.logits.astype(np.float32)
            self._run_plainly(prepared, slot)
            slot.runs += 1
            if self._graphs and not slot.execution.engine.graphs_inside and slot.runs > 1 \
                    and generation != self._scratch.generation:
                slot.graphs[prepared] = (self._capture(prepared, slot), self._scratch.generation)
            return slot.logits.astype(np.float32)

    def _slot(self, prepared: Prepared, shape: tuple[int, ...]) -> Slot:
        engine = prepared.network.predict
        key = (id(engine), shape, prepared.sets, prepared.entries)
        if key in self._slots:
            self._slots.move_to_end(key)
            return self._slots[key]
        while len(self._slots) >= SLOTS:
            self._slots.popitem(last=False)
        execution = self._execution(engine)
        outputs = execution.set_shapes(self._shapes(prepared, shape))
        expected = (shape[0], prepared.sets, 1, *shape[2:])
        if outputs.get("logits") != expected:
            raise EngineError(
                f"the engine {engine.name} gives logits of shape {outputs.get('logits')}, expected {expected}; it "
                "was not built from a model of this bundle")
        query = self._device.pinned(shape, engine.inputs["query"].dtype)
        logits = self._device.pinned(expected, engine.outputs["logits"].dtype)
        buffers = {"query": self._device.allocate(query.nbytes, "the query")}
        for name, output in outputs.items():
            size = int(np.prod(output)) * engine.outputs[name].dtype.itemsize
            buffers[name] = self._device.allocate(size, name)
        slot = self._slots[key] = Slot(execution, query, logits, buffers)
        return slot

    def _execution(self, engine: Engine) -> Execution:
        if not engine.graphs_inside:
            return engine.execution(self._stream, self._scratch)
        if id(engine) not in self._executions:
            self._executions[id(engine)] = engine.execution(self._stream, self._scratch)
        return self._executions[id(engine)]

    @staticmethod
    def _shapes(prepared: Prepared, shape: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
        return {"query": shape, **{name: of for name, (_, of) in prepared.tensors.items()}}

    def _enqueue(self, prepared: Prepared, slot: Slot) -> None:
        self._device.upload(slot.buffers["query"], slot.query, self._stream)
        slot.execution.enqueue({**{name: buffer.address for name, (buffer, _) in prepared.tensors.items()},
                                **{name: buffer.address for name, buffer in slot.buffers.items()}})
        self._device.download(slot.logits, slot.buffers["logits"], self._stream)

    def _run_plainly(self, prepared: Prepared, slot: Slot) -> None:
        slot.execution.set_shapes(self._shapes(prepared, slot.query.shape))
        try:
            self._enqueue(prepared, slot)
        finally:
            self._stream.synchronize()  # nothing of ours is in use when the buffers may go

    def _capture(self, prepared: Prepared, slot: Slot) -> Graph | None:
        """After a run of the same shapes, which leaves nothing to set up."""
        try:
            return self._device.capture(self._stream, lambda: self._enqueue(prepared, slot))
        except RunnerError as error:
            self._failures.append(f"{slot.execution.engine.name}, queries {slot.query.shape}: {error}")
            return None
