"""Frozen tasks as the samples read them, and images as PGM."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from universeg_rt import Segmenter, SupportSet
from universeg_rt.frozen_task import FrozenTask
from universeg_rt.imaging.normalisation import Window

from ...conftest import SMALL_GRID, discs

SAMPLES = Path(__file__).resolve().parents[3] / "export" / "samples"


@pytest.fixture(scope="session")
def tasks(small_bundle, tmp_path_factory) -> dict[str, Path]:
    """Frozen files by kind, which mark from different thresholds, and one, `window`, that asks for another
    normalisation than min-max."""
    folder = tmp_path_factory.mktemp("tasks")
    segmenter, support = Segmenter.open(small_bundle), SupportSet.from_arrays(*discs(5))
    segmenter.prepare(support).freeze(kind="static", threshold=0.35).save(folder / "static.onnx")
    segmenter.prepare(support).freeze(kind="exact", threshold=0.55).save(folder / "exact.onnx")
    segmenter.prepare(support, normalise=Window(0, 255)).freeze(kind="static").save(folder / "window.onnx")
    return {path.stem: path for path in folder.iterdir()}


@pytest.fixture(scope="session")
def images() -> np.ndarray:
    """(N,H,W) uint8 of the network's size."""
    return discs(3, *SMALL_GRID, seed=8)[0]


def write_pgm(path: Path, image: np.ndarray, comment: str = "") -> Path:
    """8 or 16 bits, as the image's type."""
    header = f"P5\n{comment}{image.shape[1]} {image.shape[0]}\n{np.iinfo(image.dtype).max}\n"
    path.write_bytes(header.encode() + image.astype(image.dtype.newbyteorder(">")).tobytes())
    return path


def read_pgm(path: Path) -> np.ndarray:
    kind, size, most, pixels = path.read_bytes().split(b"\n", 3)
    assert (kind, most) == (b"P5", b"255")
    width, height = map(int, size.split())
    return np.frombuffer(pixels, np.uint8).reshape(height, width)


def assert_masks_agree(task: Path, image: np.ndarray, mask: Path) -> None:
    """With FrozenTask's, but for pixels whose probability is the threshold to float32's accuracy."""
    prediction, found = FrozenTask.open(task).predict(image), read_pgm(mask)
    assert set(np.unique(found)) <= {0, 255}
    differs = (found > 0) != prediction.mask
    assert (np.abs(prediction.probability[differs] - prediction.threshold) < 1e-4).all() and differs.mean() < 0.01
