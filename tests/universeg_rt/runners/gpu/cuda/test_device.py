"""The device-memory interface over stand-ins of pycuda and cuda-bindings, over cuda-bindings itself with a driver of
host memory, and CUDA graphs by the driver."""

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

from .....conftest import ROOT
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


# Graphs -------------------------------------------------------------------------------------------------------------

@pytest.fixture(scope="session")
def host_driver(tmp_path_factory):
    """A libcuda.so.1 of host memory."""
    library = tmp_path_factory.mktemp("driver") / "libcuda.so.1"
    source = ROOT / "tests" / "fakes" / "libcuda.cpp"
    try:
        subprocess.run(["c++", "-std=c++17", "-shared", "-fPIC", source, "-o", library, "-ldl"], check=True)
    except FileNotFoundError:
        pytest.skip("no C++ compiler")
    return library


@pytest.fixture
def libcuda(host_driver, monkeypatch):
    """The driver's library, a stream of it in a context that is current, and nothing left over of another test."""
    opened = ctypes.CDLL(str(host_driver))
    monkeypatch.setattr(cuda_graph, "driver", lambda: opened)
    context, stream = ctypes.c_void_p(), ctypes.c_void_p()
    opened.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0)
    opened.cuCtxPushCurrent_v2(context)
    opened.cuStreamCreate(ctypes.byref(stream), 1)
    opened.stream = types.SimpleNamespace(handle=stream.value)
    before = opened.counts(3)
    opened.launched = lambda: opened.counts(3) - before
    yield opened
    assert opened.cuStreamDestroy_v2(stream) == 0
    opened.cuCtxPopCurrent_v2(ctypes.byref(context))


def test_graphs_through_the_drivers_library(libcuda):
    gpu, stream = StandIn(), libcuda.stream
    seen = []
    graph = cuda_graph.capture(gpu, stream, lambda: seen.append(libcuda.counts(0)))
    assert seen == [1] and [libcuda.counts(i) for i in range(3)] == [0, 0, 1] and not libcuda.launched()
    graph.launch(stream), graph.launch(stream)
    assert libcuda.launched() == 2
    del graph
    gc.collect()
    assert libcuda.counts(2) == 0


def test_a_failed_capture_ends_it_and_says_why(libcuda):
    gpu, stream = StandIn(), libcuda.stream

    def fail():
        raise RunnerError("the engine failed to run")

    with pytest.raises(RunnerError, match="the engine failed to run"):
        cuda_graph.capture(gpu, stream, fail)
    assert [libcuda.counts(i) for i in range(3)] == [0, 0, 0]
    libcuda.refuse_next(901)
    with pytest.raises(RunnerError, match="cuStreamEndCapture failed: CUDA_ERROR_STREAM_CAPTURE_INVALIDATED"):
        cuda_graph.capture(gpu, stream, lambda: None)
    assert [libcuda.counts(i) for i in range(3)] == [0, 0, 0]


BY_BINDINGS = """
import ctypes, gc
import numpy as np
from universeg_rt.errors import RunnerError
from universeg_rt.runners.gpu.cuda import device
gpu = device.open_device(0)
left = ctypes.CDLL("libcuda.so.1").counts
assert gpu.place == "Host GPU (cuda-bindings)" and gpu.gpu == device.Gpu("Host GPU", "9.0", 1 << 20, "13.0"), gpu.gpu
stream, given, back = gpu.stream(), gpu.pinned((3, 5), np.float32), gpu.pinned((3, 5), np.float32)
buffer = gpu.allocate(given.nbytes, "values")
assert gpu.memory() == ((1 << 20) - 60, 1 << 20)
given[...], back[...] = np.arange(15).reshape(3, 5), 0
def work():
    gpu.upload(buffer, given, stream)
    gpu.download(back, buffer, stream)
work()
stream.synchronize()
assert np.array_equal(back, given)
graph = gpu.capture(stream, work)
given += 1
assert not np.array_equal(back, given)
graph.launch(stream)
stream.synchronize()
assert np.array_equal(back, given)
try:
    gpu.allocate(1 << 20, "the support")
except RunnerError as error:
    assert "no GPU memory left: the support needs 1.0 MB" in str(error), error
else:
    raise SystemExit("more memory than there is")
assert [left(i) for i in (4, 5, 6, 7)] == [1, 2, 1, 0], [left(i) for i in range(8)]
del graph, buffer, given, back, stream, work
gc.collect()
assert [left(i) for i in range(8)] == [0, 0, 0, 1, 0, 0, 0, 0], [left(i) for i in range(8)]
"""


def run_with_bindings(text: str, **environment: str) -> subprocess.CompletedProcess:
    """In a process of its own, where pycuda is not installed."""
    if not device._is_installed("cuda.bindings"):
        pytest.skip("cuda-bindings is not installed (pip install cuda-bindings)")
    text = "import sys; sys.modules['pycuda'] = None\n" + text
    return subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, cwd=ROOT,
                          env=os.environ | environment)


def test_cuda_bindings_themselves_copy_capture_and_free(host_driver):
    done = run_with_bindings(BY_BINDINGS, LD_LIBRARY_PATH=str(host_driver.parent))
    assert done.returncode == 0, done.stderr


def test_cuda_bindings_without_a_driver_say_so():
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        done = run_with_bindings("from universeg_rt.runners.gpu.cuda import device\ndevice.open_device(0)")
        assert "RunnerError: CUDA sees no GPU (Failed to dlopen libcuda.so.1); install the NVIDIA driver" in done.stderr
    else:
        pytest.skip("the NVIDIA driver is installed here")


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


def test_collection_stays_paused_until_the_last_thread_ends():
    first, second = cuda_graph.collection_paused(), cuda_graph.collection_paused()
    first.__enter__(), second.__enter__()
    first.__exit__(None, None, None)
    assert not gc.isenabled()
    second.__exit__(None, None, None)
    assert gc.isenabled()
    gc.disable()
    try:
        with cuda_graph.collection_paused():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
