"""Streams a support through a bundle's stages, whatever engine runs them: full-resolution maps exist for one chunk at a
time.

What stages are is written in `universeg_rt.export.emit.stages`. A backend gives a session for a model and values for
arrays (`StagedRunner._session`, `_value`, `_array`); the order of work, the chunks and the sums of
the means are here, once.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ...bundle.bundle import Bundle
from ...bundle.model_bytes import ModelBytes
from ...errors import BundleError, RunnerError, first_line
from ...named_types import Floats, Vendor
from ..base import Runner
from ..options import Options
from ..threads import cores

# Entries in a chunk times pixels of an image; measured, see benchmarks/NOTES.md.
CHUNK_PIXELS = 4 * 128 * 128

SUPPORT, QUERY = "support", "query"
Tensors = dict[str, Any]  # the engine's values by name; of what has a map for each entry, a list of chunks


class StageSession(ABC):
    """One stage loaded by an engine, safe to call from several threads at once.

    inputs: shape by name in the model's order, None for a dimension that may have any size; outputs: names.
    """

    inputs: Mapping[str, tuple[int | None, ...]]
    outputs: tuple[str, ...]

    @abstractmethod
    def run(self, feed: Mapping[str, Vendor]) -> list[Vendor]:
        """Values of all outputs, in order; what it raises is the engine's own."""


@dataclass(frozen=True)
class _Stage:
    """A stage's session and the names of its tensors; those in `per_entry` have a map for each support entry."""

    name: str
    session: StageSession
    per_entry: frozenset[str]
    needs: frozenset[str]  # of {SUPPORT, QUERY}: what its result depends on
    last_use: frozenset[str]  # inputs that no later stage of the same run reads

    @property
    def is_chunked(self) -> bool:
        return any(name in self.per_entry for name in self.session.inputs)


class StagedRunner(Runner):
    """A runner whose engine is given by a subclass; `engine` is its name in messages.

    Fitted to measured peaks (benchmarks/NOTES.md), for `peak_bytes`: process_bytes of the process with its libraries;
    chunk_maps, full-resolution maps for each entry of a chunk; query_maps, those for the query.
    """

    engine: ClassVar[str]
    process_bytes: ClassVar[float]
    chunk_maps: ClassVar[float]
    query_maps: ClassVar[float]

    def __init__(self, stages: Sequence[tuple[str, ModelBytes]], threads: int | None = None) -> None:
        """stages: names and models in order. threads: of each operator (default: one a core).

        Raises RunnerError where the engine is missing or refuses a model.
        """
        self.threads = threads or cores()
        self.model_bytes = ModelBytes.bytes_in_all(model for _, model in stages)
        self._start()
        self._stages = self._load(stages)
        shapes = [shape for stage in self._stages for shape in stage.session.inputs.values()]
        self._features = max((shape[1] or 0 for shape in shapes if len(shape) > 1), default=1)

    @classmethod
    def open(cls, bundle: Bundle, precision: str, options: Options) -> StagedRunner:
        precision = "fp32" if precision == "auto" else precision
        runner = cls(bundle.load_stages(precision), options.threads)
        runner.precision = precision
        return runner

    def peak_bytes(self, support_size: int, members: int, height: int, width: int) -> int:
        # The process and its models; the support, ours and the caller's; what is kept of each entry between blocks; and
        # full-resolution maps.
        pixels = height * width
        full_map = self._features * pixels * 4
        chunk = min(support_size, max(1, CHUNK_PIXELS // pixels))
        return int(self.process_bytes + 2 * self.model_bytes + 2 * members * support_size * 2 * pixels * 4
                   + 0.55 * full_map * support_size + full_map * (self.chunk_maps * chunk + self.query_maps))

    # What an engine gives -----------------------------------------------------------------------------------------

    @abstractmethod
    def _start(self) -> None:
        """Import the engine, or raise RunnerError with the cure; `threads` is set."""

    @abstractmethod
    def _session(self, model: ModelBytes) -> StageSession:
        """Load one stage; what it raises is the engine's own."""

    @abstractmethod
    def _value(self, array: Floats) -> Vendor:
        """The engine's value of an array; it may share the array's memory, which then nobody changes."""

    @abstractmethod
    def _array(self, value: Vendor) -> Floats:
        """The array of a value; it may share the value's memory."""

    # The contract -------------------------------------------------------------------------------------------------

    def _prepare(self, support: Floats, weights: Floats) -> list[Tensors]:
        chunk = max(1, CHUNK_PIXELS // (support.shape[3] * support.shape[4]))
        sets = []
        for entries, row in zip(support, weights):
            used = row != 0  # entries of no weight pad the array; they change nothing
            entries, row = entries[used], row[used]
            tensors = {
                SUPPORT: [self._value(entries[i : i + chunk]) for i in range(0, len(entries), chunk)],
                "weights": [self._value(row[i : i + chunk]) for i in range(0, len(row), chunk)],
            }
            self._go(tensors, {SUPPORT}, keep=True)
            sets.append(tensors)
        return sets

    def _run(self, sets: list[Tensors], queries: Floats) -> Floats:
        out = np.empty((len(queries), len(sets), 1, *queries.shape[2:]), np.float32)
        for b, query in enumerate(queries):
            of_query = {QUERY: self._value(query[None])}
            self._go(of_query, {QUERY}, keep=True)
            for k, of_support in enumerate(sets):
                tensors = {**of_support, **of_query}
                self._go(tensors, {SUPPORT, QUERY}, keep=False)
                out[b, k] = self._array(tensors["logits"])[0]
        return out

    # Running stages -----------------------------------------------------------------------------------------------

    def _go(self, tensors: Tensors, needs: set[str], keep: bool) -> None:
        """Run every stage that depends on exactly `needs`; tensors by name, per-entry ones as lists of chunks."""
        for stage in self._stages:
            if stage.needs != needs:
                continue
            if stage.is_chunked:
                self._run_chunks(stage, tensors, keep)
            else:
                feed = {name: tensors[name] for name in stage.session.inputs}
                tensors.update(zip(stage.session.outputs, self._call(stage, feed), strict=True))
            if not keep:
                for name in stage.last_use:
                    tensors.pop(name, None)

    def _run_chunks(self, stage: _Stage, tensors: Tensors, keep: bool) -> None:
        inputs, outputs = stage.session.inputs, stage.session.outputs
        chunked = [name for name in inputs if name in stage.per_entry]
        whole = {name: tensors[name] for name in inputs if name not in stage.per_entry}
        # Lists of our own: a chunk which nothing reads again is let go as soon as it has been read.
        lists = {name: list(tensors[name]) for name in chunked}
        if not keep:
            for name in stage.last_use & set(chunked):
                del tensors[name]
        sums: dict[str, Floats] = {}
        made: dict[str, list[Vendor]] = {name: [] for name in outputs if name in stage.per_entry}
        for i in range(len(lists[chunked[0]])):
            feed = {**whole, **{name: lists[name][i] for name in chunked}}
            for name in chunked:
                lists[name][i] = None
            for name, value in zip(outputs, self._call(stage, feed), strict=True):
                if name in made:
                    made[name].append(value)
                elif name in sums:
                    sums[name] += self._array(value)
                else:
                    sums[name] = np.array(self._array(value))
        tensors.update(made)
        tensors.update({name: self._value(total) for name, total in sums.items()})

    def _call(self, stage: _Stage, feed: Tensors) -> list[Vendor]:
        try:
            return stage.session.run(feed)
        except Exception as error:  # engines raise many types of their own
            raise RunnerError(f"{self.engine} failed in stage {stage.name}: {first_line(error)}") from None

    # Loading --------------------------------------------------------------------------------------------------------

    def _load(self, models: Sequence[tuple[str, ModelBytes]]) -> list[_Stage]:
        sessions = []
        for name, model in models:
            try:
                sessions.append((name, self._session(model)))
            except (RunnerError, BundleError):
                raise
            except Exception as error:  # engines raise many types of their own
                raise RunnerError(f"{self.engine} cannot load {model.name}: {first_line(error)}") from None
        # What is not per entry has 1 in front; engines do not all say what a free dimension is called.
        per_entry = {name for _, session in sessions for name, shape in session.inputs.items() if shape[:1] == (None,)}
        depends = {SUPPORT: {SUPPORT}, "weights": {SUPPORT}, QUERY: {QUERY}}
        stages = []
        for position, (name, session) in enumerate(sessions):
            needs = frozenset().union(*(depends[i] for i in session.inputs))
            depends.update({o: set(needs) for o in session.outputs})
            mine = frozenset(per_entry & {*session.inputs, *session.outputs})
            later = {i for _, other in sessions[position + 1 :] for i in other.inputs}
            stages.append(_Stage(name, session, mine, needs, last_use=frozenset(set(session.inputs) - later)))
        return stages
