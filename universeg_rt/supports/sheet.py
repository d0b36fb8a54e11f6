"""A support as one picture: its images with the outlines of their labels, suspicious ones framed."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ..imaging.normalisation import MINMAX, Normalisation, normalised
from ..imaging.overlays import INK, LINE, PAPER, TRUTH, Colour, Look, contact_sheet, tinted, zoom_of
from ..named_types import Bytes
from ..support import SupportSet
from .inspect import Entry, Inspection

TILE = 176  # pixels of a picture
SUSPICIOUS = (255, 80, 80)
FRAME = 3  # pixels
WIDE = 1.5  # how many more pictures stand side by side than above each other
LETTER = 6.2  # pixels, on average


@dataclass(frozen=True)
class _Labels(Look):
    """Labels as given, not predicted."""

    def legend(self, truth: bool) -> list[tuple[str, Colour, bool]]:
        return [("label", TRUTH, True), ("suspicious: look at the table for the reason", SUSPICIOUS, True)]


def support_sheet(support: SupportSet, inspection: Inspection, normalise: Normalisation = MINMAX) -> Bytes:
    """(H,W,3) uint8: each image with its name, its label's outline and area, framed with the kinds of suspicion."""
    panels = [_panel(support, i, entry, normalise) for i, entry in enumerate(inspection.entries)]
    captions = [_short(f"{entry.area:.1%} {entry.name}") for entry in inspection.entries]
    across = math.ceil(math.sqrt(WIDE * len(panels)))
    return contact_sheet(panels, captions, _Labels(), True, tile=TILE + LINE, across=across)


def _panel(support: SupportSet, index: int, entry: Entry, normalise: Normalisation) -> Bytes:
    """A picture TILE pixels wide or high, with a line below it for its suspicions."""
    from PIL import Image, ImageDraw

    grey = normalised(support.images[index], normalise, f"support image {entry.name}").values
    label = support.labels[index]
    picture = tinted(grey, np.zeros_like(label), label, zoom=zoom_of(label.shape, TILE))
    scale = TILE / max(picture.shape[:2])
    size = max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale))
    panel = Image.new("RGB", (TILE + LINE, TILE + LINE), PAPER)
    place = (TILE + LINE - size[0]) // 2, (TILE - size[1]) // 2
    panel.paste(Image.fromarray(picture).resize(size, Image.Resampling.LANCZOS), place)
    pen = ImageDraw.Draw(panel)
    if entry.suspicions:
        corners = (place[0], place[1], place[0] + size[0] - 1, place[1] + size[1] - 1)
        pen.rectangle(corners, outline=SUSPICIOUS, width=FRAME)
        pen.text((4, TILE), _short(", ".join(each.kind for each in entry.suspicions)), fill=SUSPICIOUS)
    elif entry.dice is not None:
        pen.text((4, TILE), f"by the others: Dice {entry.dice:.2f}", fill=INK)
    return np.asarray(panel)


def _short(text: str) -> str:
    """As much of a text as stands above a picture."""
    most = int((TILE + LINE) / LETTER)
    return text if len(text) <= most else text[: most - 3] + "..."
