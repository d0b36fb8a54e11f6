"""The ONNX custom node becomes a plugin layer in a TensorRT plan built on the CPU (by TensorRT-RTX,
tests/tensorrt_rtx.py)."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from universeg_rt.runners.gpu.tensorrt import plugin as loading


@pytest.fixture(scope="module")
def library(plugins):
    for path, _ in reversed(plugins):
        if loading.inspect(path).generation == 10:
            return path
    pytest.skip("TENSORRT_INCLUDE names no headers of TensorRT 10 or later")


def build_plan(tensorrt_rtx, *arguments):
    pytest.importorskip("onnx", reason="onnx is missing (pip install onnx)")
    environment = os.environ | tensorrt_rtx
    worker = Path(__file__).with_name("plan_with_plugin.py")
    return subprocess.run([sys.executable, worker, *arguments], env=environment, capture_output=True, text=True,
                          timeout=120)


MEAN, POOLED_MEAN, POOLED, ACTIVATED = [-1, -1, 8, 17, 16], [-1, -1, 8, 8, 8], [-1, -1, -1, 8, 8,
                                                                                8], [-1, -1, -1, 8, 17, 16]


@pytest.mark.parametrize("operation, dtype, shapes", [
    ("SupportMeanPool", "float32", [MEAN, POOLED_MEAN, POOLED]),
    ("SupportMeanPool", "float16", [MEAN, POOLED_MEAN, POOLED, ACTIVATED]),
    ("SupportMean", "bfloat16", [MEAN]),
    ("SupportMean", "float16", [MEAN, ACTIVATED]),
])
def test_the_node_becomes_a_plugin_layer(tensorrt_rtx, library, operation, dtype, shapes):
    done = build_plan(tensorrt_rtx, library, operation, dtype, str(len(shapes)))
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["layers"] == ["ACTIVATION", "PLUGIN_V3", "ACTIVATION"] and found["named"]
    assert found["shapes"] == shapes
    assert found["types"] == [{"float32": "FLOAT", "float16": "HALF", "bfloat16": "BF16"}[dtype]]


def test_wrong_attributes_stop_the_build_with_the_plugins_message(tensorrt_rtx, library):
    done = build_plan(tensorrt_rtx, library, "SupportMean", "float32", "3")
    assert done.returncode != 0 and "attribute outputs is 3; SupportMean has 1" in done.stderr
