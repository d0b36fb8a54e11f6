"""Reads and writes pictures with Pillow and arrays with NumPy: grey values in, masks out."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..named_types import AnyPath, Array, Bytes
from ..storage.arrays import read_npy
from ..storage.atomic import write_file
from ..storage.reading import path_of, reading, reason, refuse_folder
from .preprocess import MAX_PIXELS, check_pixels

# Only these are ever handed a file: Pillow knows formats whose reader starts another program.
FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".tif": "TIFF", ".tiff": "TIFF", ".bmp": "BMP"}
SUFFIXES = (*FORMATS, ".npy")
PHOTOMETRIC, WHITE_IS_ZERO = 262, 0  # a tag of TIFF, and its value
MARKED = 255  # of a mask in one colour
JPEG_GREY = 8  # by which channels of a grey differ once JPEG has coded them
COLOUR = ("RGB", "RGBA", "CMYK", "YCbCr", "LA", "PA", "P", "HSV", "LAB")


def read_image(path: AnyPath, notes: list[str] | None = None) -> Array:
    """A picture as (H,W), upright as its EXIF orientation says: grey as it is (8 or 16 bits), colour as luminance.

    A .npy array comes unchanged. notes: what was done to the picture is appended. Raises InputError naming a file that
    is missing, broken or of another kind, holds several frames, has more than `MAX_PIXELS`, or is colour of 16 bits.
    """
    path = path_of(path)
    if path.suffix.lower() == ".npy":
        return read_npy(path, MAX_PIXELS)
    notes = [] if notes is None else notes
    with opened(path, notes) as picture:
        if _is_transparent(picture):
            notes.append("its transparency was not used")
        if picture.mode == "P" and "transparency" not in picture.info:
            picture = picture.convert("RGB")
        return _grey(picture, notes)


def read_label(path: AnyPath, notes: list[str] | None = None, marks: dict[int, Path] | None = None) -> Array:
    """A mask as (H,W), upright as its EXIF orientation says: pictures with a palette by their indices, all else as
    `read_image`.

    Index 0 is the background. Raises InputError as `read_image` does; where a palette shows index 0 brighter or less
    transparent than another index in the picture, so that it may be the mark; where a picture without a palette has
    transparent pixels; and where it has colours that are no greys, but for one of them on black. marks: the colour of
    labels that belong together, as #rrggbb is a number, and its first file; another colour is an InputError too.
    """
    path = path_of(path)
    if path.suffix.lower() == ".npy":
        return read_npy(path, MAX_PIXELS)
    notes = [] if notes is None else notes
    with opened(path, notes) as picture:
        return _label_of(path, picture, notes, {} if marks is None else marks)


def _grey(picture: Any, notes: list[str]) -> Array:
    """(H,W) of a loaded picture. Where a TIFF says that 0 is white, Pillow inverts up to 8 bits, this 16."""
    if picture.mode in COLOUR:
        return np.array(picture.convert("L"))
    values = np.array(picture)
    if picture.format == "TIFF" and picture.tag_v2.get(PHOTOMETRIC) == WHITE_IS_ZERO:
        if values.dtype.kind == "u" and values.dtype.itemsize == 2:
            return 65_535 - values
        if values.dtype.kind == "f":
            notes.append("its file says that 0 is white, which floats were not inverted for; invert them if it is so")
    return values


@contextmanager
def opened(path: Path, notes: list[str]) -> Iterator[Any]:
    """A picture of one frame, loaded and upright; what goes wrong in the block is an InputError that names the file."""
    with opened_picture(path) as picture:
        check_pixels(picture.size[::-1], str(path))
        if (frames := frame_count(picture)) > 1:
            raise InputError(
                f"{path} holds {frames} frames, and one image is read from a file; save each frame that is wanted "
                "as a file of its own")
        yield _upright(path, picture, notes)


def pages(path: Path, notes: list[str], label: bool = False) -> Iterator[tuple[int, Array]]:
    """How many pages a picture has, and each in turn as (H,W): as `read_image` reads one, or as `read_label`."""
    with opened_picture(path) as picture:
        count = frame_count(picture)
        marks: dict[int, Path] = {}
        for page in range(count):
            picture.seek(page)
            check_pixels(picture.size[::-1], str(path))
            own: list[str] = []
            upright = _upright(path, picture, own)
            values = _label_of(path, upright, own, marks) if label else _grey(upright, own)
            notes += [note for note in own if note not in notes]
            yield count, values


def frame_count(picture: Any) -> int:
    """Frames that are pictures of their own: an MPO is a JPEG whose further ones are previews or depths of the
    first."""
    return 1 if picture.format == "MPO" else getattr(picture, "n_frames", 1)


@contextmanager
def opened_picture(path: Path) -> Iterator[Any]:
    """A picture, not yet loaded; what goes wrong in the block is an InputError that names the file."""
    from PIL import Image

    # By a file of ours, not by its name: Pillow maps a named file into memory, and garbles an uncompressed TIFF on its
    # side so.
    with reading("an image", path, cure=f"accepted: {', '.join(SUFFIXES)}"), open(path, "rb") as file:
        try:
            picture = Image.open(file, formats=sorted(set(FORMATS.values())))
        except Image.DecompressionBombError as error:
            raise InputError(
                f"{path} is too large ({reason(error)}); accepted: at most {MAX_PIXELS:,} pixels; make it smaller first"
            ) from None
        with picture:
            yield picture


def _upright(path: Path, picture: Any, notes: list[str]) -> Any:
    """The picture's frame loaded, and turned as its EXIF orientation says."""
    from PIL import ImageOps

    if _is_cut_to_eight_bits(picture):
        raise InputError(
            f"{path} is colour or has transparency in 16 bits, which would be cut to 8; save it as 16-bit "
            "grey, or in 8 bits")
    if _is_misread_bitmap(picture):
        raise InputError(
            f"{path} is a bitmap of 8 bits with a palette of black and white, which Pillow misreads; save it "
            "as PNG"
        )
    turned = _orientation(picture) in range(2, 9)
    picture.load()
    if turned:
        notes.append("it was turned upright as its EXIF orientation says")
        ImageOps.exif_transpose(picture, in_place=True)  # does nothing where loading has done it (TIFF)
    return picture


def _orientation(picture: Any) -> int:
    try:
        return int(picture.getexif().get(0x0112, 1))
    except Exception:  # a damaged EXIF block beside a good picture
        return 1


def _is_cut_to_eight_bits(picture: Any) -> bool:
    """Whether the file holds 16 bits of several channels, of which Pillow keeps the upper 8."""
    if picture.format not in ("PNG", "TIFF") or picture.mode.startswith("I"):
        return False
    modes = [tile[3] if isinstance(tile[3], str) else str(tile[3][0]) for tile in picture.tile]
    return any(";16" in mode for mode in modes)


def _is_misread_bitmap(picture: Any) -> bool:
    """Whether Pillow takes the bytes of a BMP for single bits: it counts the colours, not the bits of a pixel."""
    if picture.format != "BMP" or picture.mode != "1" or not picture.tile or not isinstance(picture.tile[0][3], tuple):
        return False
    row_of_bits = (picture.width + 31) // 32 * 4
    return bool(picture.tile[0][3][1] != row_of_bits)


def _is_transparent(picture: Any) -> bool:
    if "A" in picture.getbands():
        return bool(picture.getchannel("A").getextrema()[0] < 255)
    if "transparency" not in picture.info:
        return False
    if picture.mode.startswith("I"):  # one grey value stands for nothing
        return bool((np.array(picture) == picture.info["transparency"]).any())
    return bool(picture.convert("RGBA").getchannel("A").getextrema()[0] < 255)


def _indices(path: Path, picture: Any) -> Array:
    """(H,W) indices into the palette; InputError where index 0 looks like the mark rather than the background."""
    indices = np.array(picture)
    # Opacity and brightness of each index that is there, by one pixel of it: the whole picture in colour takes memory.
    looks = {}
    for index in (index for index, count in enumerate(picture.histogram()[:256]) if count):
        y, x = divmod(int((indices == index).argmax()), picture.width)
        pixel = picture.crop((x, y, x + 1, y + 1)).convert("RGBA")
        looks[index] = pixel.getpixel((0, 0))[3], pixel.convert("RGB").convert("L").getpixel((0, 0))
    opacity, brightness = looks.get(0, (0, 0))
    for index, (other_opacity, other_brightness) in looks.items():
        if other_opacity < opacity or other_opacity == opacity and other_brightness < brightness:
            raise InputError(
                f"{path} is a label with a palette in which index 0, the background, looks brighter or less "
                f"transparent than index {index}; which one marks is not clear: save it as grey, 0 for background and "
                "255 for what is marked"
            )
    return indices


def _label_of(path: Path, picture: Any, notes: list[str], marks: dict[int, Path]) -> Array:
    """(H,W) of a loaded label, as `read_label` says. Colours have no order, and two may have the same luminance."""
    if picture.mode == "P":
        return _indices(path, picture)
    if _is_transparent(picture):
        raise InputError(
            f"{path} is a label with transparent pixels, whose value is not clear; save it as grey without "
            "transparency, 0 for background and 255 for what is marked")
    values = _grey(picture, notes)
    if picture.mode not in COLOUR or picture.mode == "LA":
        return values
    rgb = np.asarray(picture.convert("RGB"))
    coloured = rgb.max(axis=2) - rgb.min(axis=2) > (JPEG_GREY if picture.format == "JPEG" else 0)
    if not coloured.any():
        return values
    numbers = rgb @ np.array([2**16, 2**8, 1], np.uint32)
    colours = np.unique(numbers)
    if len(colours) == 2 and colours[0] == 0:
        marks.setdefault(int(colours[1]), path)
        if len(marks) > 1:
            said = " and ".join(f"#{colour:06x} in {file}" for colour, file in marks.items())
            raise InputError(f"labels mark by different colours, {said}, and which value each stands for is not clear; "
                             "save them as grey, a value for each label, or all of one label in one colour")
        return np.where(numbers, np.uint8(MARKED), np.uint8(0))
    some = ", ".join(f"#{colour:06x}" for colour in colours[:4]) + ", ..." * (len(colours) > 4)
    raise InputError(f"{path} is a label of {len(colours)} colours ({some}), and which value each stands for is not "
                     "clear; save it as grey, 0 for the background and a value for each label, or with a palette whose "
                     "index 0 is the background")


def named_images(folder: AnyPath) -> dict[str, Path]:
    """All image files in a folder and its subfolders, by their path in it without the ending (`p1/001`), sorted by it.

    Hidden files and folders are left out. InputError where there is none, where two differ by their ending alone, or a
    folder cannot be read.
    """
    folder = path_of(folder)
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder")
    files: dict[str, Path] = {}
    for file in image_files(folder):
        add_named(files, file.relative_to(folder).with_suffix("").as_posix(), file)
    if not files:
        raise InputError(f"{folder} holds no images; accepted: {', '.join(SUFFIXES)}")
    return dict(sorted(files.items()))


def add_named(files: dict[str, Path], name: str, file: Path) -> None:
    """Add a file under a name; InputError where another file has it."""
    if name in files:
        raise InputError(f"{files[name]} and {file} have the same name but for the ending; rename one")
    files[name] = file


def image_files(
    folder: Path, leave_out: Callable[[Path], bool] | None = None, other: Callable[[Path], object] | None = None
) -> list[Path]:
    """All image files in a folder and its subfolders, sorted; hidden ones are left out.

    leave_out: says of a subfolder whether it is left out. other: is called with each file of a kind that is not read.
    InputError where a folder cannot be read.
    """
    found = []
    for root, folders, names in os.walk(folder, onerror=refuse_folder):
        folders[:] = [f for f in folders if not f.startswith(".") and not (leave_out and leave_out(Path(root) / f))]
        for file in (Path(root) / name for name in names if not name.startswith(".")):
            if file.suffix.lower() in SUFFIXES:
                found.append(file)
            elif other is not None:
                other(file)
    return sorted(found)


def write_mask(path: AnyPath, mask: Array) -> None:
    """(H,W) bool -> 8-bit grey PNG, 0 and 255."""
    write_png(path, mask.astype(np.uint8) * 255)


def write_array(path: AnyPath, array: Array) -> None:
    """An array as .npy."""
    with write_file(path) as file:
        np.save(file, array)


def png_bytes(pixels: Bytes) -> bytes:
    """(H,W) or (H,W,3) uint8 as a PNG."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


def write_png(path: AnyPath, pixels: Bytes) -> None:
    data = png_bytes(pixels)
    with write_file(path) as file:
        file.write(data)
