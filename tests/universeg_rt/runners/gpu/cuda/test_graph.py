"""CUDA graphs by the driver, over its library of host memory and by cuda-bindings; forks and collection."""

from __future__ import annotations

import ctypes
import gc
import os
import subprocess
import sys
import types
import weakref

import pytest

from universeg_rt.errors import RunnerError
from universeg_rt.runners.gpu.cuda import device
from universeg_rt.runners.gpu.cuda import graph as cuda_graph

from .....conftest import ROOT
from .....fakes.device import StandIn


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
