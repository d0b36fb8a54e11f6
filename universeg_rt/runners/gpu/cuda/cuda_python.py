"""Device memory through NVIDIA's cuda-python: `cuda.bindings.runtime`, or `cuda.cudart` of versions before 12.6."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from threading import local

import numpy as np

from ....errors import RunnerError
from . import graph as cuda_graph
from .device import Buffer, Device, Event, Graph, OutOfDeviceMemory, Stream

try:
    from cuda.bindings import runtime
except ImportError:
    from cuda import cudart as runtime

NON_BLOCKING = 1  # cudaStreamNonBlocking: does not wait for the default stream, which other libraries use


class CudaPython(Device):
    """One GPU through the CUDA runtime."""

    library = "cuda-python"

    def __init__(self, ordinal: int) -> None:
        super().__init__()
        status, count = runtime.cudaGetDeviceCount()
        if int(status) != 0 or not count:
            reason = _name(status) if int(status) != 0 else "it counts none"
            raise RunnerError(f"CUDA sees no GPU ({reason}); install the NVIDIA driver, or run on a machine with a GPU",
                              short="no NVIDIA GPU or driver")
        if ordinal >= count:
            raise RunnerError(f"there is no GPU number {ordinal}; CUDA sees {count}", short=f"no GPU number {ordinal}")
        self.ordinal, self._bound = ordinal, local()
        with self.current():
            properties = check(runtime.cudaGetDeviceProperties(ordinal), "cudaGetDeviceProperties")
            self.name = properties.name.decode() if isinstance(properties.name, bytes) else str(properties.name)
            self.name = self.name.split("\0")[0].strip()
            self.compute_capability = f"{properties.major}.{properties.minor}"
            version = check(runtime.cudaDriverGetVersion(), "cudaDriverGetVersion")
            self.driver = f"{version // 1000}.{version % 1000 // 10}"

    def _enter(self) -> int:
        before = check(runtime.cudaGetDevice(), "cudaGetDevice")
        first = not getattr(self._bound, "done", False)
        if first or before != self.ordinal:
            check(runtime.cudaSetDevice(self.ordinal), "cudaSetDevice")
        if first:  # binds the primary context to this thread, for the driver's calls too (cuda_graph.py)
            check(runtime.cudaFree(0), "cudaFree")
            self._bound.done = True
        return before

    def _leave(self, before: int) -> None:
        if before != self.ordinal:
            check(runtime.cudaSetDevice(before), "cudaSetDevice")

    def stream(self) -> Stream:
        with self.current():
            return _Stream(check(runtime.cudaStreamCreateWithFlags(NON_BLOCKING), "cudaStreamCreateWithFlags"), self)

    def event(self) -> Event:
        with self.current():
            return _Event(check(runtime.cudaEventCreateWithFlags(0), "cudaEventCreateWithFlags"), self)

    def capture(self, stream: Stream, enqueue: Callable[[], None]) -> Graph:
        return cuda_graph.capture(self, stream, enqueue)

    def _memory(self) -> tuple[int, int]:
        free, total = check(runtime.cudaMemGetInfo(), "cudaMemGetInfo")
        return int(free), int(total)

    def _allocate(self, size: int) -> tuple[int, Callable[[], None]]:
        status, address = runtime.cudaMalloc(size)
        if int(status) == int(runtime.cudaError_t.cudaErrorMemoryAllocation):
            runtime.cudaGetLastError()  # forgets the error, which later calls would report again
            raise OutOfDeviceMemory
        check((status,), "cudaMalloc")
        return int(address), lambda: check(runtime.cudaFree(address), "cudaFree")

    def _allocate_pinned(self, size: int) -> tuple[int, Callable[[], None]]:
        address = int(check(runtime.cudaHostAlloc(size, 0), "cudaHostAlloc"))
        return address, lambda: check(runtime.cudaFreeHost(address), "cudaFreeHost")

    def _upload(self, buffer: Buffer, array: np.ndarray, stream: _Stream) -> None:
        kind = runtime.cudaMemcpyKind.cudaMemcpyHostToDevice
        check(runtime.cudaMemcpyAsync(buffer.address, array.ctypes.data, array.nbytes, kind, stream.value), "cudaMemcpyAsync")

    def _download(self, array: np.ndarray, buffer: Buffer, stream: _Stream) -> None:
        kind = runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost
        check(runtime.cudaMemcpyAsync(array.ctypes.data, buffer.address, array.nbytes, kind, stream.value), "cudaMemcpyAsync")


class _Stream(Stream):
    def __init__(self, value, device: CudaPython) -> None:
        self.value, self.handle, self._device = value, int(value), device
        weakref.finalize(self, runtime.cudaStreamDestroy, value).atexit = False

    def synchronize(self) -> None:
        with self._device.current():
            check(runtime.cudaStreamSynchronize(self.value), "cudaStreamSynchronize")


class _Event(Event):
    def __init__(self, value, device: CudaPython) -> None:
        self.value, self._device = value, device
        weakref.finalize(self, runtime.cudaEventDestroy, value).atexit = False

    def record(self, stream: _Stream) -> None:
        with self._device.current():
            check(runtime.cudaEventRecord(self.value, stream.value), "cudaEventRecord")

    def seconds_since(self, earlier: _Event) -> float:
        with self._device.current():
            check(runtime.cudaEventSynchronize(self.value), "cudaEventSynchronize")
            return float(check(runtime.cudaEventElapsedTime(earlier.value, self.value), "cudaEventElapsedTime")) / 1e3


def check(result: tuple, call: str):
    """What a call of cuda-python returned, its status taken off; RunnerError naming the call and the error."""
    if int(result[0]) != 0:
        raise RunnerError(f"{call} failed: {_name(result[0])}")
    return result[1] if len(result) == 2 else result[1:] or None


def _name(status) -> str:
    _, text = runtime.cudaGetErrorString(status)
    return text.decode() if isinstance(text, bytes) else str(text)
