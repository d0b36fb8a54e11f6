"""A picture of segmentations: a row a task, and of each case the query, its outlines and one entry of its support."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from universeg_rt.storage.atomic import write_file

TRUTH, PREDICTED, SUPPORT, BOTH = (60, 220, 80), (255, 70, 60), (70, 170, 255), (255, 225, 60)
GAP, CAPTION = 6, 14  # pixels


def draw_sheet(rows: list[list], path: Path, tile: int = 112) -> None:
    """PNG of `rows` of cases (see failures.py), `tile` pixels a picture; truth green, prediction red, support blue."""
    from PIL import Image, ImageDraw

    across = max(len(row) for row in rows)
    width, height = across * (3 * tile + GAP) + GAP, len(rows) * (tile + CAPTION + GAP) + GAP + CAPTION
    sheet = Image.new("RGB", (width, height), (24, 24, 24))
    pen = ImageDraw.Draw(sheet)
    pen.text((GAP, 2), "each: query | truth (green), prediction (red), both (yellow) | one support entry (blue)",
             fill=(210, 210, 210))
    for r, row in enumerate(rows):
        for c, case in enumerate(row):
            x, y = GAP + c * (3 * tile + GAP), GAP + CAPTION + r * (tile + CAPTION + GAP)
            pen.text((x, y), caption(case), fill=(210, 210, 210))
            pictures = (grey(case.image), outlined(case.image, (case.truth, TRUTH), (case.predicted, PREDICTED)),
                        outlined(case.support_image, (case.support_mask, SUPPORT)))
            for k, picture in enumerate(pictures):
                sheet.paste(Image.fromarray(picture).resize((tile, tile)), (x + k * tile, y + CAPTION))
    buffer = io.BytesIO()
    # By the median of the colours, the default, the few pixels of a thin outline would lose theirs.
    sheet.quantize(256, Image.Quantize.FASTOCTREE).save(buffer, "PNG", optimize=True)
    with write_file(path) as file:
        file.write(buffer.getvalue())


def caption(case) -> str:
    facts = case.facts
    return f"{case.task}  Dice {case.dice:.2f}  size {facts['size']:.3f}  contrast {facts['contrast']:.2f}"


def grey(image: np.ndarray) -> np.ndarray:
    """(H,W) in [0, 1] -> (H,W,3) uint8."""
    return np.repeat((image * 255).round().astype(np.uint8)[:, :, None], 3, axis=2)


def outlined(image: np.ndarray, *masks: tuple[np.ndarray, tuple[int, int, int]]) -> np.ndarray:
    """The grey image with each mask's rim, its outermost pixels, in its colour, or BOTH where rims coincide."""
    out, taken = grey(image), np.zeros(image.shape, bool)
    for mask, colour in masks:
        padded = np.pad(mask, 1, mode="edge")
        inner = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
        rim = mask & ~inner
        out[rim] = colour
        out[rim & taken] = BOTH
        taken |= rim
    return out
