"""Which plugin library an engine gets, and how often it is loaded; the libraries themselves have tests in
tests/kernels."""

from __future__ import annotations

import hashlib
import types
from pathlib import Path

import pytest

from universeg_rt.errors import RunnerError
from universeg_rt.runners import Options
from universeg_rt.runners.gpu.tensorrt import choose as trt_choose
from universeg_rt.runners.gpu.tensorrt import plugin
from universeg_rt.runners.gpu.tensorrt import runner as tensorrt_runner

from .....fakes import tensorrt
from .....fakes.device import StandIn
from ...conftest import add_engines, queries, support


@pytest.fixture
def library(tmp_path, monkeypatch) -> tuple[Path, str]:
    """A file in the place of a plugin library, named in UNIVERSEG_RT_PLUGIN, and its sha256."""
    path = tmp_path / "libuniverseg_rt_plugin_trt10.14.so"
    path.write_bytes(b"a library")
    monkeypatch.setenv("UNIVERSEG_RT_PLUGIN", f"{tmp_path / 'none.so'}:{path}")
    monkeypatch.setattr(plugin, "_loaded", set())
    return path, hashlib.sha256(b"a library").hexdigest()


def test_a_library_is_found_by_its_sha256(library):
    path, sha256 = library
    named = Options().plugins
    assert plugin.find(sha256, named) == path and plugin.find("0" * 64, named) is None
    assert Options(plugin=[path]).plugins == (path,)
    assert plugin.find(sha256, Options(plugin=path.with_name("none.so")).plugins) is None


def test_a_library_is_loaded_once_and_by_tensorrts_own_way(library, monkeypatch):
    loaded = []
    monkeypatch.setattr(plugin, "load", lambda path, tensorrt, libnvinfer=None: loaded.append((path, libnvinfer)))
    modern = types.SimpleNamespace(__name__="tensorrt", __version__="10.14.1",
                                   get_plugin_registry=lambda: types.SimpleNamespace(load_library=None))
    plugin.ensure(library[0], modern)
    plugin.ensure(library[0], modern)
    assert loaded == [(library[0], None)]


def test_tensorrt_85_without_its_library_says_where_it_was_looked_for(library, tmp_path):
    old = types.SimpleNamespace(__name__="tensorrt", __version__="8.5.3.1", __file__=str(tmp_path / "tensorrt.py"),
                                get_plugin_registry=lambda: types.SimpleNamespace())
    with pytest.raises(RunnerError, match="needs TensorRT's own library and it was not found .*LD_LIBRARY_PATH"):
        plugin.ensure(library[0], old)


def test_an_engine_with_the_plugin_gets_it_and_one_without_does_not(plain_bundle, library, monkeypatch, expected):
    ensured = []
    monkeypatch.setattr(trt_choose.plugin, "ensure", lambda path, trt: ensured.append(path))
    tensorrt.use(monkeypatch, StandIn())
    native = add_engines(plain_bundle, "whole")
    tensorrt_runner.TensorRT.open(native, "auto", Options())
    assert ensured == []
    with_plugin = add_engines(native, "prepare", "predict", plugin_version="1", plugin_sha256=library[1])
    runner = tensorrt_runner.TensorRT.open(with_plugin, "auto", Options())
    assert set(ensured) == {library[0]}
    given = support(1, 2)
    assert abs(runner.run(runner.prepare(*given), queries(1)) - expected(given, queries(1))).max() < 1e-4
