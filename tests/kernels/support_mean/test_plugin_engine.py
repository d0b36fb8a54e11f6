"""The whole exported network becomes a plan with the plugin inside, built by universeg-export's own way (TensorRT-RTX,
CPU)."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys

import pytest

pytest.importorskip("onnx", reason="onnx is not installed: pip install '.[export]'")

from universeg_rt import Bundle
from universeg_rt.bundle.engine import Profile
from universeg_rt.errors import EngineError
from universeg_rt.export.engine.build import EngineOptions, build_engines
from universeg_rt.runners.gpu.tensorrt import plugin as loading

PROFILE = Profile((1, 1, 2), (1, 1, 3), (1, 4, 8), (32, 32))


@pytest.fixture
def build(typed_bundle, tmp_path, tensorrt_rtx, monkeypatch):
    for name, value in tensorrt_rtx.items():
        monkeypatch.setenv(name, value)
    bundle = Bundle.open(shutil.copytree(typed_bundle, tmp_path / "bundle"))

    def run(plugin, precision="fp32"):
        options = EngineOptions("tensorrt-rtx", (precision,), ("whole", "predict"), PROFILE, plugin)
        return bundle.path, build_engines(Bundle.open(bundle.path), options, say=lambda line: None)

    return run


def of_generation(plugins, generation):
    for path, _ in reversed(plugins):
        if loading.inspect(path).generation == generation:
            return path
    pytest.skip(f"TENSORRT_INCLUDE names no headers for a plugin of generation {generation}")


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_with_the_plugin_and_with_native_operators(build, plugins, precision):
    library = of_generation(plugins, 10)
    folder, native = build(None, precision)
    folder, ours = build(library, precision)
    for plain, outcome in zip(native, ours):
        made = outcome.entry.fingerprint
        assert made.plugin_sha256 == hashlib.sha256(library.read_bytes()).hexdigest()
        assert made.plugin_version == loading.inspect(library).headers and not plain.entry.fingerprint.plugin_sha256
        plan = (folder / outcome.entry.file).read_bytes()
        assert b"SupportMean" in plan and b"SupportMean" not in (folder / plain.entry.file).read_bytes()
        with pytest.raises(EngineError, match="plugin_sha256: built for .*, here is 'another'"):
            made.check("engine", plugin_sha256="another")
    assert len(Bundle.open(folder).manifest.engines) == 4


def test_a_plugin_for_tensorrt_8_is_refused_by_name(build, plugins):
    library = of_generation(plugins, 8)
    with pytest.raises(EngineError,
                       match=f"{library.name} was built against TensorRT .* build it against headers of 10 or later"):
        build(library)


def test_under_tensorrt_8_5_the_plugin_is_registered_with_the_library_that_the_package_opened(plugins):
    """The way for versions without load_library, with NVIDIA's own libnvinfer.so.8 under a stand-in for its module."""
    if "TENSORRT8_LIBRARY" not in os.environ:
        pytest.skip("needs libnvinfer.so.8 of TensorRT 8.5 (set TENSORRT8_LIBRARY to its path)")
    code = ("import ctypes, sys, types; from universeg_rt.export.engine.worker import _load_plugin; "
            "opened = ctypes.CDLL(sys.argv[1]); "
            "module = types.SimpleNamespace(__version__='8.5.3.1', get_plugin_registry=object); "
            "print(_load_plugin(module, sys.argv[2]))")
    library = of_generation(plugins, 8)
    done = subprocess.run([sys.executable, "-c", code, os.environ["TENSORRT8_LIBRARY"], library], capture_output=True,
                          text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == loading.inspect(library).headers
