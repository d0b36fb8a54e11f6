"""The TensorRT plugin library of each generation whose headers are found; TensorRT itself is not needed."""

import ctypes
import importlib.util
import os
import subprocess
import types
from pathlib import Path

import pytest

from universeg_rt.errors import InputError, RunnerError
from universeg_rt.runners.gpu.tensorrt import plugin as loading


def test_self_test_of_every_generation(plugins):
    """Creation, refused attributes, types and shapes, serialisation and back, through TensorRT's own interfaces."""
    for library, selftest in plugins:
        done = subprocess.run([selftest, library], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout
        assert done.stdout.count("\nok ") > 40 and "FAILED" not in done.stdout


def test_loads_without_tensorrt(plugins):
    for library, _ in plugins:
        opened = ctypes.CDLL(str(library), mode=ctypes.RTLD_LOCAL)
        info = loading.inspect(library)
        assert opened.universeg_rt_plugin_generation() == info.generation
        assert info.generation == loading.required_generation(info.headers + ".0")
        exported = "getCreators" if info.generation == 10 else "getPluginCreators"
        count = ctypes.c_int32()
        getattr(opened, exported)(ctypes.byref(count))
        assert count.value == len(loading.OPERATIONS)
        other = "getPluginCreators" if info.generation == 10 else "getCreators"
        assert not hasattr(opened, other)
        assert hasattr(opened, "setLoggerFinder") == (info.headers != "8.5")  # came with 8.6


def test_another_generation_is_refused_before_loading(plugins):
    """Both by the loader, from TensorRT's version, and by the library itself, from libnvinfer's."""
    for library, _ in plugins:
        info = loading.inspect(library)
        other = "8.6.1" if info.generation == 10 else "10.14.1"
        registry = types.SimpleNamespace(load_library=lambda path: pytest.fail("it was loaded"))
        module = types.SimpleNamespace(__version__=other, get_plugin_registry=lambda found=registry: found)
        with pytest.raises(RunnerError, match=f"built against TensorRT {info.headers} and TensorRT {other}"):
            loading.load(library, module)
        loaded = []
        registry.load_library = loaded.append
        module.__version__ = info.headers + ".1"
        assert loading.load(library, module) == info and loaded == [str(library)]


FAKE_LIBNVINFER = """
extern "C" int getInferLibVersion() { return VERSION; }
static void* nothing[64] = {0};
extern "C" void* getPluginRegistry() { return nothing; }
"""


def test_registering_with_a_libnvinfer_of_another_generation_is_refused(plugins, tmp_path):
    (tmp_path / "fake.cpp").write_text(FAKE_LIBNVINFER)
    for library, _ in plugins:
        info = loading.inspect(library)
        module = types.SimpleNamespace(__version__=info.headers + ".1", get_plugin_registry=lambda: None)
        # 8.6.1 and 10.14.1, as getInferLibVersion says them; a library of 10 registers by load_library alone.
        for version, said in {8601: "headers of TensorRT 8.5 to 9", 101401: "load_library instead"}.items() \
                if info.generation == 10 else {101401: "headers of TensorRT 10 or later"}.items():
            fake = tmp_path / f"libnvinfer{info.headers}-{version}.so"
            command = ["c++", "-shared", "-fPIC", f"-DVERSION={version}", tmp_path / "fake.cpp", "-o", fake]
            subprocess.run(command, check=True)
            with pytest.raises(RunnerError, match=f"runs under {8 if version == 8601 else 10}.*{said}"):
                loading.load(library, module, libnvinfer=ctypes.CDLL(str(fake)))


def test_what_is_no_plugin_is_refused(cuda, tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        loading.inspect(tmp_path / "none.so")
    (tmp_path / "text.so").write_text("text")
    with pytest.raises(InputError, match="not a universeg_rt plugin"):
        loading.inspect(tmp_path / "text.so")
    with pytest.raises(InputError, match="not a universeg_rt plugin"):
        loading.inspect(cuda.library)
    with pytest.raises(InputError, match="no TensorRT version"):
        loading.required_generation("new")


def test_tensorrt_85_needs_its_library_handle(plugins):
    library = next((p for p, _ in plugins if loading.inspect(p).generation == 8), None)
    if library is None:
        pytest.skip("TENSORRT_INCLUDE names no headers of TensorRT 8.5 to 9")
    module = types.SimpleNamespace(__version__="8.5.3.1", get_plugin_registry=lambda: types.SimpleNamespace())
    with pytest.raises(RunnerError, match="pass libnvinfer"):
        loading.load(library, module)


def test_registers_with_a_real_tensorrt_85(plugins):
    """The way of 8.5, on libnvinfer itself; its registry works without a GPU."""
    spec = importlib.util.find_spec("tensorrt")
    found = [Path(folder) / "libnvinfer.so.8" for folder in (spec.submodule_search_locations if spec else [])]
    found = [path for path in found if path.exists()]
    if "TENSORRT8_LIBRARY" in os.environ:
        found = [Path(os.environ["TENSORRT8_LIBRARY"])]
    if not found:
        pytest.skip("libnvinfer.so.8 was not found (install tensorrt==8.5.3.1, or set TENSORRT8_LIBRARY to its path)")
    pair = next(((p, t) for p, t in plugins if loading.inspect(p).generation == 8), None)
    if pair is None:
        pytest.skip("TENSORRT_INCLUDE names no headers of TensorRT 8.5 to 9")
    done = subprocess.run([pair[1], pair[0], found[0]], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout
    assert "ok     the operations register" in done.stdout
