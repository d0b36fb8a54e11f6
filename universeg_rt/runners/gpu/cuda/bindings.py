"""Device memory through NVIDIA's cuda-bindings, for machines that cannot compile pycuda: a wheel, which comes with
PyTorch's builds for CUDA."""

from __future__ import annotations

import weakref
from collections.abc import Callable

from cuda.bindings import driver as cuda

from ....errors import RunnerError
from ....named_types import Array, Vendor
from ..identity import Gpu
from . import graph as cuda_graph
from .device import NON_BLOCKING, Buffer, Device, Graph, OutOfDeviceMemory, Stream, no_gpu


class CudaBindings(Device):
    """One GPU through the CUDA driver."""

    library = "cuda-bindings"

    def __init__(self, ordinal: int) -> None:
        super().__init__()
        try:
            _call(cuda.cuInit, 0)
            count = _call(cuda.cuDeviceGetCount)
        except (RuntimeError, RunnerError) as error:  # the former where the driver's library is missing
            raise no_gpu(error) from None
        self.check_number(ordinal, count)
        device, attributes = _call(cuda.cuDeviceGet, ordinal), cuda.CUdevice_attribute
        major, minor = (_call(cuda.cuDeviceGetAttribute, each, device)
                        for each in (attributes.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR,
                                     attributes.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR))
        name = _call(cuda.cuDeviceGetName, 256, device).split(b"\0")[0].decode(errors="replace")
        self.gpu = Gpu.of(name, (major, minor), _call(cuda.cuDeviceTotalMem, device), _call(cuda.cuDriverGetVersion))
        self._context = _call(cuda.cuDevicePrimaryCtxRetain, device)

    def _enter(self) -> None:
        _call(cuda.cuCtxPushCurrent, self._context)

    def _leave(self, before: object) -> None:
        cuda.cuCtxPopCurrent()

    def stream(self) -> Stream:
        with self.current():
            return _Stream(int(_call(cuda.cuStreamCreate, NON_BLOCKING)), self)

    def capture(self, stream: Stream, enqueue: Callable[[], None]) -> Graph:
        return cuda_graph.capture(self, stream, enqueue)

    def _memory(self) -> tuple[int, int]:
        free, total = _call(cuda.cuMemGetInfo)
        return int(free), int(total)

    def _allocate(self, size: int) -> tuple[int, Callable[[], None]]:
        address = int(_call(cuda.cuMemAlloc, size))
        return address, lambda: cuda.cuMemFree(address)

    def _allocate_pinned(self, size: int) -> tuple[int, Callable[[], None]]:
        address = int(_call(cuda.cuMemAllocHost, size))
        return address, lambda: cuda.cuMemFreeHost(address)

    def _upload(self, buffer: Buffer, array: Array, stream: Stream) -> None:
        _call(cuda.cuMemcpyHtoDAsync, buffer.address, array.ctypes.data, array.nbytes, stream.handle)

    def _download(self, array: Array, buffer: Buffer, stream: Stream) -> None:
        _call(cuda.cuMemcpyDtoHAsync, array.ctypes.data, buffer.address, array.nbytes, stream.handle)


class _Stream(Stream):
    def __init__(self, handle: int, device: CudaBindings) -> None:
        self.handle, self._device = handle, device
        weakref.finalize(self, device.giving_back(lambda: cuda.cuStreamDestroy(handle))).atexit = False

    def synchronize(self) -> None:
        with self._device.current():
            _call(cuda.cuStreamSynchronize, self.handle)


def _call(function: Vendor, *arguments: Vendor) -> Vendor:
    """What a call gives beside its status: nothing, one value, or several as a tuple. RunnerError with the driver's
    name of what failed; OutOfDeviceMemory where that is memory."""
    status, *values = function(*arguments)
    if status != cuda.CUresult.CUDA_SUCCESS:
        kind = OutOfDeviceMemory if status == cuda.CUresult.CUDA_ERROR_OUT_OF_MEMORY else RunnerError
        raise kind(f"{function.__name__} failed: {status.name}")
    return values[0] if len(values) == 1 else tuple(values)
