"""The CUDA library's C interface (support_mean.h) by ctypes: raw device addresses in, typed errors out."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from pathlib import Path

from universeg_rt.errors import InputError, RunnerError

from .host.module import BUFFERS

OK, INVALID, UNSUPPORTED, CUDA = range(4)


class Problem(ctypes.Structure):
    """support_mean_problem."""

    _fields_ = [("struct_size", ctypes.c_uint32), ("form", ctypes.c_int32), ("dtype", ctypes.c_int32),
                ("kernel", ctypes.c_int32), ("activated", ctypes.c_int32), ("layout", ctypes.c_int32),
                ("negative_slope", ctypes.c_float)] + [
        (name, ctypes.c_int64)
        for name in ("queries", "support_queries", "sets", "query_sets", "entries", "channels", "height", "width")
    ]


class Buffer(ctypes.Structure):
    """support_mean_buffer."""

    _fields_ = [("data", ctypes.c_void_p), ("bytes", ctypes.c_size_t)]


class Buffers(ctypes.Structure):
    """support_mean_buffers."""

    _fields_ = [(name, Buffer) for name in BUFFERS]


class Launch(ctypes.Structure):
    """support_mean_launch."""

    _fields_ = [(name, ctypes.c_int32) for name in ("kernel", "vector", "slices", "group")] + [
        (name, ctypes.c_uint32) for name in ("tiles", "groups", "blocks", "threads_x", "threads_y", "shared_bytes")
    ]


class Library:
    """An opened libsupport_mean.so. Problems are the dictionaries of support_mean.host.problem."""

    def __init__(self, path: str | os.PathLike | None = None):
        """path: the library; None: UNIVERSEG_RT_KERNELS, then beside this file. RunnerError where there is none."""
        path = Path(path or os.environ.get("UNIVERSEG_RT_KERNELS")
                    or Path(__file__).parents[1] / "lib" / "libsupport_mean.so")
        try:
            self._library = ctypes.CDLL(str(path))
        except OSError as error:
            raise RunnerError(
                f"cannot open {path}: {error}; run `python -m universeg_rt.kernels.build --cuda`") from None
        self.path = path

    def check(self, problem: dict, buffers: dict | None = None) -> None:
        """Raises InputError where `run` would refuse; makes no CUDA call. buffers: name -> (address, bytes)."""
        given = None if buffers is None else ctypes.byref(_buffers(buffers))
        self._call("support_mean_check", ctypes.byref(_problem(problem)), given)

    def sizes(self, problem: dict) -> dict[str, int]:
        """Bytes of each buffer; 0 for those that the problem does not have."""
        out = Buffers()
        self._call("support_mean_sizes", ctypes.byref(_problem(problem)), ctypes.byref(out))
        return {name: getattr(out, name).bytes for name in BUFFERS}

    def plan(self, problem: dict, multiprocessors: int) -> dict[str, int]:
        """The launch on a device with this many multiprocessors."""
        out = Launch()
        self._call("support_mean_plan", ctypes.byref(_problem(problem)), ctypes.c_int32(multiprocessors),
                   ctypes.byref(out))
        return {name: getattr(out, name) for name, _ in Launch._fields_}

    def run(self, problem: dict, buffers: dict, stream: int = 0) -> None:
        """Enqueues the operation. buffers: name -> (device address, bytes); stream: a cudaStream_t as an integer.

        Raises InputError before any launch, RunnerError with the CUDA error's name after a failed call.
        """
        self.prepared(problem, buffers)(stream)

    def prepared(self, problem: dict, buffers: dict) -> Callable[[int], None]:
        """`run` as a function of the stream, with the C structures made once: for many calls on the same buffers."""
        first, second = _problem(problem), _buffers(buffers)

        def enqueue(stream: int = 0) -> None:
            self._call("support_mean_run", ctypes.byref(first), ctypes.byref(second), ctypes.c_void_p(stream))

        return enqueue

    def _call(self, name: str, *arguments) -> None:
        message = ctypes.create_string_buffer(512)
        status = getattr(self._library, name)(*arguments, message, ctypes.c_size_t(len(message)))
        if status in (INVALID, UNSUPPORTED):
            raise InputError(message.value.decode())
        if status != OK:
            raise RunnerError(message.value.decode())


def _problem(values: dict) -> Problem:
    return Problem(struct_size=ctypes.sizeof(Problem), **values)


def _buffers(values: dict) -> Buffers:
    return Buffers(**{name: Buffer(address, size) for name, (address, size) in values.items()})
