"""CUDA graphs by the driver's own library, whichever library manages memory: pycuda has no calls for them."""

from __future__ import annotations

import ctypes
import gc
import sys
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from threading import Lock

from ....errors import RunnerError
from .device import Device, Graph, Stream

THREAD_LOCAL = 1  # CU_STREAM_CAPTURE_MODE_THREAD_LOCAL: other threads may allocate meanwhile


class DriverGraph(Graph):
    """A cuGraphExec."""

    def __init__(self, device: Device, executable: ctypes.c_void_p) -> None:
        self._device, self._executable = device, executable
        self._finalizer = weakref.finalize(self, _destroy, device, executable)
        self._finalizer.atexit = False

    def launch(self, stream: Stream) -> None:
        with self._device.current():
            _call("cuGraphLaunch", self._executable, ctypes.c_void_p(stream.handle))


def capture(device: Device, stream: Stream, enqueue: Callable[[], None]) -> DriverGraph:
    """What `enqueue` puts on the stream, as a graph; RunnerError with the reason where it cannot be captured."""
    graph, executable = ctypes.c_void_p(), ctypes.c_void_p()
    handle = ctypes.c_void_p(stream.handle)
    with device.current(), collection_paused():
        _call("cuStreamBeginCapture_v2", handle, ctypes.c_int(THREAD_LOCAL))
        failure: BaseException | None = None
        try:
            enqueue()
        except BaseException as error:
            failure = error
        # Ends the capture also after an error: the stream could not be used again otherwise.
        status = driver().cuStreamEndCapture(handle, ctypes.byref(graph))
        if failure is not None:
            if graph:
                driver().cuGraphDestroy(graph)
            raise failure
        _check("cuStreamEndCapture", status)
        if not graph:
            raise RunnerError("the capture of a CUDA graph gave nothing")
        try:
            if hasattr(driver(), "cuGraphInstantiateWithFlags"):  # CUDA 11.4
                _call("cuGraphInstantiateWithFlags", ctypes.byref(executable), graph, ctypes.c_ulonglong(0))
            else:
                _call("cuGraphInstantiate_v2", ctypes.byref(executable), graph, None, None, ctypes.c_size_t(0))
        finally:
            driver().cuGraphDestroy(graph)
    return DriverGraph(device, executable)


_pausing = Lock()
_pauses: list[bool] = []  # of each that is held: whether collection was on before the first


@contextmanager
def collection_paused() -> Iterator[None]:
    """Let the garbage collector wait, until the last of those that paused it ends, in whatever thread: what it frees on
    the device, ours or another library's, spoils a capture."""
    with _pausing:
        _pauses.append(_pauses[0] if _pauses else gc.isenabled())
        gc.disable()
    try:
        yield
    finally:
        with _pausing:
            if _pauses.pop() and not _pauses:
                gc.enable()


@lru_cache(maxsize=1)
def driver() -> ctypes.CDLL:
    """libcuda, which comes with the NVIDIA driver; RunnerError where there is none."""
    name = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
    try:
        return ctypes.CDLL(name)
    except OSError as error:
        raise RunnerError(f"the NVIDIA driver's library cannot be loaded ({error}); install the driver",
                          short="no NVIDIA driver") from None


def _call(name: str, *arguments: object) -> None:
    _check(name, getattr(driver(), name)(*arguments))


def _check(name: str, status: int) -> None:
    if status:
        text = ctypes.c_char_p()
        driver().cuGetErrorName(ctypes.c_int(status), ctypes.byref(text))
        raise RunnerError(f"{name} failed: {(text.value or str(status).encode()).decode()}")


def _destroy(device: Device, executable: ctypes.c_void_p) -> None:
    if device.is_forked:
        return
    with device.current():
        driver().cuGraphExecDestroy(executable)
