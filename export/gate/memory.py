"""Lets the C library keep freed memory while a large network runs, and give it back afterwards.

glibc returns every large map's pages to the system and takes fresh ones for the next map: up to two thirds of the
reference's time (benchmarks/NOTES.md). What is computed does not change. Between two networks nothing is kept: the peak
stays the same.
Elsewhere than on glibc nothing is done.
"""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Iterator
from contextlib import contextmanager

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -3, -4  # malloc.h
NEVER, MOST_MAPPINGS = -1, 65536  # trim never; glibc's own number of mappings
# Where glibc's thresholds come to rest by themselves once large maps have been freed: set by hand they move no more.
LARGEST_THRESHOLD = 32 << 20

_depth = 0


@contextmanager
def kept_memory() -> Iterator[None]:
    """Freed memory stays with this process until the outermost such block ends. For one thread at a time."""
    global _depth
    libc = ctypes.CDLL(None) if platform.libc_ver()[0] == "glibc" else None
    if libc is None or _depth:
        yield
        return
    _depth += 1
    libc.mallopt(M_MMAP_MAX, 0)
    libc.mallopt(M_TRIM_THRESHOLD, NEVER)
    try:
        yield
    finally:
        _depth -= 1
        libc.mallopt(M_MMAP_MAX, MOST_MAPPINGS)
        libc.mallopt(M_MMAP_THRESHOLD, LARGEST_THRESHOLD)
        libc.mallopt(M_TRIM_THRESHOLD, 2 * LARGEST_THRESHOLD)
        libc.malloc_trim(0)
