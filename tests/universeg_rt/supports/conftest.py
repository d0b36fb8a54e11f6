"""A clean support and one with planted faults, of pictures that the shipped network knows to segment."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from universeg_rt import Segmenter, SupportSet

from ..test_same_masks import pictures

COUNT, SIZE = 14, 96


@pytest.fixture(scope="package")
def shipped() -> Segmenter:
    return Segmenter.open()


def with_faults():
    """Images, labels and names, an entry for each kind of fault, named after it."""
    images, labels = pictures(COUNT, SIZE, SIZE, 1)
    labels[:, 40:, :20] |= np.arange(SIZE - 40)[:, None] < 12  # a corner that no turn brings back onto itself
    images[:, 40:52, :20] = 200
    names = [f"good {i}" for i in range(COUNT)]
    clean = SupportSet.from_arrays(images.copy(), labels.copy(), names)
    for place, kind, change in (
        (1, "inverted", lambda x: ~x), (3, "transposed", lambda x: x.T), (5, "mirrored", lambda x: x[:, ::-1]),
        (7, "misaligned", lambda x: np.roll(x, (16, 14), (0, 1))), (9, "empty", lambda x: x & False),
    ):
        labels[place], names[place] = change(labels[place]).copy(), kind
    checks = np.indices((SIZE, SIZE)).sum(0) % 16 < 8
    images[11], names[11] = np.where(checks, 250, 5), "other modality"
    again = np.clip(images[0].astype(int) * 0.7 + np.random.default_rng(0).normal(0, 1, (SIZE, SIZE)), 0, 255)
    images = np.concatenate([images, again[None].astype(np.uint8)])
    labels = np.concatenate([labels, np.roll(labels[:1], 40, 1)])
    return SimpleNamespace(clean=clean, support=SupportSet.from_arrays(images, labels, [*names, "copy of good 0"]))


@pytest.fixture(scope="package")
def faults():
    return with_faults()
