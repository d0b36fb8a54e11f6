"""TensorRT-RTX for tests: the libraries of the wheel onnxruntime-ep-nv-tensorrt-rtx-cu13 under the Python interface of
tensorrt_cu13_bindings. An improvised pairing, for tests only: links give the libraries the names that the interface
looks for, and a module `tensorrt_rtx` gives the interface its version. It builds plans on the CPU and runs none.
"""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from pathlib import Path

import pytest

LIBRARIES = ("libtensorrt_rtx", "libtensorrt_onnxparser_rtx", "libcudart")
LINKS = {"libnvinfer.so.11": "libtensorrt_rtx", "libnvonnxparser.so.11": "libtensorrt_onnxparser_rtx",
         "libtensorrt_rtx.so": "libtensorrt_rtx", "libtensorrt_onnxparser_rtx.so": "libtensorrt_onnxparser_rtx",
         "libcudart.so.13": "libcudart"}
STUB = 'extern "C" int initLibNvInferPlugins(void*, const char*) { return 1; }\n'
MODULE = """import ctypes
from tensorrt_bindings import *
_library = ctypes.CDLL("libnvinfer.so.11")
__version__ = ".".join(str(getattr(_library, f"getInferLib{part}Version")()) for part in ("Major", "Minor", "Patch"))
"""


def make(folder: Path) -> dict[str, str]:
    """Fills an empty folder; returns the environment variables by which a process finds it,
    or skips with the reason."""
    package, interface = (importlib.util.find_spec(name)
                          for name in ("onnxruntime_ep_nv_tensorrt_rtx", "tensorrt_bindings"))
    if package is None or interface is None:
        pytest.skip(
            "needs the wheels onnxruntime-ep-nv-tensorrt-rtx-cu13 and tensorrt_cu13_bindings (pip install --no-deps)")
    if shutil.which("c++") is None:
        pytest.skip("no C++ compiler was found, which the stand-in for TensorRT's plugin library needs")
    for name in LIBRARIES:
        matches = sorted(Path(package.origin).parent.glob(f"{name}.so.*"))
        if not matches:
            pytest.skip(f"the wheel onnxruntime-ep-nv-tensorrt-rtx-cu13 holds no {name}; its layout has changed")
        (folder / matches[0].name).symlink_to(matches[0])
        for link in (link for link, target in LINKS.items() if target == name):
            (folder / link).symlink_to(matches[0])
    (folder / "stub.cpp").write_text(STUB)
    subprocess.run(["c++", "-shared", "-fPIC", folder / "stub.cpp", "-o", folder / "libnvinfer_plugin.so.11"],
                   check=True)
    (folder / "python").mkdir()
    (folder / "python" / "tensorrt_rtx.py").write_text(MODULE)
    return {"LD_LIBRARY_PATH": str(folder), "PYTHONPATH": str(folder / "python")}
