"""`pycuda.driver` and `cuda.bindings.runtime` over host memory, as far as runners use them; strict about what they are told."""

from __future__ import annotations

import ctypes
import types
from types import ModuleType, SimpleNamespace

import numpy as np


class Memory:
    """Host blocks by address; `limit` bytes in all. pushed: how deep the context stands on this thread's stack."""

    def __init__(self, limit: int = 1 << 20) -> None:
        self.limit, self.blocks, self.pinned, self.pushed = limit, {}, {}, 0

    @property
    def used(self) -> int:
        return sum(b.size for b in self.blocks.values())

    def take(self, size: int, kind: str = "blocks") -> int:
        assert self.pushed, "no context is current"
        block = np.full(size, 0xAB, np.uint8)
        getattr(self, kind)[block.ctypes.data] = block
        return block.ctypes.data

    def give(self, address: int, kind: str = "blocks") -> None:
        assert self.pushed, "no context is current"
        del getattr(self, kind)[address]

    def copy(self, to: int, source: int, size: int) -> None:
        assert self.pushed and (to in self.blocks or source in self.blocks)
        ctypes.memmove(to, source, size)


def pycuda_driver(memory: Memory, gpus: int = 1) -> ModuleType:
    """The module; its context must be pushed for every call, and objects be dropped while it is."""
    driver = types.ModuleType("pycuda.driver")
    driver.Error = type("Error", (Exception,), {})
    driver.MemoryError = type("MemoryError", (driver.Error,), {})

    class Context:
        def push(self):
            memory.pushed += 1

        @staticmethod
        def pop():
            memory.pushed -= 1

    class Device:
        def __init__(self, ordinal):
            assert ordinal == 0

        @staticmethod
        def count():
            return gpus

        def name(self):
            return "Fake GPU"

        def compute_capability(self):
            return (8, 6)

        def retain_primary_context(self):
            return Context()

    class Allocation:
        def __init__(self, size):
            self.address = memory.take(size)

        def __int__(self):
            return self.address

        def free(self):
            memory.give(self.address)

    class Dropped:
        def __init__(self, flags=0):
            assert memory.pushed
            self.handle, self.at = 4711, 0.0

        def __del__(self):
            assert memory.pushed, "dropped outside the context"

        def synchronize(self):
            assert memory.pushed

        def record(self, stream):
            assert isinstance(stream, driver.Stream)

        def time_till(self, other):
            return 1500.0

    def init():
        if not gpus:
            raise driver.Error("cuInit failed: no CUDA-capable device is detected")

    def mem_alloc(size):
        if memory.used + size > memory.limit:
            raise driver.MemoryError("cuMemAlloc failed: out of memory")
        return Allocation(size)

    class Pages(np.ndarray):
        def __array_finalize__(self, other):
            memory.pinned[id(self)] = True

        def __del__(self):
            memory.pinned.pop(id(self), None)

    def to_device(address, array, stream):
        assert isinstance(stream, driver.Stream)
        memory.copy(address, array.ctypes.data, array.nbytes)

    def to_host(array, address, stream):
        assert isinstance(stream, driver.Stream)
        memory.copy(array.ctypes.data, address, array.nbytes)

    driver.Context, driver.Device, driver.init, driver.mem_alloc = Context, Device, init, mem_alloc
    driver.Stream, driver.Event = type("Stream", (Dropped,), {}), type("Event", (Dropped,), {})
    driver.get_driver_version = lambda: 12040
    driver.mem_get_info = lambda: (memory.limit - memory.used, memory.limit)
    driver.pagelocked_empty = lambda size, dtype: np.empty(size, dtype).view(Pages)
    driver.memcpy_htod_async, driver.memcpy_dtoh_async = to_device, to_host
    return driver


def cuda_runtime(memory: Memory, gpus: int = 1) -> ModuleType:
    """The module; every call returns a tuple whose first value is the status."""
    runtime = types.ModuleType("cuda.bindings.runtime")
    memory.pushed = 1  # the runtime makes its context current by itself
    runtime.device, ok = 0, 0

    def malloc(size):
        return (2, None) if memory.used + size > memory.limit else (ok, memory.take(size))

    def set_device(ordinal):
        runtime.device = ordinal
        return (ok,)

    def memcpy(to, source, size, kind, stream):
        assert stream == 4711 and kind in ("to device", "to host")
        assert (to in memory.blocks) == (kind == "to device")
        memory.copy(to, source, size)
        return (ok,)

    done = lambda *_: (ok,)  # noqa: E731
    runtime.cudaError_t = SimpleNamespace(cudaErrorMemoryAllocation=2)
    runtime.cudaMemcpyKind = SimpleNamespace(cudaMemcpyHostToDevice="to device", cudaMemcpyDeviceToHost="to host")
    runtime.cudaGetErrorString = lambda status: (ok, {2: b"out of memory", 35: b"CUDA driver version is insufficient"}[int(status)])
    runtime.cudaGetDeviceCount = lambda: (ok, gpus) if gpus else (35, None)
    runtime.cudaGetDeviceProperties = lambda ordinal: (ok, SimpleNamespace(name=b"Fake GPU\0\0", major=8, minor=6))
    runtime.cudaDriverGetVersion = lambda: (ok, 12040)
    runtime.cudaGetDevice, runtime.cudaSetDevice = lambda: (ok, runtime.device), set_device
    runtime.cudaMalloc, runtime.cudaFree = malloc, lambda address: (address and memory.give(address), (ok,))[1]
    runtime.cudaHostAlloc = lambda size, flags: (ok, memory.take(size, "pinned"))
    runtime.cudaFreeHost = lambda address: (memory.give(address, "pinned"), (ok,))[1]
    runtime.cudaMemGetInfo = lambda: (ok, memory.limit - memory.used, memory.limit)
    runtime.cudaStreamCreateWithFlags = runtime.cudaEventCreateWithFlags = lambda flags: (ok, 4711)
    runtime.cudaMemcpyAsync, runtime.cudaEventElapsedTime = memcpy, lambda a, b: (ok, 1500.0)
    for name in ("cudaGetLastError", "cudaStreamSynchronize", "cudaStreamDestroy", "cudaEventRecord", "cudaEventSynchronize",
                 "cudaEventDestroy"):
        setattr(runtime, name, done)
    return runtime
