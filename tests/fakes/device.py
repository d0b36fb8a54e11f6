"""A GPU made of host memory: addresses that only it can read, streams that do nothing before they are waited for,
graphs that replay what was put on a stream, a memory that runs out, and a record of what was asked of it."""

from __future__ import annotations

import itertools
import threading

import numpy as np

from universeg_rt.errors import RunnerError
from universeg_rt.runners.gpu.cuda.device import Device, Graph, OutOfDeviceMemory, Stream
from universeg_rt.runners.gpu.identity import Gpu


class StandInStream(Stream):
    def __init__(self, handle: int, device: StandIn) -> None:
        self.handle, self.device = handle, device
        self.waiting: list = []
        self.captured: list | None = None

    def put(self, work) -> None:
        (self.waiting if self.captured is None else self.captured).append(work)

    def synchronize(self) -> None:
        assert self.captured is None, "a stream that is being captured cannot be waited for"
        while self.waiting:
            self.waiting.pop(0)()


class StandInGraph(Graph):
    def __init__(self, work: list, device: StandIn) -> None:
        self.work, self.device = work, device

    def launch(self, stream: StandInStream) -> None:
        self.device.count("launch")
        for each in self.work:
            stream.put(each)


class StandIn(Device):
    """total: bytes of memory. calls: how often what was done. capture_fails: the reason why no graph can be
    captured."""

    library, gpu = "stand-in", Gpu("Stand-in GPU", "9.0", 8 << 30, "13.0")

    def __init__(self, total: int = 1 << 30) -> None:
        super().__init__()
        self.total, self.capture_fails = total, ""
        self.blocks: dict[int, np.ndarray] = {}
        self.streams: dict[int, StandInStream] = {}
        self.calls: dict[str, int] = {}
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()

    @property
    def used(self) -> int:
        return sum(block.size for block in self.blocks.values())

    def count(self, what: str) -> None:
        with self._lock:
            self.calls[what] = self.calls.get(what, 0) + 1

    def view(self, address: int, shape: tuple[int, ...], dtype) -> np.ndarray:
        """The array at an address; KeyError where that memory is not (or no longer) allocated."""
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        assert size <= self.blocks[address].size, "beyond the end of a buffer"
        return self.blocks[address][:size].view(dtype).reshape(shape)

    def stream(self) -> StandInStream:
        handle = next(self._numbers) << 4
        stream = self.streams[handle] = StandInStream(handle, self)
        return stream

    def capture(self, stream: StandInStream, enqueue) -> StandInGraph:
        self.count("capture")
        if self.capture_fails:
            raise RunnerError(self.capture_fails)
        stream.captured = []
        try:
            enqueue()
            return StandInGraph(stream.captured, self)
        finally:
            stream.captured = None

    def _enter(self) -> int:
        self.count("enter")
        return threading.get_ident()

    def _leave(self, before: int) -> None:
        assert before == threading.get_ident()

    def _memory(self) -> tuple[int, int]:
        return self.total - self.used, self.total

    def _allocate(self, size: int):
        with self._lock:
            if self.used + size > self.total:
                raise OutOfDeviceMemory("no memory")
            address = next(self._numbers) << 16
            self.blocks[address] = np.full(size, 0xAB, np.uint8)
        self.count("allocate")
        return address, lambda: self.blocks.pop(address)

    def _allocate_pinned(self, size: int):
        block = [np.zeros(size, np.uint8)]
        return block[0].ctypes.data, block.clear

    def _upload(self, buffer, array, stream) -> None:
        stream.put(lambda: self.view(buffer.address, array.shape, array.dtype).__setitem__(..., array))

    def _download(self, array, buffer, stream) -> None:
        stream.put(lambda: array.__setitem__(..., self.view(buffer.address, array.shape, array.dtype)))
