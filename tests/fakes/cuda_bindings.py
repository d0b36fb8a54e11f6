"""`cuda.bindings.driver` over host memory, as far as runners use it: a status and values for every call, numbers for
all handles and addresses."""

from __future__ import annotations

import enum
import types
from types import ModuleType

from .pycuda import Memory

Result = enum.IntEnum("CUresult", {"CUDA_SUCCESS": 0, "CUDA_ERROR_OUT_OF_MEMORY": 2, "CUDA_ERROR_NO_DEVICE": 100})
CAPABILITY = {75: 8, 76: 6}


def bindings_driver(memory: Memory, gpus: int = 1) -> ModuleType:
    """The module; the context must be pushed for every call with memory or streams."""
    driver = types.ModuleType("cuda.bindings.driver")
    driver.CUresult = Result
    driver.CUdevice_attribute = enum.IntEnum("CUdevice_attribute", {
        "CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR": 75, "CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR": 76})
    done = (Result.CUDA_SUCCESS,)

    def push(context):
        assert context == 99
        memory.pushed += 1
        return done

    def pop():
        memory.pushed -= 1
        return *done, 99

    def allocate(size):
        if memory.used + size > memory.limit:
            return Result.CUDA_ERROR_OUT_OF_MEMORY, None
        return *done, memory.take(size)

    def copy(to, source, size, stream):
        assert stream == 4711 and all(type(each) is int for each in (to, source, size))
        memory.copy(to, source, size)
        return done

    def destroy(stream):
        assert memory.pushed and stream == 4711
        return done

    driver.cuInit = lambda flags: done if gpus else (Result.CUDA_ERROR_NO_DEVICE,)
    driver.cuDeviceGetCount = lambda: (*done, gpus)
    driver.cuDeviceGet = lambda ordinal: (*done, ordinal)
    driver.cuDeviceGetAttribute = lambda attribute, device: (*done, CAPABILITY[attribute])
    driver.cuDeviceGetName = lambda size, device: (*done, b"Fake GPU".ljust(size, b"\0"))
    driver.cuDeviceTotalMem = lambda device: (*done, memory.limit)
    driver.cuDriverGetVersion = lambda: (*done, 12040)
    driver.cuDevicePrimaryCtxRetain = lambda device: (*done, 99)
    driver.cuCtxPushCurrent, driver.cuCtxPopCurrent = push, pop
    driver.cuMemGetInfo = lambda: (*done, memory.limit - memory.used, memory.limit)
    driver.cuMemAlloc, driver.cuMemFree = allocate, lambda address: (memory.give(address), done)[1]
    driver.cuMemAllocHost = lambda size: (*done, memory.take(size, "pinned"))
    driver.cuMemFreeHost = lambda address: (memory.give(address, "pinned"), done)[1]
    driver.cuMemcpyHtoDAsync = driver.cuMemcpyDtoHAsync = copy
    driver.cuStreamCreate = lambda flags: (*done, 4711 if flags == 1 else 0)
    driver.cuStreamDestroy = destroy
    driver.cuStreamSynchronize = lambda stream: done if stream == 4711 and memory.pushed else (1,)
    return driver
