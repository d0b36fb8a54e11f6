"""The JavaScript sample, where Node.js and onnxruntime-node are there: its masks are FrozenTask's."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from .conftest import SAMPLES, assert_masks_agree, write_pgm

MODULES = Path(os.environ.get("NODE_PATH", SAMPLES / "javascript" / "node_modules"))


@pytest.fixture
def folder(tmp_path) -> Path:
    """With the sample and the packages it imports, which Node.js looks for beside it."""
    if shutil.which("node") is None:
        pytest.skip("Node.js is not installed")
    if not (MODULES / "onnxruntime-node").is_dir():
        pytest.skip("onnxruntime-node is not here: npm install it, and set NODE_PATH to its node_modules")
    shutil.copy(SAMPLES / "javascript" / "segment.mjs", tmp_path)
    (tmp_path / "node_modules").symlink_to(MODULES.resolve())
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
