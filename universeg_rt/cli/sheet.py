"""The contact sheet of a segmented volume: slices where its labels are, cut to the part that holds them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import BlankError
from ..imaging.normalisation import Normalisation, normalised
from ..imaging.overlays import MOST, Look, contact_sheet, square_pixels, tinted
from ..imaging.windows import box_around, cut, scale_of, window_around
from ..named_types import Array, Bytes, Floats

PANELS, ACROSS = 12, 3
TILE = 400  # pixels of a slice, at most
MARGIN = 0.05  # around what is marked, as a share of it


@dataclass(frozen=True, eq=False)
class Shown:
    """What a sheet shows of a volume, each by the index of a slice, of `count`: the image (H,W), label maps (H,W) of
    what was predicted and of what is true. pixel: as `Slices.pixel`. shares: of [0, 1] that each slice takes."""

    image: Callable[[int], Array]
    predicted: Callable[[int], Array]
    true: Callable[[int], Array] | None
    count: int
    pixel: tuple[float, float] | None
    normalise: Normalisation
    look: Look
    shares: Sequence[float]


def volume_sheet(shown: Shown) -> Bytes:
    """(H,W,3) uint8: slices evenly among those with a label, predicted or true; among all where none has one."""
    marked: Array | None = None
    held = []
    for i in range(shown.count):
        here = shown.predicted(i) != 0
        if shown.true is not None:
            here = here | (shown.true(i) != 0)
        marked = here if marked is None else marked | here
        held += [i] * bool(here.any())
    assert marked is not None  # a volume has a slice
    box = box_around(marked)
    window = (0, 0, *marked.shape)
    if box is not None:
        window = window_around(box, marked.shape, scale_of(box, marked.shape, MARGIN))
    among = held or list(range(shown.count))
    chosen = sorted({among[int(place)] for place in (np.arange(PANELS) + 0.5) / PANELS * len(among)})

    def panel(i: int) -> Bytes:
        maps = [cut(_grey(shown.image(i), shown.normalise, shown.shares[i]), window), cut(shown.predicted(i), window)]
        maps += [] if shown.true is None else [cut(shown.true(i), window)]
        grey, *labels = (square_pixels(each, shown.pixel) for each in maps)
        zoom = min(MOST, max(1, TILE // max(grey.shape)))
        return tinted(grey, labels[0], labels[1] if labels[1:] else None, shown.look, zoom)

    panels = [panel(i) for i in chosen]
    tile = min(TILE, max(max(each.shape[:2]) for each in panels))
    captions = [f"slice {i}" for i in chosen]
    return contact_sheet(panels, captions, shown.look, shown.true is not None, tile=tile, across=ACROSS)


def _grey(image: Array, how: Normalisation, share: float) -> Floats:
    """As the network reads it; black where there is nothing to see."""
    try:
        return normalised(image, how, "slice", share).values
    except BlankError:
        return np.zeros(image.shape, np.float32)
