"""Sentences on what is allowed but rarely meant, for `Prediction.notes` and `Task.notes`, with figure and cure."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from .named_types import Bools, Floats

FEW = 1000  # one pixel in so many
LEAST = 100  # pixels: in a smaller image one is no longer few
MOST = 0.9  # a share of foreground above this is most of the image
BINS = 255
LITTLE = 0.25  # of a window
FEWEST = 4  # examples
HOT = 2.0  # times the range of its volume: a slice that spans no more has no hot pixels that matter


def range_note(normalised: Floats, name: str) -> str | None:
    """Where under 0.1 % of the pixels at one end, or at both, take more than half of the range: hot pixels, burnt-in
    marks.

    normalised: (H,W) float32 as `normalise` gives it. Of fewer than 1000 pixels one is few; None for fewer than 100.
    """
    if normalised.size < LEAST:
        return None
    few = max(1, normalised.size // FEW)
    below = np.bincount((normalised.reshape(-1) * BINS).astype(np.uint8), minlength=BINS + 1).cumsum()
    # The bins that hold the pixel of rank `few` from either end: all but those few pixels lie between them.
    low, high = np.searchsorted(below, few, side="right"), np.searchsorted(below, normalised.size - few, side="left")
    if (width := (high - low + 1) / (BINS + 1)) >= 0.5:
        return None
    who = "under 0.1 % of the pixels" if normalised.size >= FEW else "one pixel at an end or at both"
    return (f"{who} of {name} set its intensity range: all others lie within {width:.0%} of it; if they are hot "
            "pixels or burnt-in marks, clip them with prepare(..., normalise=Percentiles(0.1, 99.9))")


def window_note(on_grid: Floats, name: str) -> str | None:
    """Where an image (h,w) takes less than LITTLE of the window that it is normalised by."""
    if (share := float(on_grid.max() - on_grid.min())) >= LITTLE:
        return None
    return f"{name} spans {share:.0%} of the window, and looks flat to the network; give a narrower one"


def label_notes(labels: Sequence[Bools], names: Sequence[str]) -> list[str]:
    """Of the labels (H,W) bool of a support: mostly empty, mostly foreground, or some perhaps inverted."""
    shares = np.array([label.mean() for label in labels])
    notes, empty = [], int((shares == 0).sum())
    if 2 * empty > len(shares):
        notes.append(f"{empty} of {len(shares)} support labels are empty; "
                     "the more of them mark the target, the better it is found")
    typical = float(np.median(shares[shares > 0])) if empty < len(shares) else 0.0
    if typical > 0.5:
        notes.append(
            f"the support labels mark {typical:.0%} of an image (median); if they are inverted, give their complement")
    else:
        odd = [name for name, share in zip(names, shares) if share > 0.5 and share > 1 - 2 * typical]
        if odd:
            notes.append(
                f"{len(odd)} of {len(shares)} support labels mark more than half of the image where the median is "
                f"{typical:.0%}, first {odd[0]}; they may be inverted")
    return notes


def few_notes(entries: int) -> list[str]:
    """Where no set has more than so few entries: the masks then mean little."""
    return [f"the network sees {entries} example{'s' * (entries != 1)} at a time; give it at least {FEWEST}, better "
            "sixteen: fewer do not tell it what of them counts"] if entries < FEWEST else []


def mask_note(name: str, share: float, support_share: float) -> str | None:
    """Of the mask of an image of this name that is empty or nearly all foreground, by its share of it.

    support_share: the mean share of the support's labels.
    """
    if share == 0:
        return f"the mask is empty (the support labels mark {support_share:.1%} on average)"
    if share > MOST and support_share <= MOST:
        return f"{name}: the mask marks {share:.0%} of it (the support labels {support_share:.1%} on average)"
    return None


IN_SUPPORT = " is in the support, as entry "


def support_note(name: str, entry: str) -> str:
    """Of a query that equals the image of a support's entry."""
    return f"{name}{IN_SUPPORT}{entry}; a score on it says nothing of images that are not"


def fingerprint(on_grid: Floats) -> str:
    """sha256 of an image (H,W) float32 as the network reads it;
    equal for images that differ only in type, scale or file."""
    return hashlib.sha256(np.ascontiguousarray(on_grid).data).hexdigest()
