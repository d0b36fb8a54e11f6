"""Pictures: damaged files of every accepted format, files of other formats under accepted endings, and labels with odd
palettes."""

from __future__ import annotations

import io
import random
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from universeg_rt.imaging.files import SUFFIXES, read_image, read_label
from universeg_rt.imaging.preprocess import check_image, check_label, normalise

from .mutate import damaged


def cases(rng: random.Random, folder: Path) -> Iterator[tuple[str, Callable[[], object]]]:
    bases = _bases()
    while True:
        name, data = rng.choice(bases)
        kind = rng.choice(("damaged", "damaged", "damaged", "renamed", "whole", "header"))
        ending = rng.choice(SUFFIXES) if kind == "renamed" else f".{name.split(' ')[0]}"
        done = ""
        if kind == "header":
            (name, ending), (done, data) = ("header", ".png"), _header(rng)
        elif kind != "whole":
            done, data = damaged(rng, data)
        read = rng.choice((read_image, read_label))
        yield f"{name} as {ending} by {read.__name__}, {done}", lambda e=ending, d=data, r=read: _read(
            folder / f"case{e}", d, r)


def _read(path: Path, data: bytes, read: Callable) -> None:
    path.write_bytes(data)
    array = read(path)
    assert isinstance(array, np.ndarray) and array.size < 2**28
    if read is read_label:
        assert check_label(array, array.shape).dtype == bool
    else:
        normalised = normalise(check_image(array))
        assert normalised.min() == 0 and normalised.max() == 1


def _header(rng: random.Random) -> tuple[str, bytes]:
    """(its fields, a PNG whose header is whole and says what it likes)."""
    sides = (0, 1, 7, 40, 3000, 11_586, 60_000, 2**31 - 1, 2**32 - 1)
    fields = (rng.choice(sides), rng.choice(sides), rng.choice((1, 2, 4, 8, 16, 3)), rng.choice((0, 2, 3, 4, 6, 5)), 0,
              rng.choice((0, 0, 9)), rng.choice((0, 0, 1)))
    rows = zlib.compress(bytes(rng.choice((0, 100, 10_000))))
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", *fields)), (b"IDAT", rows), (b"IEND", b"")]
    if rng.random() < 0.5:
        extra = ((b"PLTE", bytes(range(6))), (b"PLTE", b""), (b"tRNS", b"\0"), (b"tRNS", b"\0\7"),
                 (b"acTL", struct.pack(">II", 2**31,
                                       0)), (b"acTL", struct.pack(">II", 3, 0)), (b"eXIf", b"II*\0\xff\xff\xff\xff"),
                 (b"iCCP", b"x\0\0" + rows), (b"zTXt", b"x\0\0" + zlib.compress(bytes(2**22))))
        chunks[1:1] = rng.sample(extra, 2)
    packed = (struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
              for kind, data in chunks)
    return f"{fields} {[kind.decode() for kind, _ in chunks]}", b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def _bases() -> list[tuple[str, bytes]]:
    """(ending and what it is, the bytes of a good file)."""
    y, x = np.mgrid[:30, :40]
    grey, mark = (3 * y + 2 * x).astype(np.uint8), ((y - 14) ** 2 + (x - 20) ** 2 < 80)
    picture, exif = Image.fromarray(grey), Image.Exif()
    exif[0x0112] = 6
    palette = Image.frombytes("P", (40, 30), mark.astype(np.uint8).tobytes())
    palette.putpalette([0, 0, 0, 128, 0, 0])
    deep, frames = Image.fromarray(grey.astype(np.uint16) *
                                   200), [Image.fromarray(grey),
                                          Image.fromarray(grey[::-1].copy())]
    made = [("png grey", picture, {}), ("png 16 bits", deep, {}), ("png colour", picture.convert("RGB"), {}),
            ("png palette", palette, {}), ("png clear palette", palette, {"transparency": 0}),
            ("png bits", Image.fromarray(mark), {}), ("png alpha", picture.convert("LA"), {}),
            ("png exif", picture, {"exif": exif}), ("png mask", Image.fromarray(mark * np.uint8(255)), {}),
            ("png grey clear", picture, {"transparency": 7}),
            ("png frames", frames[0], {"save_all": True, "append_images": frames[1:]}), ("jpg grey", picture, {}),
            ("jpg colour", picture.convert("RGB"), {"progressive": True}), ("jpg exif", picture, {"exif": exif}),
            ("jpg print", picture.convert("CMYK"), {}), ("tif grey", picture, {}),
            ("tif packed", picture, {"compression": "tiff_lzw"}),
            ("tif deflated", deep, {"compression": "tiff_adobe_deflate"}),
            ("tif float", Image.fromarray(grey.astype(np.float32)), {}),
            ("tif fax", Image.fromarray(mark), {"compression": "group4"}), ("tif exif", picture, {"exif": exif}),
            ("tif frames", frames[0], {"save_all": True, "append_images": frames[1:]}), ("bmp grey", picture, {}),
            ("bmp palette", palette, {}), ("bmp colour", picture.convert("RGB"), {})]
    formats = {"png": "PNG", "jpg": "JPEG", "tif": "TIFF", "bmp": "BMP"}
    out = [(name, _saved(image, formats[name.split(" ")[0]], options)) for name, image, options in made]
    npy = io.BytesIO()
    np.save(npy, grey)
    others = [("png gif", _saved(picture, "GIF", {})), ("png ppm", _saved(picture, "PPM", {})),
              ("tif icon", _saved(picture, "ICO", {})),
              ("png eps", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 40 30\n%%EndComments\nshowpage\n"),
              ("npy array", npy.getvalue())]
    return out + others


def _saved(image: Image.Image, format: str, options: dict) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()
