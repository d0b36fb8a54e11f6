"""`pycuda.driver` over host memory, as far as runners use it; strict about what it is told."""

from __future__ import annotations

import ctypes
import types
from types import ModuleType

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

        def total_memory(self):
            return memory.limit

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
            self.handle = 4711

        def __del__(self):
            assert memory.pushed, "dropped outside the context"

        def synchronize(self):
            assert memory.pushed

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
    driver.Stream = type("Stream", (Dropped,), {})
    driver.get_driver_version = lambda: 12040
    driver.mem_get_info = lambda: (memory.limit - memory.used, memory.limit)
    driver.pagelocked_empty = lambda size, dtype: np.empty(size, dtype).view(Pages)
    driver.memcpy_htod_async, driver.memcpy_dtoh_async = to_device, to_host
    return driver
