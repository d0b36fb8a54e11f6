"""Device memory, streams and graphs behind one small interface, so that a runner knows neither pycuda nor cuda-python.

`open_device()` takes the library that is installed (pycuda first); UNIVERSEG_RT_DEVICE_LIBRARY=cuda-python or an
argument chooses. Both work in the device's primary context, the one that PyTorch, ONNX Runtime and TensorRT use too.
"""

from __future__ import annotations

import ctypes
import importlib.util
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from threading import Lock, local

import numpy as np

from ....environment import said, variable
from ....errors import InputError, RunnerError

# name -> (module whose presence says that it is installed, module here, class, command that installs it).
LIBRARIES = {
    "pycuda": ("pycuda", "pycuda", "PyCuda",
               "pip install pycuda (it compiles, and wants curand.h: pip install nvidia-curand and put its include folder on "
               "CPATH, or build it with CUDA_ENABLE_CURAND=False in siteconf.py)"),
    "cuda-python": ("cuda", "cuda_python", "CudaPython", "pip install cuda-python"),
}
CHOICE, ORDINAL = variable("device_library"), variable("device")


class OutOfDeviceMemory(Exception):
    """What an implementation raises where the device has not the bytes; callers get a RunnerError that says how many."""


class Buffer:
    """`size` bytes of device memory at `address`; given back by `free`, or when nobody holds it any more."""

    def __init__(self, address: int, size: int, give_back: Callable[[], None]) -> None:
        self.address, self.size = address, size
        self._finalizer = weakref.finalize(self, give_back)
        self._finalizer.atexit = False  # the driver takes all back when the process ends

    def free(self) -> None:
        self._finalizer()


class Stream(ABC):
    """Work on the device in the order in which it was given. handle: the cudaStream_t as an integer."""

    handle: int

    @abstractmethod
    def synchronize(self) -> None:
        """Wait for all of it; RunnerError where some of it failed."""


class Event(ABC):
    """A point in a stream."""

    @abstractmethod
    def record(self, stream: Stream) -> None: ...

    @abstractmethod
    def seconds_since(self, earlier: Event) -> float:
        """Waits for this event; both must have been recorded."""


class Graph(ABC):
    """Work captured from a stream, launched again as one."""

    @abstractmethod
    def launch(self, stream: Stream) -> None: ...


class Device(ABC):
    """One GPU through one library. Every method may be called from any thread.

    library: of LIBRARIES. name: the GPU's. compute_capability: as "9.0". driver: the CUDA version of the driver, as "13.0".
    """

    library: str = ""
    name: str = ""
    compute_capability: str = ""
    driver: str = ""

    def __init__(self) -> None:
        self._nesting = local()

    @contextmanager
    def current(self) -> Iterator[None]:
        """Make the device current for this thread; a vendor's calls with addresses or streams of ours belong inside."""
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
        """`size` bytes for `what` (in words); RunnerError saying how much is needed and free where there is not enough."""
        with self.current():
            try:
                address, release = self._allocate(max(int(size), 1))
            except OutOfDeviceMemory:
                raise self.out_of_memory(size, what) from None

        def give_back() -> None:
            with self.current():
                release()

        return Buffer(address, size, give_back)

    def out_of_memory(self, size: int, what: str) -> RunnerError:
        """The error to raise where `size` bytes for `what` are not to be had."""
        free, total = self.memory()
        return RunnerError(
            f"no GPU memory left: {what} needs {_megabytes(size)}, {_megabytes(free)} of {_megabytes(total)} are free on "
            f"{self.name}; use fewer support entries or members, precision fp16, or close what else runs on this GPU",
            short="no GPU memory left")

    def upload(self, buffer: Buffer, array: np.ndarray, stream: Stream) -> None:
        """Enqueue a copy of a C-contiguous host array to the start of a buffer. The array must live until the stream has
        passed the copy; only from `pinned` memory does the call return at once."""
        if array.nbytes > buffer.size:
            raise RunnerError(f"{array.nbytes} bytes do not fit a device buffer of {buffer.size}")
        if not array.flags.c_contiguous:
            raise RunnerError("only a C-contiguous array can be copied to the device")
        with self.current():
            self._upload(buffer, array, stream)

    def download(self, array: np.ndarray, buffer: Buffer, stream: Stream) -> None:
        """Enqueue a copy of the start of a buffer into a C-contiguous host array; valid after `stream.synchronize()`."""
        if array.nbytes > buffer.size:
            raise RunnerError(f"{array.nbytes} bytes are more than a device buffer of {buffer.size} has")
        if not array.flags.c_contiguous:
            raise RunnerError("only into a C-contiguous array can be copied from the device")
        with self.current():
            self._download(array, buffer, stream)

    def pinned(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """A host array in page-locked memory, from and to which copies run beside the host; RunnerError where none is left."""
        dtype, count = np.dtype(dtype), int(np.prod(shape))
        with self.current():
            address, release = self._allocate_pinned(max(1, count * dtype.itemsize))

        def give_back() -> None:
            with self.current():
                release()

        memory = (ctypes.c_uint8 * (count * dtype.itemsize)).from_address(address)
        # The array holds `memory`, so that the pages go back when the last view of them is gone.
        weakref.finalize(memory, give_back).atexit = False
        return np.frombuffer(memory, dtype, count).reshape(shape)

    @abstractmethod
    def stream(self) -> Stream: ...

    @abstractmethod
    def event(self) -> Event: ...

    @abstractmethod
    def capture(self, stream: Stream, enqueue: Callable[[], None]) -> Graph:
        """What `enqueue` puts on the stream, as a graph; it is not run. RunnerError, with the reason, where it cannot be."""

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
    def _upload(self, buffer: Buffer, array: np.ndarray, stream: Stream) -> None: ...

    @abstractmethod
    def _download(self, array: np.ndarray, buffer: Buffer, stream: Stream) -> None: ...


_opened: dict[tuple[str, int], Device] = {}
_lock = Lock()


def open_device(library: str | None = None, ordinal: int | None = None) -> Device:
    """The GPU number `ordinal` through `library`, opened once a process.

    library: of LIBRARIES; None takes UNIVERSEG_RT_DEVICE_LIBRARY, else the first that is installed and starts.
    ordinal: as CUDA counts; None takes UNIVERSEG_RT_DEVICE, else 0. InputError for an unknown library or a bad number,
    RunnerError where neither library starts: it names what to install, or what the driver said.
    """
    wanted = library or said("device_library")
    if wanted is not None and wanted not in LIBRARIES:
        raise InputError(f"the device library is {wanted!r}; accepted: {', '.join(LIBRARIES)} (argument or {CHOICE})")
    number = _ordinal(ordinal)
    names = [wanted] if wanted else [name for name in LIBRARIES if importlib.util.find_spec(LIBRARIES[name][0])]
    if not names:
        cures = "; or ".join(cure for *_, cure in LIBRARIES.values())
        raise RunnerError(f"neither pycuda nor cuda-python is installed, and one of them must manage GPU memory: {cures}",
                          short="neither pycuda nor cuda-python is installed")
    failures = []
    for name in names:
        with _lock:
            if (name, number) not in _opened:
                try:
                    _opened[name, number] = _open(name, number)
                except RunnerError as error:
                    failures.append(error)
                    continue
            return _opened[name, number]
    if len(failures) == 1:
        raise failures[0]
    raise RunnerError("; ".join(str(error) for error in failures), short=failures[0].short)


def _open(name: str, ordinal: int) -> Device:
    package, module, cls, cure = LIBRARIES[name]
    if importlib.util.find_spec(package) is None:
        raise RunnerError(f"{name} is not installed: {cure}", short=f"{name} is not installed")
    try:
        return getattr(import_module(f".{module}", __package__), cls)(ordinal)
    except ImportError as error:
        short = "no NVIDIA driver" if "libcuda" in str(error) else f"{name} cannot be loaded"
        raise RunnerError(
            f"{name} is installed and cannot be loaded ({error}); it needs the NVIDIA driver (libcuda.so.1) and a CUDA "
            f"version that fits: {cure}", short=short) from None


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
