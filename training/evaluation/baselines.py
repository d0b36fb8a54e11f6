"""What needs no network: an atlas of the support's labels, and a copy of the most similar entry's label.

A task where the network does not clear them shows no skill.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from universeg_rt.imaging.metrics import correlations, dice

THRESHOLDS = np.arange(0.05, 0.96, 0.05)
UNDECIDED = 0.5  # the threshold of one example alone
ATLAS, COPY = "atlas", "copy"

Members = Sequence[tuple[np.ndarray, np.ndarray]]


def atlas(labels: np.ndarray, members: Members) -> tuple[np.ndarray, float]:
    """Mean (H,W) of the labels (N,H,W) bool over the members of an ensemble (`Ensemble.draw`: indices and weights), and
    the threshold from which on a pixel is marked.

    The threshold is chosen by leave-one-out on the first member: the one of THRESHOLDS of the best mean Dice of each
    entry's label with the atlas of the others.
    """
    share = np.mean([np.tensordot(weights, labels[indices].astype(np.float64), 1) for indices, weights in members], 0)
    indices, weights = members[0]
    return share, best_threshold(labels[indices], weights)


def best_threshold(labels: np.ndarray, weights: np.ndarray) -> float:
    """The threshold of an atlas of labels (S,H,W) bool with weights (S,) that sum to 1, by leave-one-out; equal ones
    yield to the middle of them, one entry alone to UNDECIDED."""
    if len(labels) < 2:
        return UNDECIDED
    total = np.tensordot(weights, labels.astype(np.float64), 1)
    scores = np.array([[dice((total - w * m) / (1 - w) >= t, m) for t in THRESHOLDS] for m, w in zip(labels, weights)])
    mean = np.average(scores, axis=0, weights=weights)
    best = np.flatnonzero(mean >= mean.max() - 1e-12)
    return float(THRESHOLDS[best[len(best) // 2]])


def copy(image: np.ndarray, images: np.ndarray, labels: np.ndarray, members: Members) -> np.ndarray:
    """Mean (H,W) over the members of the label of the entry whose image (of `images` (N,H,W)) has the greatest
    correlation with `image` (H,W); to be marked from 0.5 on. An image of one grey value correlates with none (0)."""
    used = np.unique(np.concatenate([indices for indices, _ in members]))
    alike = np.empty(len(images))
    alike[used] = correlations(image, images[used])
    return np.mean([labels[indices[np.argmax(alike[indices])]].astype(np.float64) for indices, _ in members], axis=0)
