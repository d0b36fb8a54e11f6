"""The whole exported network becomes a plan with the plugin inside, built by universeg-export's own way (TensorRT-RTX, CPU)."""

from __future__ import annotations

import hashlib
import shutil

import pytest

pytest.importorskip("onnx", reason="onnx is not installed: pip install 'universeg_rt[export]'")

from universeg_rt import Bundle
from universeg_rt.engine import Profile
from universeg_rt.errors import EngineError
from universeg_rt.export.engine.build import EngineOptions, build_engines
from universeg_rt.kernels.plugin import loading

PROFILE = Profile((1, 1, 2), (1, 1, 3), (1, 4, 8), (32, 32))


@pytest.fixture
def build(small_bundle, tmp_path, tensorrt_rtx, monkeypatch):
    for name, value in tensorrt_rtx.items():
        monkeypatch.setenv(name, value)
    bundle = Bundle.open(shutil.copytree(small_bundle, tmp_path / "bundle"))

    def run(plugin, precision="fp32"):
        options = EngineOptions("tensorrt-rtx", (precision,), ("whole", "predict"), PROFILE, plugin)
        return bundle.path, build_engines(Bundle.open(bundle.path), options, say=lambda line: None)

    return run


def of_generation(plugins, generation):
    for path, _ in reversed(plugins):
        if loading.inspect(path).generation == generation:
            return path
    pytest.skip(f"TENSORRT_INCLUDE names no headers for a plugin of generation {generation}")


def test_with_the_plugin_and_with_native_operators(build, plugins):
    library = of_generation(plugins, 10)
    folder, native = build(None)
    folder, ours = build(library)
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
    with pytest.raises(EngineError, match=f"{library.name} was built against TensorRT .* build it against headers of 10 or later"):
        build(library)
