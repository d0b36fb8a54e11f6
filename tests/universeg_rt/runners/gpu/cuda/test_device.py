"""The device-memory interface over a stand-in of pycuda, and CUDA graphs by the driver."""

from __future__ import annotations

import ctypes
import gc
import importlib
import importlib.util
import os
import subprocess
import sys
import types
import weakref

import numpy as np
import pytest

from universeg_rt.errors import InputError, RunnerError
from universeg_rt.runners.gpu.cuda import device
from universeg_rt.runners.gpu.cuda import graph as cuda_graph
from universeg_rt.runners.gpu.identity import Gpu

from .....fakes import pycuda
from .....fakes.device import StandIn


@pytest.fixture
def opener(monkeypatch):
    """open(...) -> (device, memory) with pycuda's stand-in in the place of the real one."""

    def open_it(limit: int = 1 << 20, gpus: int = 1):
        memory, package = pycuda.Memory(limit), types.ModuleType("pycuda")
        package.__path__ = []
        package.__spec__ = importlib.util.spec_from_loader(package.__name__, loader=None)
        package.driver = pycuda.pycuda_driver(memory, gpus)
        monkeypatch.setitem(sys.modules, "pycuda", package)
        monkeypatch.setitem(sys.modules, "pycuda.driver", package.driver)
        module = f"{device.__package__}.pycuda"
        monkeypatch.delitem(sys.modules, module, raising=False)
        monkeypatch.setattr(device, "_opened", {})
        try:
            return device.open_device(0), memory
        finally:
            sys.modules.pop(module, None)

    return open_it


def test_memory_copies_and_streams(opener):
    gpu, memory = opener()
    assert (gpu.library, gpu.gpu) == ("pycuda", Gpu("Fake GPU", "8.6", 1 << 20, "12.4"))
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


def test_without_pycuda_the_cure_is_named(monkeypatch):
    monkeypatch.setattr(device, "_opened", {})
    monkeypatch.setattr(device.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
            RunnerError,
            match="^pycuda is not installed.*pip install pycuda.*curand.h.*pip install nvidia-curand") as caught:
        device.open_device()
    assert caught.value.short == "pycuda is not installed"


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


# Graphs -------------------------------------------------------------------------------------------------------------

FAKE_DRIVER = """
#include <cstring>
static int capturing = 0, alive = 0, executables = 0, launches = 0, refuse = 0;
extern "C" {
void refuse_next(int status) { refuse = status; }
int counts(int what) { int all[] = {capturing, alive, executables, launches}; return all[what]; }
int cuStreamBeginCapture_v2(void* stream, int mode) {
    if (stream != (void*)64 || mode != 1) return 1; capturing = 1; return 0; }
int cuStreamEndCapture(void* stream, void** graph) {
    capturing = 0; if (refuse) { int r = refuse; refuse = 0; *graph = 0; return r; }
    ++alive; *graph = (void*)7; return 0; }
int cuGraphInstantiateWithFlags(void** executable, void* graph, unsigned long long flags) {
    if (graph != (void*)7 || flags) return 1; ++executables; *executable = (void*)9; return 0; }
int cuGraphDestroy(void* graph) { if (graph != (void*)7) return 1; --alive; return 0; }
int cuGraphExecDestroy(void* executable) { if (executable != (void*)9) return 1; --executables; return 0; }
int cuGraphLaunch(void* executable, void* stream) {
    if (executable != (void*)9 || stream != (void*)64) return 1; ++launches; return 0; }
int cuGetErrorName(int status, const char** text) {
    *text = status == 901 ? "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED" : "OTHER"; return 0; }
}
"""


@pytest.fixture
def libcuda(tmp_path, monkeypatch):
    source, library = tmp_path / "driver.cpp", tmp_path / "libcuda.so"
    source.write_text(FAKE_DRIVER)
    try:
        subprocess.run(["c++", "-shared", "-fPIC", source, "-o", library], check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("no C++ compiler")
    opened = ctypes.CDLL(str(library))
    monkeypatch.setattr(cuda_graph, "driver", lambda: opened)
    return opened


def test_graphs_through_the_drivers_library(libcuda):
    gpu, stream = StandIn(), types.SimpleNamespace(handle=64)
    seen = []
    graph = cuda_graph.capture(gpu, stream, lambda: seen.append(libcuda.counts(0)))
    assert seen == [1] and [libcuda.counts(i) for i in range(4)] == [0, 0, 1, 0]
    graph.launch(stream), graph.launch(stream)
    assert libcuda.counts(3) == 2
    del graph
    gc.collect()
    assert libcuda.counts(2) == 0


def test_a_failed_capture_ends_it_and_says_why(libcuda):
    gpu, stream = StandIn(), types.SimpleNamespace(handle=64)

    def fail():
        raise RunnerError("the engine failed to run")

    with pytest.raises(RunnerError, match="the engine failed to run"):
        cuda_graph.capture(gpu, stream, fail)
    assert [libcuda.counts(i) for i in range(3)] == [0, 0, 0]
    libcuda.refuse_next(901)
    with pytest.raises(RunnerError, match="cuStreamEndCapture failed: CUDA_ERROR_STREAM_CAPTURE_INVALIDATED"):
        cuda_graph.capture(gpu, stream, lambda: None)
    assert [libcuda.counts(i) for i in range(3)] == [0, 0, 0]


def test_without_a_driver_its_library_is_named():
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        with pytest.raises(RunnerError, match="NVIDIA driver's library cannot be loaded .*; install the driver"):
            cuda_graph.driver()
    else:
        assert cuda_graph.driver()


def test_a_forked_process_is_told_so_and_frees_nothing_of_its_parents():
    gpu = StandIn()
    buffer = gpu.allocate(64, "a test")
    child = os.fork()
    if child == 0:
        try:
            buffer.free()
            kept = buffer.address in gpu.blocks
            with pytest.raises(RunnerError, match="forked from one that uses the GPU.*spawn"):
                gpu.memory()
            os._exit(0 if kept else 1)
        finally:
            os._exit(2)
    assert os.waitpid(child, 0)[1] == 0
    buffer.free()
    assert not gpu.blocks


def test_nothing_is_collected_while_a_graph_is_captured():
    class Loop:
        def __init__(self) -> None:
            self.itself = self
            weakref.finalize(self, freed.append, 1)

    freed: list[int] = []
    with cuda_graph.collection_paused():
        Loop()
        before = gc.get_threshold()
        gc.set_threshold(1)
        _ = [[] for _ in range(1000)]
        gc.set_threshold(*before)
        assert not freed
    gc.collect()
    assert freed and gc.isenabled()
