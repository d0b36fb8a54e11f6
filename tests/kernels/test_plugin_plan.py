"""The ONNX custom node becomes a plugin layer in a TensorRT plan built on the CPU.

Uses TensorRT-RTX from the wheel onnxruntime-ep-nv-tensorrt-rtx-cu13 under the Python interface of tensorrt_cu13_bindings:
an improvised pairing, for this test only (links give the library the names that the interface looks for).
"""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from universeg_rt.kernels.plugin import loading

STUB = 'extern "C" int initLibNvInferPlugins(void*, const char*) { return 1; }\n'


@pytest.fixture(scope="module")
def pairing(tmp_path_factory):
    """A folder with TensorRT-RTX under the names of TensorRT 11."""
    package, interface = (importlib.util.find_spec(n) for n in ("onnxruntime_ep_nv_tensorrt_rtx", "tensorrt_bindings"))
    if package is None or interface is None:
        pytest.skip("needs the wheels onnxruntime-ep-nv-tensorrt-rtx-cu13 and tensorrt_cu13_bindings")
    pytest.importorskip("onnx", reason="onnx is missing (pip install onnx)")
    source, folder = Path(package.origin).parent, tmp_path_factory.mktemp("tensorrt")
    found = {}
    for name in ("libtensorrt_rtx", "libtensorrt_onnxparser_rtx", "libcudart"):
        matches = sorted(source.glob(f"{name}.so.*"))
        if not matches:
            pytest.skip(f"the wheel onnxruntime-ep-nv-tensorrt-rtx-cu13 holds no {name}; its layout has changed")
        found[name] = matches[0]
    links = {"libnvinfer.so.11": "libtensorrt_rtx", "libnvonnxparser.so.11": "libtensorrt_onnxparser_rtx",
             "libtensorrt_rtx.so": "libtensorrt_rtx", "libtensorrt_onnxparser_rtx.so": "libtensorrt_onnxparser_rtx"}
    for link, name in links.items():
        (folder / link).symlink_to(found[name])
    for path in found.values():
        (folder / path.name).symlink_to(path)
    (folder / "libcudart.so.13").symlink_to(found["libcudart"])
    (folder / "stub.cpp").write_text(STUB)
    subprocess.run(["c++", "-shared", "-fPIC", folder / "stub.cpp", "-o", folder / "libnvinfer_plugin.so.11"], check=True)
    return folder


@pytest.fixture(scope="module")
def library(plugins):
    for path, _ in reversed(plugins):
        if loading.inspect(path).generation == 10:
            return path
    pytest.skip("TENSORRT_INCLUDE names no headers of TensorRT 10 or later")


def build_plan(pairing, *arguments):
    environment = os.environ | {"LD_LIBRARY_PATH": str(pairing)}
    worker = Path(__file__).with_name("plan_with_plugin.py")
    return subprocess.run([sys.executable, worker, *arguments], env=environment, capture_output=True, text=True, timeout=120)


MEAN, POOLED_MEAN, POOLED, ACTIVATED = [-1, -1, 8, 17, 16], [-1, -1, 8, 8, 8], [-1, -1, -1, 8, 8, 8], [-1, -1, -1, 8, 17, 16]


@pytest.mark.parametrize("operation, dtype, shapes", [
    ("SupportMeanPool", "float32", [MEAN, POOLED_MEAN, POOLED]),
    ("SupportMeanPool", "float16", [MEAN, POOLED_MEAN, POOLED, ACTIVATED]),
    ("SupportMean", "bfloat16", [MEAN]),
    ("SupportMean", "float16", [MEAN, ACTIVATED]),
])
def test_the_node_becomes_a_plugin_layer(pairing, library, operation, dtype, shapes):
    done = build_plan(pairing, library, operation, dtype, str(len(shapes)))
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["layers"] == ["ACTIVATION", "PLUGIN_V3", "ACTIVATION"] and found["named"]
    assert found["shapes"] == shapes
    assert found["types"] == [{"float32": "FLOAT", "float16": "HALF", "bfloat16": "BF16"}[dtype]]


def test_wrong_attributes_stop_the_build_with_the_plugins_message(pairing, library):
    done = build_plan(pairing, library, "SupportMean", "float32", "3")
    assert done.returncode != 0 and "attribute outputs is 3; SupportMean has 1" in done.stderr
