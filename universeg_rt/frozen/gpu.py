"""Frozen files on a GPU: by ONNX Runtime's CUDA provider, and static ones by engines built for them (engine_file.py).

A shape that comes again runs as a CUDA graph. No plugin is needed: there is no mean over a support left to compute.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from threading import local

from ..bundle.model_bytes import ModelBytes
from ..bundle.onnx_bind import query_size
from ..errors import EngineError, RunnerError
from ..named_types import Floats
from ..precision import GPU_AUTO
from ..runners.gpu.cuda.device import _ordinal
from ..runners.gpu.identity import gpu_facts
from ..runners.gpu.onnxruntime import OnnxRuntimeCuda
from ..runners.gpu.provider import PROVIDER
from ..runners.gpu.tensorrt.engine import Engine
from ..runners.gpu.tensorrt.runner import TensorRT, TensorRTRTX
from ..runners.gpu.tensorrt.worker import Network, Prepared, Worker
from ..runners.options import Options
from ..spec import NetworkSpec
from . import engine_file
from .base import FrozenRunner, logits_of, readable
from .record import LOGITS, STATIC


class CudaFrozen(FrozenRunner):
    name = "onnxruntime-cuda"

    def __init__(self, model: bytes, kind: str, spec: NetworkSpec, options: Options, provider: str = PROVIDER) -> None:
        model, self._output = readable(model, kind)
        self._runner = OnnxRuntimeCuda(ModelBytes("the frozen file", model), None, ordinal=_ordinal(options.device),
                                       tf32=options.use_tf32, provider=provider)
        self.device = self._runner.device
        self._alone = self._runner.nothing_prepared(_size(model))

    @property
    def notes(self) -> tuple[str, ...]:  # type: ignore[override]  # as that of the runner
        return self._runner.notes

    def run(self, queries: Floats) -> Floats:
        return logits_of(self._runner.run_alone(self._alone, queries, self._output), self._output)


class TensorRTFrozen(FrozenRunner):
    """The first engine of the options that was built from this very file for this machine, half precision first."""

    name, runner = "tensorrt", TensorRT

    def __init__(self, model: bytes, kind: str, spec: NetworkSpec, options: Options) -> None:
        if kind != STATIC:
            raise RunnerError(f"{self.name} runs static frozen files, not {kind} ones; use runner='onnxruntime-cuda'")
        given = [Path(path) for path in options.engines or () if f".{self.name}." in Path(path).name]
        if not given:
            raise RunnerError(f"there is no {self.name} engine beside this file; build one on this machine with "
                              f"universeg-export --task FILE --engine {self.name}", short="no engine of this file")
        trt, device = self.runner.here(options)
        digest = hashlib.sha256(model).hexdigest()
        found, refused = [], []
        for path in given:
            entry, plan = engine_file.read(path)
            present = {"builder_version": trt.__version__, **gpu_facts(device.gpu), "onnx_sha256": digest}
            if different := entry.fingerprint.differences(**present):
                refused.append(f"{path.name} does not fit here; {'; '.join(different)}")
            else:
                found.append((GPU_AUTO.index(entry.fingerprint.precision), path, entry, plan))
        if not found:
            raise EngineError(f"{refused[0]}: build it here with universeg-export --task FILE --engine {self.name}")
        _, path, entry, plan = min(found, key=lambda each: each[:2])
        engine = Engine(trt, device, plan, path.name)
        if set(engine.inputs) != {"query"} or LOGITS not in engine.outputs:
            raise EngineError(f"{path.name} is no engine of a frozen task; build it again")
        self.precision = entry.fingerprint.precision
        self.device = f"{device.place}, {self.precision}"
        self._gpu, self._workers, self.graph_failures = device, local(), list[str]()
        self._alone = Prepared(Network(None, engine, entry.profile, LOGITS), {}, 1, 1, entry.profile.image)

    @property
    def notes(self) -> tuple[str, ...]:  # type: ignore[override]  # follows graph_failures
        return tuple(f"no CUDA graph for {why}" for why in self.graph_failures)

    def run(self, queries: Floats) -> Floats:
        worker = getattr(self._workers, "worker", None)
        if worker is None:
            worker = self._workers.worker = Worker(self._gpu, True, self.graph_failures)
        return worker.run_in_parts(self._alone, queries)


class TensorRTRTXFrozen(TensorRTFrozen):
    name, runner = "tensorrt-rtx", TensorRTRTX


def _size(model: bytes) -> tuple[int, int]:
    height, width = query_size(model)
    if isinstance(height, str) or isinstance(width, str):
        raise RunnerError("this file states no size of its images; freeze the task again")
    return height, width
