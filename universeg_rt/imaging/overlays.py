"""Draws masks over images: predictions as tint, true masks as thin outlines, enlarged where small, with a legend; and
many of these pictures on one sheet."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..named_types import AnyPath, Array, Bools, Bytes, Floats
from .files import write_png
from .preprocess import nearest, normalise

Colour = tuple[int, int, int]

PREDICTED, TRUTH = (255, 140, 0), (0, 220, 255)  # of a single label: orange, cyan
# Of several: Okabe and Ito's colours, which people with any colour vision tell apart.
LABELS = ((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0), (204, 121, 167))
TINT = 0.4  # share of the colour where a mask is; its outline has all of it
SHOWN = 320  # pixels: an image whose shorter side has fewer is enlarged, whole times
MOST = 8  # times
LINE = 14  # pixels of a line of the legend
INK, PAPER = (230, 230, 230), (20, 20, 20)


@dataclass(frozen=True)
class Look:
    """How labels are drawn. names: by value, in the order of their colours; None for one label without a name."""

    names: Mapping[int, str] | None = None

    def colour(self, value: int) -> Colour:
        if self.names is None or len(self.names) == 1:
            return PREDICTED
        return LABELS[list(self.names).index(value) % len(LABELS)]

    def truth(self, value: int) -> Colour:
        """Of the true outline: the label's own colour made brighter where there are several."""
        if self.names is None or len(self.names) == 1:
            return TRUTH
        r, g, b = (round(255 - 0.45 * (255 - part)) for part in self.colour(value))
        return r, g, b

    def legend(self, truth: bool) -> list[tuple[str, Colour, bool]]:
        """Text, colour and whether it stands for an outline, of each line."""
        if self.names is None or len(self.names) == 1:
            name = "" if self.names is None else f"{next(iter(self.names.values()))}, "
            return [(f"{name}predicted", PREDICTED, False)] + [("true outline", TRUTH, True)] * truth
        lines = [(name, self.colour(value), False) for value, name in self.names.items()]
        return lines + [("outline: true, fill: predicted", INK, True)] * truth


def tinted(grey: Floats, labels: Array, truth: Array | None = None, look: Look = Look(), zoom: int = 1) -> Bytes:
    """(zoom*H, zoom*W, 3) uint8 of grey values (H,W) in [0, 1]: predictions tinted, with their outline where there is
    one label; true masks as outlines.

    labels, truth: (H,W) bool, or integers with 0 for the background. An outline is one pixel wide after zooming, and
    dashed at zoom 1, so that a predicted line of one pixel shows under the outline of the truth.
    """
    shown = np.repeat((_enlarged(np.asarray(grey, np.float32), zoom) * 255)[:, :, None], 3, axis=2)
    labels = _enlarged(np.asarray(labels), zoom)
    for value in _values(labels):
        inside = labels == value
        shown[inside] = (1 - TINT) * shown[inside] + TINT * np.array(look.colour(value))
        if look.names is None or len(look.names) == 1 or zoom > 1:
            shown[_outline(inside)] = look.colour(value)
    if truth is not None:
        truth = _enlarged(np.asarray(truth), zoom)
        for value in _values(truth):
            line = _outline(truth == value)
            if zoom == 1:  # every other pixel of it, where it would hide a prediction
                dashes = np.add.outer(np.arange(line.shape[0]), np.arange(line.shape[1])) // 2 % 2 == 0
                line &= dashes | (labels == 0)
            shown[line] = look.truth(value)
    return shown.round().astype(np.uint8)


def with_legend(picture: Bytes, look: Look, truth: bool) -> Bytes:
    """The picture (H,W,3) with lines below it that say what the colours mean; widened where a line needs it."""
    from PIL import Image, ImageDraw

    lines = look.legend(truth)
    width = max(picture.shape[1], max(24 + round(6.2 * len(text)) for text, _, _ in lines))
    out = Image.new("RGB", (width, picture.shape[0] + LINE * len(lines) + 6), PAPER)
    out.paste(Image.fromarray(picture), (0, 0))
    pen = ImageDraw.Draw(out)
    for i, (text, colour, outline) in enumerate(lines):
        y = picture.shape[0] + 3 + LINE * i
        pen.rectangle((5, y + 2, 15, y + 11), outline=colour, fill=None if outline else colour)
        pen.text((21, y + 1), text, fill=INK)
    return np.asarray(out)


def write_overlay(
    path: AnyPath, image: Array, labels: Array, truth: Array | None = None, look: Look = Look()
) -> None:
    """Write an overlay as PNG, enlarged where the image is small, with its legend."""
    zoom = zoom_of(np.shape(image)[:2])
    picture = tinted(normalise(np.asarray(image)), labels, truth, look, zoom)
    write_png(path, with_legend(picture, look, truth is not None))


def zoom_of(shape: tuple[int, ...], shown: int = SHOWN) -> int:
    """How many times an image of this shape (H,W) is enlarged for its shorter side to have `shown` pixels."""
    return min(MOST, max(1, math.ceil(shown / max(1, min(shape)))))


def contact_sheet(
    panels: Sequence[Bytes], captions: Sequence[str], look: Look, truth: bool, tile: int = 160, across: int = 6
) -> Bytes:
    """(H,W,3) uint8: pictures (h,w,3) of any sizes in rows of `across`, at most `tile` pixels each way, captions above
    and the legend below them."""
    from PIL import Image, ImageDraw

    across = max(1, min(across, len(panels)))
    rows = -(-len(panels) // across)
    sheet = Image.new("RGB", (across * (tile + 4) + 4, rows * (tile + LINE + 4) + 4), PAPER)
    pen = ImageDraw.Draw(sheet)
    for i, (panel, caption) in enumerate(zip(panels, captions, strict=True)):
        y, x = (4 + size * place for size, place in zip((tile + LINE + 4, tile + 4), divmod(i, across)))
        pen.text((x, y), caption, fill=INK)
        scale = tile / max(panel.shape[:2])
        size = (max(1, round(panel.shape[1] * scale)), max(1, round(panel.shape[0] * scale)))
        kind = Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.NEAREST
        small = Image.fromarray(panel).resize(size, kind)
        sheet.paste(small, (x + (tile - size[0]) // 2, y + LINE + (tile - size[1]) // 2))
    return with_legend(np.asarray(sheet), look, truth)


def square_pixels(values: Array, pixel: tuple[float, float] | None) -> Array:
    """Grey values or labels (H,W) whose pixels measure `pixel` (mm a row, mm a column) as an image of square ones, by
    the nearest pixel; as they are where that is not known or they are square already."""
    if pixel is None or min(pixel) <= 0:
        return values
    height, width = (max(1, round(n * mm / min(pixel))) for n, mm in zip(values.shape, pixel))
    out: Array = values[np.ix_(nearest(values.shape[0], height), nearest(values.shape[1], width))]
    return out


def _values(labels: Array) -> list[int]:
    return [int(value) for value in np.unique(labels) if value]


def _enlarged(values: Array, zoom: int) -> Array:
    return values if zoom == 1 else values.repeat(zoom, axis=0).repeat(zoom, axis=1)


def _outline(mask: Bools) -> Bools:
    """Pixels of the mask with a neighbour (of four) outside it."""
    padded = np.pad(mask, 1)
    core = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    outline: Bools = mask & ~core
    return outline
