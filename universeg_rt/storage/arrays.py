"""Reads .npy and .npz files of plain arrays: sizes are checked from the headers before anything is allocated, nothing
is unpickled."""

from __future__ import annotations

import math
import os
import zipfile
from pathlib import Path
from typing import IO

import numpy as np

from ..errors import InputError, UniverSegError, shown
from ..named_types import AnyPath, Array
from .reading import reading

# An archive may unpack to this many bytes, or to this many times its own size where that is more: data of any size can
# be read, and a small file cannot fill the memory.
FREE_BYTES = 256 * 2**20
MAX_RATIO = 64
NUMERIC = "biufc"  # kinds of NumPy's types: a number takes at most 32 bytes, a text or a record as many as it says
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # those that NumPy writes


def read_npy(
    path: AnyPath, max_items: int | None = None, error: type[UniverSegError] = InputError
) -> Array:
    """The array of numbers or bool of an .npy file; `error` where it is missing, not whole, of another type, or has
    more than max_items numbers. All this is known from the header, before anything is allocated."""
    path = Path(path)
    with reading("a whole .npy of a plain array", path, error), open(path, "rb") as file:
        dtype, shape = _header(file)
        if dtype.kind not in NUMERIC:
            raise error(f"{path} holds {shown(str(dtype))}; accepted: numbers or bool; save it with such a type")
        left = os.fstat(file.fileno()).st_size - file.tell()
        if max_items is not None and math.prod(shape) > max_items:
            raise error(
                f"{path} holds {math.prod(shape)} numbers, shape {shape}; accepted: at most {max_items}; make it "
                "smaller"
            )
        if math.prod(shape) * dtype.itemsize != left:
            raise ValueError(f"its header says {math.prod(shape) * dtype.itemsize} bytes, {left} follow")
        file.seek(0)
        return np.lib.format.read_array(file, allow_pickle=False)


def read_npz(path: AnyPath, error: type[UniverSegError] = InputError) -> dict[str, Array]:
    """All arrays of an .npz by name.

    Raises `error` where it is missing, not whole, holds objects or unpacks to far more than its size.
    """
    path = Path(path)
    with reading("a whole .npz of plain arrays", path, error), open(path, "rb") as file:
        return _arrays(file, os.fstat(file.fileno()).st_size, path, error)


def _arrays(file: IO[bytes], size: int, path: AnyPath, error: type[UniverSegError]) -> dict[str, Array]:
    with zipfile.ZipFile(file) as archive:
        members = [info for info in archive.infolist() if info.filename.endswith(".npy")]
        if len({info.filename for info in members}) != len(members):
            raise ValueError("two arrays have the same name")
        total = sum(_checked_bytes(archive, info) for info in members)
        limit = max(FREE_BYTES, MAX_RATIO * size)
        if total > limit:
            raise error(
                f"{path} unpacks to {total} bytes; accepted: at most {limit} for a file of this size, {MAX_RATIO} "
                f"times its own or {FREE_BYTES}; if the data is right, write it with numpy.savez, which does not "
                "compress")
        arrays = {}
        for info in members:
            with archive.open(info) as member:
                arrays[info.filename.removesuffix(".npy")] = np.lib.format.read_array(member, allow_pickle=False)
                member.read(1)  # the end is where the checksum is compared
        return arrays


def _checked_bytes(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> int:
    """Bytes of one array, where its header and the archive's directory agree on them; ValueError where they do not."""
    if info.compress_type not in METHODS:
        raise ValueError(f"{info.filename} is packed by method {info.compress_type}, which NumPy does not write")
    with archive.open(info) as file:
        dtype, shape = _header(file)
        size = math.prod(shape) * dtype.itemsize
        if size != info.file_size - file.tell():
            raise ValueError(f"the header of {info.filename} says {size} bytes, {info.file_size - file.tell()} follow")
    return size


def _header(file: IO[bytes]) -> tuple[np.dtype, tuple[int, ...]]:
    version = np.lib.format.read_magic(file)
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in readers:
        raise ValueError(f"format {version[0]}.{version[1]} is not one of plain arrays")
    shape, _, dtype = readers[version](file)
    if dtype.hasobject:
        raise ValueError("it holds Python objects, which are never unpickled")
    if dtype.itemsize == 0 or any(not isinstance(n, int) or n < 0 for n in shape):
        raise ValueError(f"type {dtype} and shape {shape} are not of a plain array")
    return dtype, shape
