"""Proxies: images of the task that run through the exact network as queries before any query comes. Each block's
support term then is what a static network keeps, the mean over the proxies (export/emit/static.py has the algebra).

Entries of the support serve as proxies of one another, each with itself left out (freezing.py). A small support misses
what was left out, so its entries run once more, turned and shifted, as queries of the whole support. Entries that look
alike leave their common outlines in the mean, where the encoder expects those of the query; so its maps are smoothed.
benchmarks/NOTES.md has what both bring.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from . import left_out
from .errors import InputError
from .frozen_files import Freezable, Maps
from .named_types import Array, Bools, Floats
from .support import Drawn

SUPPORT = "support"
LARGE = 64  # entries of all sets, from which on no entry runs once more: freezing would take too long
TURN, SHIFT = 30.0, 0.1  # at most: degrees, of the image's side
SMOOTH = 1 / 32  # standard deviation, of the image's side


def proxies_on_grid(
    task: Freezable, proxies: str | Sequence[Array] | Array, seed: int
) -> tuple[Floats, list[Bools] | None]:
    """The proxies that `Task.freeze` takes with the same arguments, as they are, (N,1,h,w) float32 in [0, 1], and their
    labels (h,w) where these are entries of the support. InputError as there."""
    if not isinstance(proxies, str) or proxies != SUPPORT:
        return on_grid(task, proxies), None
    entries = Drawn.of(task.support, task.draw.used, task.grid, task.aspect, task.normalise).on_grid
    pairs = [entries[i] for i in left_out.chosen(entries[:, 0], seed)]
    return np.stack([image[None] for image, _ in pairs]), [label >= 0.5 for _, label in pairs]


def on_grid(task: Freezable, images: str | Sequence[Array] | Array) -> Floats:
    """The images (N,1,h,w) as the network sees them; InputError for a word, or where there are none."""
    if isinstance(images, str):
        raise InputError(f"proxies is {images!r}; accepted: {SUPPORT!r}, or images")
    placed = task.on_grid(images)
    if not len(placed):
        raise InputError("proxies are no images at all; give some of the task, or 'support'")
    return placed


def of_support(task: Freezable, left_out_alone: Sequence[Maps], entries: Floats, seed: int) -> tuple[Maps, str]:
    """The constants of the support's entries (N,2,h,w), and of whom they are, in words. left_out_alone: those of the
    entries that were left out, as their runs gave them."""
    alone = constants_of(left_out_alone, task)
    if (task.draw.weights > 0).sum() >= LARGE:
        return alone, "the support's own entries"
    images = entries[left_out.chosen(entries[:, 0], seed), 0]
    both = [alone, of_images(task, turned(images, seed)[:, None])]
    return _mean(both), "the support's own entries, as they are and turned"


def of_images(task: Freezable, images: Floats) -> Maps:
    """The constants of images (N,1,h,w) as queries of the whole task."""
    runner, shares = task.segmenter.runner, task.draw.shares
    return constants_of([runner.mean_constants(task.prepared, image, shares)[1] for image in images], task)


def constants_of(runs: Sequence[Maps], task: Freezable) -> Maps:
    """What a static network keeps of the constant maps (C,h,w) of runs: their mean, smoothed in the encoder but for its
    first block."""
    blocks = task.segmenter.bundle.manifest.spec.blocks()
    return [each if block.is_first or block.is_decoder else smoothed(each)
            for block, each in zip(blocks, _mean(runs), strict=True)]


def smoothed(maps: Floats) -> Floats:
    """Maps (C,h,w) under a Gaussian of SMOOTH of their sides; beyond an edge it repeats."""
    rows, columns = (_gaussian(side) for side in maps.shape[1:])
    out: Floats = (rows @ maps @ columns.T).astype(np.float32)
    return out


def _gaussian(side: int) -> Floats:
    """(side,side): times a column of so many pixels it is the smoothed column."""
    reach = np.arange(-side, side + 1)
    taps = np.exp(-0.5 * (reach / max(SMOOTH * side, 1e-3)) ** 2)
    pixels = np.arange(side)
    out = np.zeros((side, side))
    np.add.at(out, (pixels[:, None], np.clip(pixels[:, None] + reach, 0, side - 1)), taps / taps.sum())
    return out.astype(np.float32)


def turned(images: Floats, seed: int) -> Floats:
    """Images (N,h,w), each turned by up to TURN degrees about its centre and shifted by up to SHIFT of its sides, drawn
    by the seed; what comes in from outside repeats the edge."""
    from PIL import Image

    random, (height, width) = np.random.default_rng(seed), images.shape[1:]
    margin = math.ceil(0.5 * math.hypot(height, width) + SHIFT * max(height, width))
    out = np.empty_like(images)
    for place, image in enumerate(images):
        angle = math.radians(random.uniform(-TURN, TURN))
        x, y = (random.uniform(-SHIFT, SHIFT, 2) + 0.5) * (width, height)  # what lies at the centre then
        cos, sin = math.cos(angle), math.sin(angle)
        rows = [(cos, -sin, x + margin - cos * width / 2 + sin * height / 2),
                (sin, cos, y + margin - sin * width / 2 - cos * height / 2)]
        wide = Image.fromarray(np.pad(image, margin, mode="edge"))
        out[place] = np.asarray(wide.transform(
            (width, height), Image.Transform.AFFINE, [*rows[0], *rows[1]], Image.Resampling.BILINEAR))
    return out


def _mean(maps: Sequence[Maps]) -> Maps:
    return [np.asarray(np.mean(each, axis=0, dtype=np.float64), np.float32) for each in zip(*maps, strict=True)]
