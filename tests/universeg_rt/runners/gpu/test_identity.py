"""What the driver says of a GPU, asked of a stand-in driver; without one there is none."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

from universeg_rt.bundle.engine import Fingerprint
from universeg_rt.runners.gpu.identity import Gpu, gpu_facts

DRIVER = r"""
#include <cstring>
#include <cstddef>
extern "C" {
int cuInit(unsigned) { return INIT; }
int cuDeviceGet(int* device, int index) { *device = index; return index == 0 ? 0 : 101; }
int cuDeviceGetAttribute(int* value, int attribute, int) {
  *value = attribute == 75 ? 9 : attribute == 76 ? 0 : -1;
  return 0;
}
int cuDeviceGetName(char* name, int length, int) { std::strncpy(name, "NVIDIA H200", length); return 0; }
int cuDeviceTotalMem_v2(size_t* bytes, int) { *bytes = 150000000000; return 0; }
int cuDriverGetVersion(int* version) { *version = 13010; return 0; }
}
"""


def ask(folder, index: int = 0) -> str:
    code = f"from universeg_rt.runners.gpu.identity import present_gpu; print(present_gpu({index}))"
    environment = os.environ | {"LD_LIBRARY_PATH": str(folder)}
    return subprocess.run([sys.executable, "-c", code], env=environment, check=True, capture_output=True,
                          text=True).stdout.strip()


@pytest.fixture
def driver(tmp_path):
    if sys.platform != "linux" or shutil.which("c++") is None:
        pytest.skip("the stand-in driver needs Linux and a C++ compiler")

    def make(status: int):
        (tmp_path / "driver.cpp").write_text(DRIVER)
        command = [
            "c++", "-shared", "-fPIC", f"-DINIT={status}", tmp_path / "driver.cpp", "-o", tmp_path / "libcuda.so.1"
        ]
        subprocess.run(command, check=True)
        return tmp_path

    return make


def test_a_gpu(driver):
    folder = driver(0)
    assert ask(folder) == "Gpu(name='NVIDIA H200', compute_capability='9.0', memory_bytes=150000000000, cuda='13.1')"
    assert ask(folder, 1) == "None"


def test_a_driver_without_a_gpu(driver):
    assert ask(driver(100)) == "None"


def test_a_library_that_is_no_driver(tmp_path):
    (tmp_path / "libcuda.so.1").write_bytes(b"no library")
    assert ask(tmp_path) == "None" or os.path.exists("/dev/nvidiactl")


def test_a_fingerprint_of_this_gpu_fits_it_and_no_other():
    here = Gpu.of("GPU A", (9, 0), 1 << 30, 13010)
    other = Gpu.of("GPU B", (8, 6), 1 << 30, 12040)
    made = Fingerprint("tensorrt", "10", onnx_sha256="", plugin_version="", plugin_sha256="", precision="fp32",
                       **gpu_facts(here))
    assert here.cuda == "13.1" and made.differences(**gpu_facts(here)) == ()
    for found in (gpu_facts(other), gpu_facts(None)):
        assert [text.split(":")[0] for text in made.differences(**found)] == list(found)
