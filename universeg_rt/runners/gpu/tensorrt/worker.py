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
    """The engines that run the network together within one profile; prepare None: `predict` is the whole network.

    output: what `predict` gives, `logits` (B,K,1,H,W), or any other output, of a frozen task, (B,1,H,W).
    """

    def __init__(self, prepare: Engine | None, predict: Engine, profile: Profile, output: str = "logits") -> None:
        self.prepare, self.predict, self.profile, self.output = prepare, predict, profile, output


Tensors = dict[str, tuple[Buffer, tuple[int, ...]]]  # memory and shape by the name under which the network reads them


class Prepared:
    """What a support set became, on the device."""

    def __init__(self, network: Network, tensors: Tensors, sets: int, entries: int, size: tuple[int, int]) -> None:
        self.network, self.tensors, self.sets, self.entries, self.size = network, tensors, sets, entries, size

    def result_of(self, queries: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of the output for queries of this shape."""
        if self.network.output == "logits":
            return (queries[0], self.sets, 1, *self.size)
        return queries


SLOTS = 8  # shapes for which a thread keeps its buffers and graphs


@dataclass
class Captured:
    """How often a prepared support ran in a slot, its graph (None: there is none, or it cannot be captured), and the
    generation of scratch memory that the graph was captured in, or could not be (-1: it was not tried)."""

    runs: int = 0
    graph: Graph | None = None
    generation: int = -1


@dataclass(eq=False)
class Slot:
    """What one shape needs: a context of its own, since a captured graph may read what its context keeps of a shape;
    the query and the result in page-locked host memory; and every tensor on the device."""

    execution: Execution
    query: Array
    result: Array
    buffers: dict[str, Buffer]
    captured: weakref.WeakKeyDictionary[Prepared, Captured] = field(default_factory=weakref.WeakKeyDictionary)


class Worker:
    """Runs queries for one thread. failures: gets a line for every shape that cannot be captured as a graph."""

    def __init__(self, device: Device, graphs: bool, failures: list[str]) -> None:
        self._device, self._graphs, self._failures = device, graphs, failures
        self._stream = device.stream()
        self._scratch = Scratch(device, self._stream)
        self._executions: dict[int, Execution] = {}  # of engines that keep several shapes apart by themselves
        self._slots: OrderedDict[tuple[object, ...], Slot] = OrderedDict()

    def run(self, prepared: Prepared, queries: Floats) -> Floats:
        """The network's output, float32, of queries (B,1,H,W) within the profile. The result is the caller's own.

        A support that runs a shape a second time is captured then: one that is used once is not worth a capture.
        """
        with self._device.current():
            slot = self._slot(prepared, queries.shape)
            slot.query[...] = queries
            held = slot.captured.setdefault(prepared, Captured())
            if held.graph is not None and held.generation == self._scratch.generation:
                held.graph.launch(self._stream)
                self._stream.synchronize()
                return slot.result.astype(np.float32)
            self._run_plainly(prepared, slot)
            held.runs += 1
            if self._graphs and not slot.execution.engine.graphs_inside and held.runs > 1 \
                    and held.generation != self._scratch.generation:
                held.graph, held.generation = self._capture(prepared, slot), self._scratch.generation
            return slot.result.astype(np.float32)

    def run_in_parts(self, prepared: Prepared, queries: Floats) -> Floats:
        """`run` for any number of queries: more than the profile takes go one part after the other, fewer are filled
        up."""
        smallest, _, largest = prepared.network.profile.queries
        out = np.empty(prepared.result_of(queries.shape), np.float32)
        for start in range(0, len(queries), largest):
            part = queries[start : start + largest]
            count = len(part)
            if count < smallest:
                part = np.concatenate([part, np.repeat(part[-1:], smallest - count, axis=0)])
            out[start : start + count] = self.run(prepared, part)[:count]
        return out

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
        output, expected = prepared.network.output, prepared.result_of(shape)
        if outputs.get(output) != expected:
            raise EngineError(
                f"the engine {engine.name} gives {output} of shape {outputs.get(output)}, expected {expected}; it "
                "was not built from a model of this bundle")
        query = self._device.pinned(shape, engine.inputs["query"].dtype)
        result = self._device.pinned(expected, engine.outputs[output].dtype)
        buffers = {"query": self._device.allocate(query.nbytes, "the query")}
        for name, made in outputs.items():
            size = int(np.prod(made)) * engine.outputs[name].dtype.itemsize
            buffers[name] = self._device.allocate(size, name)
        slot = self._slots[key] = Slot(execution, query, result, buffers)
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
        self._device.download(slot.result, slot.buffers[prepared.network.output], self._stream)

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
