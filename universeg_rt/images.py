"""Reads and writes pictures with Pillow and arrays with NumPy: grey values in, masks and overlays out."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np

from .atomic import write_file
from .errors import InputError

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".npy")


def read_image(path: str | os.PathLike) -> np.ndarray:
    """A picture as (H,W): grey as it is (8 or 16 bits), colour as luminance; .npy arrays unchanged.

    Raises InputError naming a file that is missing, broken, or of another kind.
    """
    path = Path(path)
    if path.suffix.lower() == ".npy":
        try:
            return np.load(path, allow_pickle=False)
        except Exception as error:  # whatever numpy trips over in a damaged header
            raise InputError(f"{path} is not a whole .npy array ({error}); write it again") from None
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as picture:
            if picture.mode == "P" and picture.getbands() == ("P",) and "transparency" not in picture.info:
                picture = picture.convert("RGB")
            if picture.mode in ("RGB", "RGBA", "CMYK", "YCbCr", "LA", "PA", "P", "HSV", "LAB"):
                picture = picture.convert("L")
            return np.array(picture)
    except FileNotFoundError:
        raise InputError(f"{path} does not exist") from None
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError, ValueError, EOFError) as error:
        raise InputError(f"{path} cannot be read as an image ({error}); accepted: {', '.join(SUFFIXES)}") from None


def read_label(path: str | os.PathLike) -> np.ndarray:
    """A mask as (H,W): palette images by their indices, all else as `read_image`."""
    path = Path(path)
    if path.suffix.lower() == ".png":
        from PIL import Image, UnidentifiedImageError

        try:
            with Image.open(path) as picture:
                if picture.mode == "P":
                    return np.array(picture)
        except (UnidentifiedImageError, OSError, SyntaxError, ValueError):
            pass  # read_image says what is wrong
    return read_image(path)


def image_files(folder: str | os.PathLike) -> list[Path]:
    """All image files of a folder, sorted by name; InputError where there is none, or two share a stem."""
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder")
    files = sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))
    if not files:
        raise InputError(f"{folder} holds no images; accepted: {', '.join(SUFFIXES)}")
    check_distinct_stems(files)
    return files


def check_distinct_stems(files: list[Path]) -> None:
    """Raise InputError where two files would be written under the same name."""
    seen: dict[str, Path] = {}
    for file in files:
        if file.stem in seen:
            raise InputError(f"{seen[file.stem]} and {file} have the same name but for the ending; rename one")
        seen[file.stem] = file


def write_mask(path: str | os.PathLike, mask: np.ndarray) -> None:
    """(H,W) bool -> 8-bit grey PNG, 0 and 255."""
    write_png(path, mask.astype(np.uint8) * 255)


def write_array(path: str | os.PathLike, array: np.ndarray) -> None:
    """An array as .npy."""
    with write_file(path) as file:
        np.save(file, array)


def overlay(image: np.ndarray, mask: np.ndarray, truth: np.ndarray | None = None) -> np.ndarray:
    """(H,W,3) uint8: the image in grey, the mask tinted orange with its outline, the truth's outline in cyan."""
    from .preprocess import normalise

    grey = np.repeat((normalise(np.asarray(image)) * 255)[:, :, None], 3, axis=2)
    inside = mask.astype(bool)
    grey[inside] = 0.65 * grey[inside] + 0.35 * np.array([255, 120, 0])
    grey[_outline(inside)] = (255, 140, 0)
    if truth is not None:
        grey[_outline(truth.astype(bool))] = (0, 220, 255)
    return grey.round().astype(np.uint8)


def write_overlay(path: str | os.PathLike, image: np.ndarray, mask: np.ndarray, truth: np.ndarray | None = None) -> None:
    write_png(path, overlay(image, mask, truth))


def _outline(mask: np.ndarray) -> np.ndarray:
    """Pixels of the mask with a neighbour (of four) outside it."""
    padded = np.pad(mask, 1)
    core = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return mask & ~core


def write_png(path: str | os.PathLike, pixels: np.ndarray) -> None:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    with write_file(path) as file:
        file.write(buffer.getvalue())
