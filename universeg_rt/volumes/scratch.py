"""Arrays in unlinked temporary files: volumes that need not fit the memory, and leave nothing behind."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Literal

import numpy as np
import numpy.typing as npt

from ..errors import OutputError
from ..named_types import Array

PIECE = 2**20  # bytes that are copied at a time
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)


@contextmanager
def scratch_file() -> Iterator[IO[bytes]]:
    """A temporary file without a name; an array that is mapped from it outlives the block."""
    try:
        with tempfile.TemporaryFile(prefix="universeg.") as file:
            yield file
    except OSError as error:
        if error.errno not in FULL:  # of a file that is read in the block
            raise
        raise OutputError(f"cannot unpack into {tempfile.gettempdir()}: {error.strerror or error}; set TMPDIR to a "
                          "folder with more room") from None


def scratch_array(shape: tuple[int, ...], dtype: npt.DTypeLike, order: Literal["C", "F"] = "C") -> Array:
    """Zeros of this shape in a temporary file; OutputError where there is no room for them."""
    size = int(np.prod(shape, dtype=object)) * np.dtype(dtype).itemsize
    with scratch_file() as file:
        # Room is taken now: a mapped file that finds none when it is written to ends the process.
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)
        else:
            file.truncate(size)
        return np.memmap(file, dtype, "r+", 0, shape, order)


def slices_of(values: Array, like: Array | None = None) -> Iterator[Array]:
    """The slices (2-D) of a volume as they lie in its file one after another, or as those of `like` do."""
    return iter(np.moveaxis(values, int(np.argmax(np.abs((values if like is None else like).strides))), 0))


def mapped_by_slices(values: Array, dtype: npt.DTypeLike, convert: Callable[[Array], Array]) -> Array:
    """`convert` of every slice, in a temporary file of the same layout."""
    out = scratch_array(values.shape, dtype, "F" if values.flags.f_contiguous else "C")
    for source, target in zip(slices_of(values), slices_of(out, values)):
        target[...] = convert(source)
    return out


def present(values: Array) -> Array:
    """Which values there are in an array, sorted; fast for those of up to 16 bits without a sign."""
    if values.dtype.kind == "u" and values.dtype.itemsize <= 2:
        return np.flatnonzero(np.bincount(values.reshape(-1)))
    return np.unique(values)
