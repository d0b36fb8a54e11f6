"""Device memory through pycuda, in the device's primary context, which is pushed for the length of each call."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import cast

import numpy as np
import pycuda.driver as cuda

from ....errors import RunnerError
from ....named_types import Array, Vendor
from ..identity import Gpu
from . import graph as cuda_graph
from .device import NON_BLOCKING, Buffer, Device, Graph, OutOfDeviceMemory, Stream, no_gpu


class PyCuda(Device):
    """One GPU through the CUDA driver.

    pycuda frees an object in the thread that drops it only where the object's context is current there; so everything
    that it made is dropped inside `current`.
    """

    library = "pycuda"

    def __init__(self, ordinal: int) -> None:
        super().__init__()
        try:
            cuda.init()
            count = cuda.Device.count()
        except cuda.Error as error:
            raise no_gpu(error) from None
        self.check_number(ordinal, count)
        device = cuda.Device(ordinal)
        self.gpu = Gpu.of(device.name(), device.compute_capability(), device.total_memory(), cuda.get_driver_version())
        self._context = device.retain_primary_context()

    def _enter(self) -> None:
        self._context.push()

    def _leave(self, before: object) -> None:
        cuda.Context.pop()

    def drop(self, things: list[Vendor]) -> None:
        """Empties the list, which must be all that holds what is in it."""
        if self.is_forked:
            return
        with self.current():
            things.clear()

    def stream(self) -> Stream:
        with self.current(), _named("a stream"):
            return _Stream(cuda.Stream(NON_BLOCKING), self)

    def capture(self, stream: Stream, enqueue: Callable[[], None]) -> Graph:
        return cuda_graph.capture(self, stream, enqueue)

    def _memory(self) -> tuple[int, int]:
        free, total = cuda.mem_get_info()
        return int(free), int(total)

    def _allocate(self, size: int) -> tuple[int, Callable[[], None]]:
        try:
            allocation = cuda.mem_alloc(size)
        except cuda.MemoryError as error:
            raise OutOfDeviceMemory(str(error)) from None
        except cuda.Error as error:
            raise RunnerError(f"device memory failed: {error}") from None
        return int(allocation), allocation.free

    def _allocate_pinned(self, size: int) -> tuple[int, Callable[[], None]]:
        with _named("page-locked memory"):
            pages = [cuda.pagelocked_empty(size, np.uint8)]
        return pages[0].ctypes.data, pages.clear

    def _upload(self, buffer: Buffer, array: Array, stream: Stream) -> None:
        with _named("a copy to the device"):
            cuda.memcpy_htod_async(buffer.address, array, cast(_Stream, stream).held[0])

    def _download(self, array: Array, buffer: Buffer, stream: Stream) -> None:
        with _named("a copy from the device"):
            cuda.memcpy_dtoh_async(array, buffer.address, cast(_Stream, stream).held[0])


class _Stream(Stream):
    def __init__(self, value: Vendor, device: PyCuda) -> None:
        self.held, self.handle, self._device = [value], int(value.handle), device
        weakref.finalize(self, device.drop, self.held).atexit = False

    def synchronize(self) -> None:
        with self._device.current(), _named("work on the device"):
            self.held[0].synchronize()


@contextmanager
def _named(what: str) -> Iterator[None]:
    """pycuda's errors as RunnerError."""
    try:
        yield
    except cuda.Error as error:
        raise RunnerError(f"{what} failed: {error}") from None
