"""ONNX Runtime's CUDA provider: inputs and outputs bound on the device, a prepared support that stays there, CUDA
graphs."""

from __future__ import annotations

import os
import weakref
from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count
from threading import RLock

import numpy as np

from ...bundle.bundle import Bundle
from ...bundle.model_bytes import ModelBytes
from ...errors import RunnerError, first_line
from ...named_types import Floats, Vendor
from ...precision import GPU_AUTO, PRECISIONS
from ..base import Runner
from ..libraries import open_session
from ..options import Options
from .cuda.device import _ordinal, check_process
from .cuda.graph import collection_paused
from .provider import INSTALL, PROVIDER, onnxruntime_with

TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
GRAPHS = 16  # captured at most: ONNX Runtime keeps each for the session's life
RETIRED = 4  # supports that nobody holds any more, kept with their graphs for others of the same shape
SHAPES = 8  # of queries for which a prepared support keeps its bindings
MAPS = 256  # support entries times sets times queries of one run, which bounds its memory
NOT_WANTED = "not wanted"


@dataclass
class _Bound:
    """What one shape of queries of one prepared support is run with: fixed addresses, as a CUDA graph wants them.

    graph: the annotation under which ONNX Runtime keeps the graph; -1: none.
    """

    binding: Vendor
    query: Vendor
    outputs: dict[str, Vendor]
    graph: int = -1


@dataclass(eq=False)
class _Memory:
    """Device tensors by the name under which `predict` reads them, and what each shape of queries is run with."""

    shape: tuple[int, ...]  # K, S, H, W of the support
    tensors: dict[str, Vendor]
    bound: OrderedDict[tuple[int, ...], _Bound] = field(default_factory=OrderedDict)


class _Prepared:
    """A support on the device. When nobody holds it any more, memory that graphs read goes to `retired`: a later
    support of the same shape moves in, and runs by these graphs."""

    def __init__(self, memory: _Memory, retired: deque[_Memory]) -> None:
        self.tensors, self.bound = memory.tensors, memory.bound
        self.sets, self.entries, *size = memory.shape
        self.size = (size[0], size[1])
        weakref.finalize(self, _retire, memory, retired).atexit = False


def _retire(memory: _Memory, retired: deque[_Memory]) -> None:
    if any(bound.graph >= 0 for bound in memory.bound.values()):
        retired.append(memory)


class OnnxRuntimeCuda(Runner):
    """A bundle's `prepare` and `predict` on the GPU, or its whole model where it has no such pair.

    Runs take turns: there is one GPU. graph_failure: why no CUDA graphs are used, where they were wanted.
    """

    name = "onnxruntime-cuda"
    graph_failure = ""
    _lock = RLock()  # of all of them: what one allocates would spoil a graph that another captures

    def __init__(self, predict: ModelBytes, prepare: ModelBytes | None, *, ordinal: int = 0, tf32: bool = False,
                 graphs: bool = True, nhwc: bool = False, provider: str = PROVIDER) -> None:
        """prepare None: `predict` is the whole model. tf32: float32 products may be rounded to TF32's 10 bits. nhwc:
        let convolutions run with channels last. RunnerError where the provider does not start or refuses a file, naming
        what to install."""
        self._ort = onnxruntime_with(provider)
        self._provider, self._ordinal = provider, ordinal
        self._options = {"use_tf32": str(int(tf32)), **({"prefer_nhwc": "1"} if nhwc else {})}
        self._place = ("cuda", ordinal) if provider == PROVIDER else ("cpu", 0)
        self.device = f"GPU {ordinal} (CUDA)" if provider == PROVIDER else "CPU"
        self.model_bytes = ModelBytes.bytes_in_all(model for model in (predict, prepare) if model is not None)
        self.graph_failure = "" if graphs else NOT_WANTED
        self._process, self._annotations = os.getpid(), count(1)
        self._retired: deque[_Memory] = deque(maxlen=RETIRED)
        self._prepare_session = None if prepare is None else self._session(prepare, graphs=False)
        self._predict_session = self._with_graphs(predict) if graphs else self._session(predict, graphs=False)
        self._features = max((t.shape[2] for t in self._predict_session.get_inputs() if len(t.shape) == 5
                              and isinstance(t.shape[2], int)), default=64)

    @classmethod
    def open(cls, bundle: Bundle, precision: str, options: Options) -> OnnxRuntimeCuda:
        """Of the options, device and tf32 have an effect here."""
        onnxruntime_with(PROVIDER)
        have = bundle.manifest.models
        if precision == "auto":
            precision = next((p for p in GPU_AUTO if p in have), "fp32")
        *prepare, predict = have[precision].on_device if precision in have else ("whole",)
        runner = cls(bundle.load(precision, predict), bundle.load(precision, *prepare) if prepare else None,
                     ordinal=_ordinal(options.device), tf32=options.use_tf32)
        runner.precision = precision
        return runner

    @classmethod
    def check_here(cls, options: Options) -> None:
        onnxruntime_with(PROVIDER)

    @property
    def notes(self) -> tuple[str, ...]:  # type: ignore[override]  # follows graph_failure, where others keep a value
        return (f"no CUDA graphs: {self.graph_failure}",) if self.graph_failure not in ("", NOT_WANTED) else ()

    # The contract -------------------------------------------------------------------------------------------------

    def _prepare(self, support: Floats, weights: Floats) -> _Prepared:
        sets, entries, _, height, width = support.shape
        session = self._prepare_session or self._predict_session
        kinds = {t.name: TYPES[t.type] for t in (*session.get_inputs(), *session.get_overridable_initializers())}
        given = {"support_images": support[:, :, :1], "support_labels": support[:, :, 1:], "weights": weights}
        check_process(self._process)  # before the lock, which a thread of the parent may hold for ever
        with self._lock:
            memory = self._vacant((sets, entries, height, width))
            if self._prepare_session is None:
                for name, array in given.items():
                    if name in memory.tensors:
                        memory.tensors[name].update_inplace(np.ascontiguousarray(array, kinds[name]))
                    else:
                        memory.tensors[name] = self._on_device(array, kinds[name])
                return _Prepared(memory, self._retired)
            binding = session.io_binding()
            for name, array in given.items():
                binding.bind_ortvalue_input(name, self._on_device(array, kinds[name]))
            names = [t.name for t in session.get_outputs()]
            for name in names:
                if name in memory.tensors:
                    binding.bind_ortvalue_output(name, memory.tensors[name])
                else:
                    binding.bind_output(name, *self._place)
            self._run_session(session, binding, -1)
            if not memory.tensors:
                memory.tensors.update(zip(names, binding.get_outputs(), strict=True))
            return _Prepared(memory, self._retired)

    def _vacant(self, shape: tuple[int, ...]) -> _Memory:
        """The memory of a support of this shape that nobody holds any more, or new."""
        for memory in list(self._retired):
            if memory.shape == shape:
                self._retired.remove(memory)
                return memory
        return _Memory(shape, {})

    def nothing_prepared(self, size: tuple[int, int]) -> _Prepared:
        """For `run_alone` with images of this size: a model with no input beside the query."""
        return _Prepared(_Memory((1, 1, *size), {}), self._retired)

    def run_alone(self, alone: _Prepared, queries: Floats, output: str) -> Floats:
        """This output (B,1,H,W) float32 of queries (B,1,H,W) by a frozen task's model."""
        return np.concatenate([self._run_part(alone, queries[start : start + MAPS], output)
                               for start in range(0, len(queries), MAPS)])

    def _run(self, prepared: _Prepared, queries: Floats) -> Floats:
        part = max(1, MAPS // (prepared.sets * prepared.entries))
        out = np.empty((len(queries), prepared.sets, 1, *prepared.size), np.float32)
        for start in range(0, len(queries), part):
            out[start : start + part] = self._run_part(prepared, queries[start : start + part])
        return out

    def _run_part(self, prepared: _Prepared, queries: Floats, output: str = "logits") -> Floats:
        check_process(self._process)
        with self._lock:
            bound = prepared.bound.get(queries.shape)
            fresh = bound is None
            if bound is None:
                while len(prepared.bound) >= SHAPES:
                    prepared.bound.popitem(last=False)
                bound = prepared.bound[queries.shape] = self._bind(prepared, queries.shape)
            bound.query.update_inplace(np.ascontiguousarray(queries, TYPES[self._input("query").type]))
            if not fresh and bound.graph < 0 and not self.graph_failure:
                number = next(self._annotations)
                bound.graph = number if number <= GRAPHS else -1
            try:
                self._run_session(self._predict_session, bound.binding, bound.graph)
            except RunnerError as error:
                if bound.graph < 0:
                    raise
                self.graph_failure, bound.graph = str(error), -1
                self._run_session(self._predict_session, bound.binding, -1)
            return np.array(bound.outputs[output].numpy(), np.float32)

    def peak_bytes(self, support_size: int, members: int, height: int, width: int) -> int:
        # Of the GPU, counted, not measured: the CUDA context and libraries; the support; what is prepared of it; and in
        # the first block its sum with the query term, its activation and the pooled maps.
        itemsize = np.dtype(PRECISIONS[self.precision].dtype).itemsize
        full_map = self._features * height * width * itemsize
        each = 2 * height * width * 4 + 3.5 * full_map
        return int(6e8 + 2 * self.model_bytes + members * (support_size * each + 16 * full_map))

    # Running ------------------------------------------------------------------------------------------------------

    def _bind(self, prepared: _Prepared, shape: tuple[int, ...]) -> _Bound:
        session = self._predict_session
        binding = session.io_binding()
        for name, value in prepared.tensors.items():
            binding.bind_ortvalue_input(name, value)
        query = self._empty(shape, TYPES[self._input("query").type])
        binding.bind_ortvalue_input("query", query)
        of_sets = {"logits": (shape[0], prepared.sets, 1, *shape[2:])}  # other outputs are one map a query
        outputs = {}
        for tensor in session.get_outputs():
            outputs[tensor.name] = self._empty(of_sets.get(tensor.name, shape), TYPES[tensor.type])
            binding.bind_ortvalue_output(tensor.name, outputs[tensor.name])
        return _Bound(binding, query, outputs)

    def _run_session(self, session: Vendor, binding: Vendor, graph: int) -> None:
        options = self._ort.RunOptions()
        options.add_run_config_entry("gpu_graph_id", str(graph))  # -1: neither captures nor replays
        try:
            with collection_paused():  # this may be the run that is captured
                session.run_with_iobinding(binding, options)
        except Exception as error:  # ONNX Runtime raises many types of its own
            raise self._failed(error) from None

    def _failed(self, error: Exception) -> RunnerError:
        text = first_line(error)
        if any(word in text.lower() for word in ("out of memory", "failed to allocate memory", "cudamalloc")):
            return RunnerError(
                f"no GPU memory left ({text}); use fewer support entries or members, precision fp16, or close "
                "what else runs on this GPU", short="no GPU memory left")
        return RunnerError(f"ONNX Runtime failed on {self.device}: {text}")

    def _input(self, name: str) -> Vendor:
        return next(t for t in self._predict_session.get_inputs() if t.name == name)

    def _on_device(self, array: Floats, kind: type) -> Vendor:
        try:
            return self._ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array, kind), *self._place)
        except Exception as error:
            raise self._failed(error) from None

    def _empty(self, shape: Sequence[int], kind: type) -> Vendor:
        try:
            return self._ort.OrtValue.ortvalue_from_shape_and_type(list(shape), kind, *self._place)
        except Exception as error:
            raise self._failed(error) from None

    # Starting -----------------------------------------------------------------------------------------------------

    def _with_graphs(self, model: ModelBytes) -> Vendor:
        """A session that can keep CUDA graphs; a plain one, with the reason kept, where it refuses."""
        try:
            return self._session(model, graphs=True)
        except RunnerError as error:
            self.graph_failure = str(error)
            return self._session(model, graphs=False)

    def _session(self, model: ModelBytes, graphs: bool) -> Vendor:
        ort = self._ort
        options = ort.SessionOptions()
        options.log_severity_level = 3
        providers: list[object] = [self._provider]
        if self._provider == PROVIDER:
            providers = [(PROVIDER, {
                "device_id": str(self._ordinal), "enable_cuda_graph": str(int(graphs)),
                "cudnn_conv_algo_search": "EXHAUSTIVE", **self._options
            })]
        try:
            with self._lock:
                session = open_session(ort, model, options, providers)
        except Exception as error:
            raise RunnerError(
                f"ONNX Runtime cannot load {model.name} with {self._provider}: {first_line(error)}") from None
        if session.get_providers()[0] != self._provider:  # it falls back to the CPU with a warning only
            raise RunnerError(
                f"ONNX Runtime did not start {self._provider}: it wants the NVIDIA driver, CUDA and cuDNN of the "
                f"versions that it was built for; {INSTALL}, with its CUDA and cuDNN: pip install "
                "'onnxruntime-gpu[cuda,cudnn]'", short="CUDA or cuDNN does not load")
        return session
