"""The stages of a bundle on ONNX Runtime's CPU provider, streamed."""

from __future__ import annotations

from collections.abc import Mapping
from threading import Lock
from types import ModuleType

import numpy as np

from ...bundle.model_bytes import ModelBytes
from ...errors import RunnerError
from ...named_types import Floats, Vendor
from ..libraries import import_onnxruntime, open_session
from ..options import Options
from .streaming import StagedRunner, StageSession


class StreamedOnnxRuntime(StagedRunner):
    """ONNX Runtime, one session a stage; the sessions share one memory arena."""

    name = "onnxruntime"
    engine = "ONNX Runtime"
    process_bytes, chunk_maps, query_maps = 9e7, 4.8, 15.6

    def _start(self) -> None:
        self._ort = module()

    @classmethod
    def check_here(cls, options: Options) -> None:
        module()

    def _session(self, model: ModelBytes) -> StageSession:
        ort = self._ort
        options = quiet_options(ort, self.threads)
        # The sessions take turns: a waiting one must neither spin nor keep memory that the next one needs.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if _share_memory(ort):
            options.add_session_config_entry("session.use_env_allocators", "1")
        return _Session(open_session(ort, model, options, ["CPUExecutionProvider"]), ort.RunOptions())

    def _value(self, array: Floats) -> Vendor:
        return self._ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array))

    def _array(self, value: Vendor) -> Floats:
        array: Floats = value.numpy()
        return array


def quiet_options(ort: ModuleType, threads: int | None) -> Vendor:
    """Options of a session on so many threads that reports errors alone."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    return options


def module() -> ModuleType:
    try:
        return import_onnxruntime()
    except ImportError as error:
        raise RunnerError(f"the onnxruntime runner cannot start ({error}); pip install onnxruntime") from None


class _Session(StageSession):
    def __init__(self, session: Vendor, run_options: Vendor) -> None:
        self._session, self._run_options = session, run_options
        self.inputs = {i.name: tuple(d if isinstance(d, int) else None for d in i.shape) for i in session.get_inputs()}
        self.outputs = tuple(o.name for o in session.get_outputs())

    def run(self, feed: Mapping[str, Vendor]) -> list[Vendor]:
        values: list[Vendor] = self._session.run_with_ort_values(list(self.outputs), feed, self._run_options)
        return values


_shared_memory: bool | None = None
_shared_memory_lock = Lock()


def _share_memory(ort: ModuleType) -> bool:
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
