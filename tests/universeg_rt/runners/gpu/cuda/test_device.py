"""The device-memory interface over stand-ins of pycuda and cuda-bindings."""

from __future__ import annotations

import gc
import importlib
import importlib.util
import sys
import types

import numpy as np
import pytest

from universeg_rt.errors import InputError, RunnerError
from universeg_rt.runners.gpu.cuda import device
from universeg_rt.runners.gpu.identity import Gpu

from .....fakes import pycuda
from .....fakes.cuda_bindings import bindings_driver
from .....fakes.device import StandIn

STAND_INS = {"pycuda": ("pycuda", pycuda.pycuda_driver), "cuda-bindings": ("cuda.bindings", bindings_driver)}


@pytest.fixture(params=STAND_INS)
def opener(monkeypatch, request):
    """open(...) -> (device, memory) with a library's stand-in in the place of the real one, and no other library."""
    name, make = STAND_INS[request.param]

    def open_it(limit: int = 1 << 20, gpus: int = 1):
        memory = pycuda.Memory(limit)
        monkeypatch.setattr(device, "LIBRARIES", {name: device.LIBRARIES[name]})
        above = None
        for end in (*[i for i, c in enumerate(name) if c == "."], len(name)):
            package = types.ModuleType(name[:end])
            package.__path__ = []
            package.__spec__ = importlib.util.spec_from_loader(package.__name__, loader=None)
            monkeypatch.setitem(sys.modules, package.__name__, package)
            if above is not None:
                setattr(above, package.__name__.rpartition(".")[2], package)
            above = package
        above.driver = make(memory, gpus)
        monkeypatch.setitem(sys.modules, f"{name}.driver", above.driver)
        module = device.__package__ + device.LIBRARIES[name][0]
        monkeypatch.delitem(sys.modules, module, raising=False)
        monkeypatch.setattr(device, "_opened", {})
        try:
            return device.open_device(0), memory
        finally:
            sys.modules.pop(module, None)

    open_it.library = request.param
    return open_it


def test_memory_copies_and_streams(opener):
    gpu, memory = opener()
    assert (gpu.library, gpu.gpu) == (opener.library, Gpu("Fake GPU", "8.6", 1 << 20, "12.4"))
    assert gpu.place == f"Fake GPU ({opener.library})"
    stream, values = gpu.stream(), gpu.pinned((3, 5), np.float32)
    assert stream.handle == 4711
    values[...] = np.arange(15).reshape(3, 5)
    buffer = gpu.allocate(values.nbytes, "values")
    assert buffer.size == 60 and buffer.address in memory.blocks and gpu.memory() == (memory.limit - 60, memory.limit)
    gpu.upload(buffer, values, stream)
    back = np.zeros((3, 5), np.float32)
    gpu.download(back, buffer, stream)
    stream.synchronize()
    assert np.array_equal(back, values)
    buffer.free()
    buffer.free()  # a second time does nothing
    assert not memory.blocks
    again = gpu.allocate(8, "more")
    part = values[1:]
    del again, values, stream
    gc.collect()
    assert not memory.blocks and memory.pinned  # a view still holds the pages
    assert part[0, 0] == 5
    del part
    gc.collect()
    assert not memory.pinned
    assert memory.pushed == 0


def test_no_memory_left_says_how_much_is_needed_and_free(opener):
    gpu, memory = opener(limit=3_000_000)
    kept = gpu.allocate(1_000_000, "a")
    needed = "no GPU memory left: the support needs 2.5 MB, 2.0 MB of 3.0 MB are free on Fake GPU; use"
    with pytest.raises(RunnerError, match=needed) as caught:
        gpu.allocate(2_500_000, "the support")
    assert caught.value.short == "no GPU memory left"
    assert gpu.allocate(2_000_000, "what fits") and kept and memory.limit == 3_000_000


def test_a_machine_without_a_gpu_is_told_so(opener):
    with pytest.raises(RunnerError, match="CUDA sees no GPU .*; install the NVIDIA driver") as caught:
        opener(gpus=0)
    assert caught.value.short == "no NVIDIA GPU or driver"


def test_a_gpu_that_is_not_there(opener):
    opener()
    with pytest.raises(RunnerError, match="there is no GPU number 3; CUDA sees 1"):
        device.open_device(3)


def test_copies_that_do_not_fit_are_refused():
    gpu = StandIn()
    buffer, stream = gpu.allocate(16, "x"), gpu.stream()
    with pytest.raises(RunnerError, match="20 bytes do not fit a device buffer of 16"):
        gpu.upload(buffer, np.zeros(5, np.float32), stream)
    with pytest.raises(RunnerError, match="are more than a device buffer of 16"):
        gpu.download(np.zeros(5, np.float32), buffer, stream)
    with pytest.raises(RunnerError, match="C-contiguous"):
        gpu.upload(buffer, np.zeros((2, 2), np.float32)[:, :1], stream)


def test_the_context_is_entered_once_however_deep():
    gpu = StandIn()
    with gpu.current(), gpu.current():
        gpu.allocate(4, "x").free()
    assert gpu.calls["enter"] == 1
    gpu.memory()
    assert gpu.calls["enter"] == 2


# The library --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("missing, broken, expected", [
    ("", "", [".pycuda"]), ("pycuda", "", [".bindings"]), ("", ".pycuda", [".pycuda", ".bindings"])])
def test_pycuda_comes_first_and_the_other_where_it_is_missing_or_broken(monkeypatch, caplog, missing, broken, expected):
    asked = []

    def imported(module, package):
        asked.append(module)
        if module == broken:
            raise ImportError("libcurand.so.10: cannot open shared object file")
        return types.SimpleNamespace(PyCuda=lambda ordinal: StandIn(), CudaBindings=lambda ordinal: StandIn())

    monkeypatch.setattr(device, "_opened", {})
    monkeypatch.setattr(device.importlib.util, "find_spec", lambda name: None if name == missing else object())
    monkeypatch.setattr(device, "import_module", imported)
    with caplog.at_level("INFO", "universeg_rt"):
        device.open_device(0)
    assert asked == expected and "the memory of GPU 0, Stand-in GPU, is managed by stand-in" in caplog.text


def test_without_either_the_cure_is_named(monkeypatch):
    monkeypatch.setattr(device, "_opened", {})
    monkeypatch.setattr(device.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
            RunnerError,
            match="^pycuda is not installed, nor cuda-b.*pip install pycuda.*curand.h.*pip install cuda-b") as caught:
        device.open_device()
    assert caught.value.short == "neither pycuda nor cuda-bindings is installed"


def test_the_users_gpu_is_taken_and_opened_once(monkeypatch):
    opened = []
    monkeypatch.setattr(device, "_opened", {})
    monkeypatch.setattr(device, "_open", lambda ordinal: opened.append(ordinal) or ordinal)
    monkeypatch.delenv(device.ORDINAL, raising=False)
    assert device.open_device() == 0
    monkeypatch.setenv(device.ORDINAL, "1")
    assert device.open_device() == 1 and device.open_device(0) == 0 and device.open_device(1) == 1
    assert opened == [0, 1]
    monkeypatch.setenv(device.ORDINAL, "first")
    with pytest.raises(InputError, match="the GPU's number is 'first'"):
        device.open_device()


def test_a_library_that_cannot_be_loaded_names_the_driver(monkeypatch):
    monkeypatch.setattr(device, "_opened", {})
    monkeypatch.setattr(device.importlib.util, "find_spec", lambda name: object())

    def missing(name, package):
        raise ImportError("libcuda.so.1: cannot open shared object file: No such file or directory")

    monkeypatch.setattr(device, "import_module", missing)
    with pytest.raises(RunnerError,
                       match="pycuda is installed and cannot be loaded .libcuda.so.1.*NVIDIA driver") as caught:
        device.open_device()
    assert caught.value.short == "no NVIDIA driver"
