"""Stacks: pictures of one size in a multi-page TIFF, which say nothing of where they lie."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..imaging.files import frame_count, opened_picture, pages
from ..named_types import Array
from ..storage.atomic import write_file
from .geometry import Geometry
from .scratch import scratch_array, scratch_file
from .volume import Volume

ENDINGS = (".tif", ".tiff")


def is_stack(path: Path) -> bool:
    """Whether it is a TIFF of more than one page; False where it cannot be read, which reading it says better."""
    if path.suffix.lower() not in ENDINGS:
        return False
    try:
        with opened_picture(path) as picture:
            return frame_count(picture) > 1
    except InputError:
        return False


def read_stack(path: Path, label: bool = False) -> Volume:
    """The pages of a TIFF as (pages, H, W), colour as luminance; label: palettes by their indices.

    Raises InputError where pages differ in size or type, or one holds values that are not finite.
    """
    notes: list[str] = []
    values: Array | None = None
    for index, (count, page) in enumerate(pages(path, notes, label)):
        if values is None:
            values = scratch_array((count, *page.shape), page.dtype)
        if page.shape != values.shape[1:] or page.dtype != values.dtype:
            raise InputError(f"{path}: page {index + 1} is {page.dtype} of {page.shape}, the first {values.dtype} of "
                             f"{values.shape[1:]}; a stack has pages of one kind; save them as single files")
        if page.dtype.kind == "f" and not np.isfinite(page).all():
            raise InputError(f"{path}: page {index + 1} holds NaN or infinite values; replace them first")
        values[index] = page
    assert values is not None  # a picture has a page
    return Volume(values, Geometry(values.shape, None), 0, "stack", (path,), notes=tuple(notes))


def write_stack(path: Path, values: Array) -> None:
    """values (pages, H, W) of uint8, uint16 or float32 as a TIFF, deflated, whole or not at all."""
    from PIL import Image, TiffImagePlugin

    with scratch_file() as pages_file:  # Pillow reads back what it wrote, which a file to be renamed is not open for
        tiff = TiffImagePlugin.AppendingTiffWriter(pages_file, new=True)
        for page in values:
            Image.fromarray(np.ascontiguousarray(page)).save(tiff, format="TIFF", compression="tiff_adobe_deflate")
            tiff.newFrame()
        pages_file.seek(0)
        with write_file(path) as file:
            shutil.copyfileobj(pages_file, file)
