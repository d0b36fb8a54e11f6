"""The C++ sample, built with CMake: its masks are FrozenTask's, on both runtimes."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from universeg_rt.kernels.build import tool

from .conftest import SAMPLES, assert_masks_agree, write_pgm

HEADER = "onnxruntime_c_api.h"
INCLUDES = (os.environ.get("ONNXRUNTIME_INCLUDE", ""), "/usr/include/onnxruntime", "/usr/local/include/onnxruntime",
            "/usr/local/include")


def installed(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        pytest.skip(f"the package {package} is not installed")
    return Path(spec.origin).parent


def of_openvino(_: Path) -> list[str]:
    return [f"-DOpenVINO_DIR={installed('openvino') / 'cmake'}"]


def of_onnxruntime(folder: Path) -> list[str]:
    """The library of the Python package, under the names that a linker and a loader look for."""
    include = next((path for path in INCLUDES if path and Path(path, HEADER).is_file()), None)
    if include is None:
        pytest.skip(f"{HEADER} is not here: install libonnxruntime-dev, or set ONNXRUNTIME_INCLUDE to its folder")
    libraries = list((installed("onnxruntime") / "capi").glob("libonnxruntime.so.*"))
    if not libraries:
        pytest.skip("the package onnxruntime holds no library to link with on this platform")
    for name in ("libonnxruntime.so", "libonnxruntime.so.1"):
        (folder / name).symlink_to(libraries[0])
    return [f"-DONNXRUNTIME_INCLUDE={include}", f"-DONNXRUNTIME_LIBRARY={folder / 'libonnxruntime.so'}"]


RUNTIMES: dict[str, Callable[[Path], list[str]]] = {"onnxruntime": of_onnxruntime, "openvino": of_openvino}


@pytest.fixture(scope="module", params=RUNTIMES)
def sample(request, tmp_path_factory) -> tuple[str, Path]:
    """The runtime and the program."""
    cmake = tool("cmake")
    if cmake is None or shutil.which("c++") is None:
        pytest.skip("cmake and a C++ compiler are needed (pip install cmake)")
    folder = tmp_path_factory.mktemp(request.param)
    options = RUNTIMES[request.param](folder)
    for command in ([cmake, "-S", SAMPLES / "cpp", "-B", folder / "build", f"-DRUNTIME={request.param}",
                     "-DCMAKE_CXX_FLAGS=-Wall -Wextra -Werror", *options],
                    [cmake, "--build", folder / "build"]):
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stdout + done.stderr
    return request.param, folder / "build" / "segment"


def run(sample: tuple[str, Path], *arguments: Path) -> subprocess.CompletedProcess:
    return subprocess.run([sample[1], *arguments], capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("kind", ["static", "exact"])
def test_masks_are_those_of_the_frozen_task(sample, kind, tasks, images, tmp_path):
    if kind == "exact" and sample[0] == "openvino":
        pytest.skip("OpenVINO does not run exact files")
    for i, image in enumerate(images):
        given = write_pgm(tmp_path / f"{i}.pgm", image, "# a comment\n")
        done = run(sample, tasks[kind], given, tmp_path / "mask.pgm")
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        assert_masks_agree(tasks[kind], image, tmp_path / "mask.pgm")


def test_sixteen_bits_and_raw_numbers(sample, tasks, images, tmp_path):
    deep = images[0].astype(np.uint16) * 200 + 7
    numbers = deep.astype(np.float32) / 3 - 900
    numbers.tofile(tmp_path / "image.raw")
    for given, image in ((write_pgm(tmp_path / "deep.pgm", deep), deep), (tmp_path / "image.raw", numbers)):
        assert run(sample, tasks["static"], given, tmp_path / "mask.pgm").returncode == 0
        assert_masks_agree(tasks["static"], image, tmp_path / "mask.pgm")


def test_errors_are_one_line_and_no_mask(sample, tasks, images, tmp_path, small_bundle):
    good = write_pgm(tmp_path / "good.pgm", images[0])
    small = write_pgm(tmp_path / "small.pgm", images[0][:16])
    flat = write_pgm(tmp_path / "flat.pgm", np.full_like(images[0], 9))
    (tmp_path / "cut.pgm").write_bytes(good.read_bytes()[:-1])
    (tmp_path / "ends.pgm").write_bytes(b"P5\n32 32")
    (tmp_path / "text.pgm").write_text("no picture")
    (tmp_path / "short.raw").write_bytes(b"\0" * 12)
    np.full(images[0].shape, np.nan, np.float32).tofile(tmp_path / "nan.raw")
    cases = {
        (tasks["static"], small): "the image is 16x32 pixels (height x width); the network reads 32x32",
        (tasks["static"], flat): "the image is constant",
        (tasks["static"], tmp_path / "cut.pgm"): "the image is cut off",
        (tasks["static"], tmp_path / "ends.pgm"): "no PGM",
        (tasks["static"], tmp_path / "text.pgm"): "no binary PGM",
        (tasks["static"], tmp_path / "short.raw"): "the image has 12 bytes",
        (tasks["static"], tmp_path / "nan.raw"): "not finite",
        (tasks["static"], tmp_path / "absent.pgm"): "cannot read",
        (tasks["window"], good): "another normalisation than min-max",
        (small_bundle / "static.onnx", good): "no frozen task" if sample[0] == "onnxruntime" else "",
        (tmp_path / "absent.onnx", good): "",
    }
    for (task, image), message in cases.items():
        done = run(sample, task, image, tmp_path / "mask.pgm")
        assert done.returncode == 1 and done.stderr.startswith("segment: ") and message in done.stderr, (image, done)
        assert not (tmp_path / "mask.pgm").exists()
