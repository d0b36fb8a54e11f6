"""How many threads a CPU runner takes: one a core where it is not told, and the bounds of what it may be told."""

from __future__ import annotations

import math
import os
from pathlib import Path

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
    """Cores that this process may use, at most MAX_THREADS: by its affinity, and by the whole cores of its cgroup's
    quota, since threads beyond it are all stopped for the rest of each period."""
    try:
        count = len(os.sched_getaffinity(0))
    except AttributeError:  # not on every system
        count = os.cpu_count() or 1
    return max(1, int(min(count, quota(), MAX_THREADS)))


def quota(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> float:
    """Cores' worth of time that cgroups grant this process; infinite where they set no limit.

    root: where cgroups are mounted; own: the file that says which are this process's. In a container the root itself is
    its own.
    """
    try:
        lines = own.read_text().splitlines()
    except (OSError, ValueError):
        lines = []
    granted = [math.inf]
    for line in lines:
        _, controllers, place = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        mounted = root / controllers  # version 2 has no controllers here, and one tree
        folder = mounted / place.lstrip("/")
        for each in (folder, *folder.parents):
            granted.append(_granted(each))
            if each == mounted:
                break
    return min(granted)


def _granted(folder: Path) -> float:
    """By one cgroup: `cpu.max` of version 2, a quota and a period of version 1."""
    for files in (("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us")):
        try:
            limit, period = " ".join((folder / name).read_text() for name in files).split()
            if limit != "max" and float(limit) > 0:
                return float(limit) / float(period)
        except (OSError, ValueError, ZeroDivisionError):
            continue
    return math.inf
