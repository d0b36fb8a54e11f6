"""Which GPU and driver are here, in the words of an engine's fingerprint. `present_gpu` asks the driver alone: no
package is needed, and no context stays behind."""

from __future__ import annotations

import ctypes
import sys
from dataclasses import dataclass

_LIBRARIES = ("nvcuda.dll",) if sys.platform == "win32" else ("libcuda.so.1",)
_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR


@dataclass(frozen=True)
class Gpu:
    """A GPU: its name, its compute capability as "9.0", its memory in bytes, and the driver's CUDA version as
    "13.0"."""

    name: str
    compute_capability: str
    memory_bytes: int
    cuda: str

    @classmethod
    def of(cls, name: str, capability: tuple[int, int], memory_bytes: int, driver: int) -> Gpu:
        """From the driver's own values: compute capability (major, minor), its version as 1000 * major + 10 * minor."""
        return cls(name, f"{capability[0]}.{capability[1]}", memory_bytes, f"{driver // 1000}.{driver % 1000 // 10}")


def gpu_facts(gpu: Gpu | None) -> dict[str, str]:
    """What an engine is bound to of a GPU, by the fields of `bundle.engine.Fingerprint`; empty texts without one."""
    if gpu is None:
        return {"gpu": "", "compute_capability": "", "cuda": ""}
    return {"gpu": gpu.name, "compute_capability": gpu.compute_capability, "cuda": gpu.cuda}


def present_gpu(index: int = 0) -> Gpu | None:
    """The GPU of this number among those that this process may use; None without a driver or such a GPU."""
    driver = _driver()
    if driver is None:
        return None
    try:
        if driver.cuInit(0) != 0:
            return None
        device, number, size, name = ctypes.c_int(), ctypes.c_int(), ctypes.c_size_t(), ctypes.create_string_buffer(256)
        if driver.cuDeviceGet(ctypes.byref(device), index) != 0:
            return None
        values = []
        for attribute in (_MAJOR, _MINOR):
            _ok(driver.cuDeviceGetAttribute(ctypes.byref(number), attribute, device))
            values.append(number.value)
        _ok(driver.cuDeviceGetName(name, len(name), device))
        _ok(driver.cuDeviceTotalMem_v2(ctypes.byref(size), device))
        _ok(driver.cuDriverGetVersion(ctypes.byref(number)))
    except (AttributeError, OSError):
        return None
    return Gpu.of(name.value.decode(errors="replace"), (values[0], values[1]), size.value, number.value)


def has_driver() -> bool:
    """Whether NVIDIA's driver is installed; starts nothing on a GPU."""
    return _driver() is not None


def _driver() -> ctypes.CDLL | None:
    for name in _LIBRARIES:
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    return None


def _ok(status: int) -> None:
    if status != 0:
        raise OSError(f"the driver answers {status}")
