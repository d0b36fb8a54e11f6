"""Device memory, streams and graphs behind one small interface, which pycuda.py and bindings.py implement and tests
stand in for.

It works in the device's primary context, the one that PyTorch, ONNX Runtime and TensorRT use too.
"""

from __future__ import annotations

import ctypes
import importlib.util
import logging
import os
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from threading import Lock, local
from typing import Any

import numpy as np

from ....environment import said, variable
from ....errors import InputError, RunnerError
from ....named_types import Array
from ..identity import Gpu

# module -> where and what implements `Device` by it; the first that can be imported manages memory.
LIBRARIES = {"pycuda": (".pycuda", "PyCuda"), "cuda.bindings": (".bindings", "CudaBindings")}
CURE = (
    "pip install pycuda (it compiles, and wants curand.h: pip install nvidia-curand and put its include folder on "
    "CPATH, or build it with CUDA_ENABLE_CURAND=False in siteconf.py); or, where nothing can compile, "
    "pip install cuda-bindings, of the driver's CUDA version or an earlier one")
ORDINAL = variable("device")
NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING: does not wait for the default stream, which other libraries use


log = logging.getLogger(__name__)


class OutOfDeviceMemory(RunnerError):
    """What an implementation raises where the device has not the bytes; callers get one that says how many."""


class Buffer:
    """`size` bytes of device memory at `address`; given back by `free`, or when nobody holds it any more."""

    def __init__(self, address: int, size: int, give_back: Callable[[], None]) -> None:
        self.address, self.size = address, size
        self._finalizer = weakref.finalize(self, give_back)
        self._finalizer.atexit = False  # the driver takes all back when the process ends

    def free(self) -> None:
        self._finalizer()


def check_process(opened_in: int) -> None:
    """RunnerError in another process than the one of this id, which opened something on a GPU."""
    if os.getpid() != opened_in:
        raise RunnerError(
            "this process was forked from one that uses the GPU, and CUDA does not survive a fork; start processes "
            "with spawn, or open the Segmenter in each of them", short="forked from a process that uses the GPU")


class Stream(ABC):
    """Work on the device in the order in which it was given. handle: the cudaStream_t as an integer."""

    handle: int

    @abstractmethod
    def synchronize(self) -> None:
        """Wait for all of it; RunnerError where some of it failed."""


class Graph(ABC):
    """Work captured from a stream, launched again as one."""

    @abstractmethod
    def launch(self, stream: Stream) -> None: ...


class Device(ABC):
    """One GPU. Every method may be called from any thread.

    library: by which it is reached. gpu: which one it is.
    """

    library: str = ""
    gpu: Gpu

    def __init__(self) -> None:
        self._nesting = local()
        self._process = os.getpid()

    @property
    def place(self) -> str:
        """The GPU and by what its memory is managed, for people."""
        return f"{self.gpu.name} ({self.library})"

    @staticmethod
    def check_number(ordinal: int, count: int) -> None:
        """RunnerError where it is not among `count` GPUs."""
        if ordinal >= count:
            raise RunnerError(f"there is no GPU number {ordinal}; CUDA sees {count}", short=f"no GPU number {ordinal}")

    @property
    def is_forked(self) -> bool:
        """Whether this process was forked from the one that opened the device."""
        return os.getpid() != self._process

    @contextmanager
    def current(self) -> Iterator[None]:
        """Make the device current for this thread; a vendor's calls with addresses or streams of ours belong inside.

        RunnerError in a process that was forked from the one that opened it: CUDA does not survive a fork."""
        check_process(self._process)
        depth = getattr(self._nesting, "depth", 0)
        if depth == 0:
            self._nesting.before = self._enter()
        self._nesting.depth = depth + 1
        try:
            yield
        finally:
            self._nesting.depth = depth
            if depth == 0:
                self._leave(self._nesting.before)

    def memory(self) -> tuple[int, int]:
        """Bytes free and bytes in all."""
        with self.current():
            return self._memory()

    def allocate(self, size: int, what: str) -> Buffer:
        """`size` bytes for `what` (in words); RunnerError where memory lacks says how much is needed and free."""
        with self.current():
            try:
                address, release = self._allocate(max(int(size), 1))
            except OutOfDeviceMemory:
                raise self.out_of_memory(size, what) from None

        return Buffer(address, size, self.giving_back(release))

    def out_of_memory(self, size: int, what: str) -> RunnerError:
        """The error to raise where `size` bytes for `what` are not to be had."""
        free, total = self.memory()
        return RunnerError(
            f"no GPU memory left: {what} needs {_megabytes(size)}, {_megabytes(free)} of {_megabytes(total)} are free "
            f"on {self.gpu.name}; use fewer support entries or members, precision fp16, or close what else runs on "
            "this GPU", short="no GPU memory left")

    def upload(self, buffer: Buffer, array: Array, stream: Stream) -> None:
        """Enqueue a copy of a C-contiguous host array to the start of a buffer. The array must live until the stream
        has passed the copy; only from `pinned` memory does the call return at once."""
        if array.nbytes > buffer.size:
            raise RunnerError(f"{array.nbytes} bytes do not fit a device buffer of {buffer.size}")
        if not array.flags.c_contiguous:
            raise RunnerError("only a C-contiguous array can be copied to the device")
        with self.current():
            self._upload(buffer, array, stream)

    def download(self, array: Array, buffer: Buffer, stream: Stream) -> None:
        """Enqueue a copy of a buffer's start into a C-contiguous host array; valid after `stream.synchronize()`."""
        if array.nbytes > buffer.size:
            raise RunnerError(f"{array.nbytes} bytes are more than a device buffer of {buffer.size} has")
        if not array.flags.c_contiguous:
            raise RunnerError("only into a C-contiguous array can be copied from the device")
        with self.current():
            self._download(array, buffer, stream)

    def pinned(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """A host array in page-locked memory: copies run beside the host. RunnerError where no such memory is left."""
        dtype, count = np.dtype(dtype), int(np.prod(shape))
        with self.current():
            address, release = self._allocate_pinned(max(1, count * dtype.itemsize))

        memory = (ctypes.c_uint8 * (count * dtype.itemsize)).from_address(address)
        # The array holds `memory`, so that the pages go back when the last view of them is gone.
        weakref.finalize(memory, self.giving_back(release)).atexit = False
        array: Array = np.frombuffer(memory, dtype, count)  # type: ignore[call-overload]  # ctypes' arrays are buffers
        return array.reshape(shape)

    def giving_back(self, release: Callable[[], None]) -> Callable[[], None]:
        """`release` on this device; in a forked process nothing, since the memory is its parent's."""

        def give_back() -> None:
            if not self.is_forked:
                with self.current():
                    release()

        return give_back

    @abstractmethod
    def stream(self) -> Stream: ...

    @abstractmethod
    def capture(self, stream: Stream, enqueue: Callable[[], None]) -> Graph:
        """What `enqueue` puts on the stream, as a graph; it is not run. RunnerError, with the reason, where it cannot
        be."""

    @abstractmethod
    def _enter(self) -> object:
        """Make the device current; what it returns is given to `_leave`."""

    @abstractmethod
    def _leave(self, before: object) -> None: ...

    @abstractmethod
    def _memory(self) -> tuple[int, int]: ...

    @abstractmethod
    def _allocate(self, size: int) -> tuple[int, Callable[[], None]]:
        """Address and a function that frees it; OutOfDeviceMemory."""

    @abstractmethod
    def _allocate_pinned(self, size: int) -> tuple[int, Callable[[], None]]:
        """Address of page-locked host memory and a function that frees it."""

    @abstractmethod
    def _upload(self, buffer: Buffer, array: Array, stream: Stream) -> None: ...

    @abstractmethod
    def _download(self, array: Array, buffer: Buffer, stream: Stream) -> None: ...


_opened: dict[int, Device] = {}
_lock = Lock()


def open_device(ordinal: int | None = None) -> Device:
    """The GPU number `ordinal`, opened once a process.

    ordinal: as CUDA counts; None takes UNIVERSEG_RT_DEVICE, else 0. InputError for a bad number, RunnerError where
    none of LIBRARIES is installed or the first does not start: it names what to install, or what the driver said.
    """
    number = _ordinal(ordinal)
    with _lock:
        if number not in _opened:
            _opened[number] = _open(number)
        return _opened[number]


def _open(ordinal: int) -> Device:
    failures = []
    for library, (module, name) in LIBRARIES.items():
        if not _is_installed(library):
            continue
        try:
            device: Device = getattr(import_module(module, __package__), name)(ordinal)
        except ImportError as error:
            failures.append(RunnerError(
                f"{library} is installed and cannot be loaded ({error}); it needs the NVIDIA driver (libcuda.so.1) and "
                f"a CUDA version that fits: {CURE}",
                short="no NVIDIA driver" if "libcuda" in str(error) else f"{library} cannot be loaded"))
            continue
        log.info("the memory of GPU %d, %s, is managed by %s", ordinal, device.gpu.name, device.library)
        return device
    raise failures[0] if failures else RunnerError(
        f"pycuda is not installed, nor cuda-bindings, one of which manages GPU memory: {CURE}",
        short="neither pycuda nor cuda-bindings is installed")


def _is_installed(library: str) -> bool:
    package = library.partition(".")[0]
    return all(importlib.util.find_spec(each) is not None for each in dict.fromkeys((package, library)))


def no_gpu(error: Exception) -> RunnerError:
    """Where the driver does not start."""
    return RunnerError(f"CUDA sees no GPU ({error}); install the NVIDIA driver, or run on a machine with a GPU",
                       short="no NVIDIA GPU or driver")


def _ordinal(given: int | None) -> int:
    text = (said("device") or "0") if given is None else given
    try:
        number = int(text)
    except (TypeError, ValueError):
        number = -1
    if number < 0:
        raise InputError(f"the GPU's number is {text!r}; give 0 for the first (argument or {ORDINAL})")
    return number


def _megabytes(size: int) -> str:
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"
