"""How many threads a CPU runner takes: one a core where it is not told, and the bounds of what it may be told."""

from __future__ import annotations

import os

from ..errors import InputError

# More help nobody: an image has fewer rows to share out. A slip of the finger must not fill the machine with threads.
MAX_THREADS = 256


def check_threads(threads: int | None) -> None:
    """Raises InputError for what is neither None nor an integer from 1 to MAX_THREADS."""
    if threads is not None and (isinstance(threads, bool) or not isinstance(threads, int)
                                or not 1 <= threads <= MAX_THREADS):
        raise InputError(
            f"threads is {threads!r}; give an integer from 1 to {MAX_THREADS}, or leave it out for one a core")


def cores() -> int:
    """Cores that this process may use, at most MAX_THREADS."""
    try:
        count = len(os.sched_getaffinity(0))
    except AttributeError:  # not on every system
        count = os.cpu_count() or 1
    return min(count, MAX_THREADS)
