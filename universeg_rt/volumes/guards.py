"""Guards around the libraries that read volumes: they tell nothing of a header, which may name a patient, and get no
more bytes than a file has."""

from __future__ import annotations

import io
import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SMALL = 2**16  # bytes
LOGGERS = ("nibabel.global", "pydicom", "highdicom")


class WholeFile(io.BufferedReader):
    """A file of which a reader gets what is there, however long a header says that an element is."""

    def __init__(self, path: Path) -> None:
        super().__init__(io.FileIO(path))
        self._size = os.fstat(self.fileno()).st_size

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and 0 <= size <= SMALL:  # nearly all reads; to ask where they are takes longer than they do
            return super().read(size)
        left = max(0, self._size - self.tell())
        return super().read(left if size is None or size < 0 else min(size, left))


@contextmanager
def quiet() -> Iterator[None]:
    """Around calls of the libraries that read and write volumes: they neither log nor warn."""
    before = [(logger, logger.level) for logger in map(logging.getLogger, LOGGERS)]
    for logger, _ in before:
        logger.setLevel(logging.CRITICAL + 1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in before:
            logger.setLevel(level)
