"""The JavaScript sample, where Node.js is there: its masks are FrozenTask's. onnxruntime-node comes from NODE_PATH, or
by npm into the system's folder for temporary files, where later runs find it."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import pytest

from .conftest import SAMPLES, assert_masks_agree, write_pgm

PACKAGE = "onnxruntime-node"
INSTALLED = Path(tempfile.gettempdir()) / "universeg_rt-tests-node"
SECONDS = 30  # that installing may take
NPM = ["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", "--fetch-retries=0", PACKAGE]


@pytest.fixture(scope="module")
def modules() -> Path:
    """A folder node_modules with PACKAGE."""
    if shutil.which("node") is None:
        pytest.skip("Node.js is not installed")
    for place in (Path(os.environ.get("NODE_PATH", "")), INSTALLED / "node_modules"):
        if (place / PACKAGE).is_dir():
            return place.resolve()
    if shutil.which("npm") is None:
        pytest.skip(f"{PACKAGE} is not here, nor npm: install it, and set NODE_PATH to its node_modules")
    with tempfile.TemporaryDirectory(prefix=f"{INSTALLED.name}-") as folder:
        try:
            done = subprocess.run(
                [*NPM, "--prefix", folder], cwd=folder, capture_output=True, text=True, timeout=SECONDS)
        except subprocess.TimeoutExpired:
            pytest.skip(f"npm did not install {PACKAGE} in {SECONDS} s; set NODE_PATH to a node_modules that has it")
        if done.returncode:
            pytest.skip(f"npm cannot install {PACKAGE} ({done.stderr.strip().splitlines()[0]})")
        INSTALLED.mkdir(exist_ok=True)
        (Path(folder) / "node_modules").rename(INSTALLED / "node_modules")
    return INSTALLED / "node_modules"


@pytest.fixture
def folder(tmp_path, modules) -> Path:
    """With the sample and the packages it imports, which Node.js looks for beside it."""
    shutil.copy(SAMPLES / "javascript" / "segment.mjs", tmp_path)
    (tmp_path / "node_modules").symlink_to(modules)
    return tmp_path


def run(folder: Path, *arguments: Path) -> subprocess.CompletedProcess:
    return subprocess.run(["node", "segment.mjs", *arguments], cwd=folder, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("kind", ["static", "exact"])
def test_masks_are_those_of_the_frozen_task(folder, kind, tasks, images):
    given = write_pgm(folder / "image.pgm", images[0], "# a comment\n")
    done = run(folder, tasks[kind], given, folder / "mask.pgm")
    assert done.returncode == 0, done.stderr
    assert_masks_agree(tasks[kind], images[0], folder / "mask.pgm")


def test_errors_are_one_line_and_no_mask(folder, tasks, images, small_bundle):
    good = write_pgm(folder / "good.pgm", images[0])
    (folder / "cut.pgm").write_bytes(good.read_bytes()[:-1])
    small = write_pgm(folder / "small.pgm", images[0][:16])
    flat = write_pgm(folder / "flat.pgm", np.full_like(images[0], 9))
    for task, image, message in (
        (tasks["static"], small, "the image is 16x32 pixels; the network reads 32x32"),
        (tasks["static"], flat, "constant"),
        (tasks["static"], folder / "cut.pgm", "is cut off"),
        (tasks["window"], good, "another normalisation than min-max"),
        (small_bundle / "static.onnx", good, "is no frozen task"),
    ):
        done = run(folder, task, image, folder / "mask.pgm")
        assert done.returncode == 1 and message in done.stderr and done.stderr.count("\n") == 1, done.stderr
        assert not (folder / "mask.pgm").exists()
