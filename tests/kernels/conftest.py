"""Builds the native parts once for all tests here, in build/kernels-tests, and again only what changed."""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import os
import shutil
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from universeg_rt.kernels.build import build, tool

ROOT = Path(__file__).resolve().parents[2]
# Compiling matters here, how fast the code is does not: two passes of the compiler's front end, for sm_75 and for all
# that have the instructions of sm_80, whose machine code is made for the first and the last of them, and little
# optimisation.
QUICK_CUDA = ("-gencode arch=compute_75,code=sm_75 -gencode arch=compute_80,code=[sm_80,sm_90] "
              "-Xcicc -O1 -Xptxas -O1")
PLACES = ("/usr/include/x86_64-linux-gnu", "/usr/include/aarch64-linux-gnu", "/usr/include",
          "/usr/local/tensorrt/include")


def compiler() -> str | None:
    return shutil.which(os.environ.get("CXX", "c++"))


def nvcc() -> str | None:
    return os.environ.get("CUDACXX") or shutil.which("nvcc")


def tensorrt_folders() -> list[str]:
    given = [folder for folder in os.environ.get("TENSORRT_INCLUDE", "").split(os.pathsep) if folder]
    return given or [place for place in PLACES if (Path(place) / "NvInfer.h").exists()][:1]


@contextmanager
def build_folder(name: str):
    """A folder that outlives the run, held by one process at a time; another interpreter gets another one."""
    key = hashlib.sha256(f"{sys.executable} {sys.version}".encode()).hexdigest()[:8]
    folder = ROOT / "build" / "kernels-tests" / f"{name}-{key}"
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder


@pytest.fixture(scope="session")
def native():
    """The kernels' code compiled for the CPU."""
    if compiler() is None:
        pytest.skip("no C++ compiler was found (set CXX)")
    if tool("cmake") is None:
        pytest.skip("cmake was not found (pip install cmake ninja)")
    pytest.importorskip("pybind11", reason="pybind11 is missing (pip install pybind11)")
    pytest.importorskip("ml_dtypes", reason="ml_dtypes is missing (pip install ml-dtypes)")
    with build_folder("host") as folder:
        path = build(["host"], build_dir=folder).host
        spec = importlib.util.spec_from_file_location("universeg_rt.kernels._support_mean_host", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def cuda():
    """The CUDA library, its self-test, and a plugin for each folder of TensorRT headers."""
    if nvcc() is None:
        pytest.skip("nvcc was not found (set CUDACXX)")
    if tool("cmake") is None or compiler() is None:
        pytest.skip("cmake and a C++ compiler are needed (pip install cmake ninja)")
    with build_folder("cuda") as folder:
        return build(["cuda", "plugin"], build_dir=folder, architectures="OFF", cuda_flags=QUICK_CUDA,
                     tensorrt_include=tensorrt_folders())


@pytest.fixture(scope="session")
def plugins(cuda):
    """Built plugin libraries with their self-tests."""
    if not cuda.plugins:
        pytest.skip("NvInfer.h was not found (set TENSORRT_INCLUDE to one or more folders that hold it)")
    return list(zip(cuda.plugins, cuda.plugin_selftests))
