"""Streams the support through a bundle's stages with ONNX Runtime: full-resolution maps exist for one chunk at a time."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

import numpy as np

from ..bundle import Bundle
from ..errors import InputError, RunnerError
from .base import Runner

# Entries in a chunk times pixels of an image; measured, see benchmarks/NOTES.md.
CHUNK_PIXELS = 4 * 128 * 128

SUPPORT, QUERY = "support", "query"


@dataclass(frozen=True)
class _Stage:
    """A stage's session and the names of its tensors; those in `per_entry` have a map for each support entry."""

    name: str
    session: object
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    per_entry: frozenset[str]
    needs: frozenset[str]  # of {SUPPORT, QUERY}: what its result depends on
    last_use: frozenset[str]  # inputs that no later stage of the same run reads

    @property
    def is_chunked(self) -> bool:
        return any(name in self.per_entry for name in self.inputs)


@dataclass(frozen=True)
class _Prepared:
    """Of each support set, the tensors that depend on the support alone; and the image size."""

    sets: tuple[dict, ...]
    size: tuple[int, int]


class StreamedOnnxRuntime(Runner):
    """The stages of `universeg_rt.export.emit.stages` on ONNX Runtime's CPU provider."""

    name = "onnxruntime"

    def __init__(self, stages: Sequence[tuple[str, Path]], threads: int | None = None) -> None:
        """stages: names and files in order. threads: of each operator (default: one a core).

        Raises RunnerError where ONNX Runtime is missing or refuses a file.
        """
        try:
            import onnxruntime
        except ImportError as error:
            raise RunnerError(f"the onnxruntime runner cannot start ({error}); pip install onnxruntime") from None
        self._ort = onnxruntime
        self._run_options = onnxruntime.RunOptions()
        self.threads = threads or _cores()
        self.model_bytes = sum(os.path.getsize(path) for _, path in stages)
        self._stages = self._load(stages)
        self._features = max(t.shape[1] for s in self._stages for t in s.session.get_outputs() if isinstance(t.shape[1], int))

    @classmethod
    def open(cls, bundle: Bundle, precision: str, threads: int | None) -> StreamedOnnxRuntime:
        precision = "fp32" if precision == "auto" else precision
        runner = cls(bundle.stages(precision), threads)
        runner.precision = precision
        return runner

    # The contract -------------------------------------------------------------------------------------------------

    def _prepare(self, support: np.ndarray, weights: np.ndarray) -> _Prepared:
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
        return _Prepared(tuple(sets), support.shape[3:])

    def _run(self, prepared: _Prepared, queries: np.ndarray) -> np.ndarray:
        if queries.shape[2:] != prepared.size:
            raise InputError(f"queries are {queries.shape[2:]}, the support was prepared at {prepared.size}")
        out = np.empty((len(queries), len(prepared.sets), 1, *prepared.size), np.float32)
        for b, query in enumerate(queries):
            of_query = {QUERY: self._value(query[None])}
            self._go(of_query, {QUERY}, keep=True)
            for k, of_support in enumerate(prepared.sets):
                tensors = {**of_support, **of_query}
                self._go(tensors, {SUPPORT, QUERY}, keep=False)
                out[b, k] = tensors["logits"].numpy()[0]
        return out

    def peak_bytes(self, support_size: int, members: int, height: int, width: int) -> int:
        # Fitted to measured peaks (benchmarks/NOTES.md): the process with its libraries and models; the support, ours and
        # the caller's; what is kept of each entry between blocks; and full-resolution maps, for a chunk and for the query.
        pixels = height * width
        full_map = self._features * pixels * 4
        chunk = min(support_size, max(1, CHUNK_PIXELS // pixels))
        return int(9e7 + 2 * self.model_bytes + 2 * members * support_size * 2 * pixels * 4
                   + 0.55 * full_map * support_size + full_map * (4.8 * chunk + 15.6))

    # Running stages -----------------------------------------------------------------------------------------------

    def _go(self, tensors: dict, needs: set[str], keep: bool) -> None:
        """Run every stage that depends on exactly `needs`; tensors by name, per-entry ones as lists of chunks."""
        for stage in self._stages:
            if stage.needs != needs:
                continue
            if stage.is_chunked:
                self._run_chunks(stage, tensors, keep)
            else:
                feed = {name: tensors[name] for name in stage.inputs}
                tensors.update(zip(stage.outputs, self._call(stage, feed)))
            if not keep:
                for name in stage.last_use:
                    tensors.pop(name, None)

    def _run_chunks(self, stage: _Stage, tensors: dict, keep: bool) -> None:
        chunked = [name for name in stage.inputs if name in stage.per_entry]
        whole = {name: tensors[name] for name in stage.inputs if name not in stage.per_entry}
        # Lists of our own: a chunk which nothing reads again is let go as soon as it has been read.
        lists = {name: list(tensors[name]) for name in chunked}
        if not keep:
            for name in stage.last_use & set(chunked):
                del tensors[name]
        sums: dict[str, np.ndarray] = {}
        made: dict[str, list] = {name: [] for name in stage.outputs if name in stage.per_entry}
        for i in range(len(lists[chunked[0]])):
            feed = {**whole, **{name: lists[name][i] for name in chunked}}
            for name in chunked:
                lists[name][i] = None
            for name, value in zip(stage.outputs, self._call(stage, feed)):
                if name in made:
                    made[name].append(value)
                elif name in sums:
                    sums[name] += value.numpy()
                else:
                    sums[name] = np.array(value.numpy())
        tensors.update(made)
        tensors.update({name: self._value(total) for name, total in sums.items()})

    def _call(self, stage: _Stage, feed: dict) -> list:
        try:
            return stage.session.run_with_ort_values(list(stage.outputs), feed, self._run_options)
        except Exception as error:  # ONNX Runtime raises many types of its own
            raise RunnerError(f"ONNX Runtime failed in stage {stage.name}: {str(error).splitlines()[0]}") from None

    def _value(self, array: np.ndarray):
        return self._ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array))

    # Loading --------------------------------------------------------------------------------------------------------

    def _load(self, files: Sequence[tuple[str, Path]]) -> list[_Stage]:
        sessions = [(name, self._session(path)) for name, path in files]
        depends = {SUPPORT: {SUPPORT}, "weights": {SUPPORT}, QUERY: {QUERY}}
        facts = []
        for name, session in sessions:
            inputs, outputs = session.get_inputs(), session.get_outputs()
            needs = frozenset().union(*(depends[i.name] for i in inputs))
            depends.update({o.name: set(needs) for o in outputs})
            per_entry = frozenset(t.name for t in (*inputs, *outputs) if t.shape[:1] == ["S"])
            facts.append((name, session, tuple(i.name for i in inputs), tuple(o.name for o in outputs), per_entry, needs))
        stages = []
        for position, fact in enumerate(facts):
            later = {name for other in facts[position + 1 :] for name in other[2]}
            stages.append(_Stage(*fact, last_use=frozenset(set(fact[2]) - later)))
        return stages

    def _session(self, path: Path):
        ort = self._ort
        options = ort.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.log_severity_level = 3
        # The sessions take turns: a waiting one must neither spin nor keep memory that the next one needs.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if _share_memory(ort):
            options.add_session_config_entry("session.use_env_allocators", "1")
        try:
            return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime raises many types of its own
            raise RunnerError(f"ONNX Runtime cannot load {path}: {str(error).splitlines()[0]}") from None


_shared_memory: bool | None = None
_shared_memory_lock = Lock()


def _share_memory(ort) -> bool:
    """Register one memory arena for all our sessions in this process, once; False where ONNX Runtime cannot.

    Sessions use it only if they ask for it, so a host program's own sessions are left as they are.
    """
    global _shared_memory
    with _shared_memory_lock:
        if _shared_memory is None:
            try:
                cpu = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
                # Extended by what is asked for, not by powers of two; the other limits are ONNX Runtime's own.
                ort.create_and_register_allocator(cpu, ort.OrtArenaCfg(0, 1, -1, -1))
                _shared_memory = True
            except Exception:  # an allocator registered by the host program, or a version without this call
                _shared_memory = False
        return _shared_memory


def _cores() -> int:
    """Cores this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on every system
        return os.cpu_count() or 1
