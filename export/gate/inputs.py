"""What the gate compares on: supports and queries of each kind, the same for the same arguments."""

from __future__ import annotations

import numpy as np

KINDS = ("random", "image-like")


def make_inputs(kind: str, height: int, width: int, entries: int,
                members: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Support (K,S,2,H,W), weights (K,S) and one query (1,1,H,W), the same for the same arguments.

    `random` is noise with unequal weights, some of them zero; `image-like` has smooth images of a bright, blurred
    ellipse over a shading, and the ellipse as label.
    """
    rng = np.random.default_rng([KINDS.index(kind), height, width, entries])
    count = members * entries + 1
    weights = np.ones((members, entries))
    if kind == "random":
        images = rng.random((count, height, width))
        labels = (rng.random((count, height, width)) > 0.5).astype(float)
        if entries > 1:
            weights = rng.random((members, entries)) + 0.1
            weights[1:, entries // 2] = 0.0
    else:
        images, labels = _ellipses(rng, count, height, width)
    weights /= weights.sum(axis=1, keepdims=True)
    support = np.stack([images[1:], labels[1:]], axis=1).reshape(members, entries, 2, height, width)
    return support.astype(np.float32), weights.astype(np.float32), images[None, :1].astype(np.float32)


def _ellipses(rng: np.random.Generator, count: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    y, x = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
    images, labels = [], []
    for _ in range(count):
        cy, cx, ry, rx = *rng.uniform(-0.4, 0.4, 2), *rng.uniform(0.15, 0.5, 2)
        distance = ((y - cy) / ry) ** 2 + ((x - cx) / rx) ** 2
        shading = 0.3 * np.sin(rng.uniform(1, 4) * y + rng.uniform(0, 6)) * np.cos(rng.uniform(1, 4) * x)
        image = 1 / (1 + np.exp(np.minimum(6 * (distance - 1), 50))) + shading + rng.normal(0, 0.05, y.shape)
        images.append((image - image.min()) / (image.max() - image.min()))
        labels.append(distance < 1)
    return np.stack(images), np.stack(labels).astype(float)
