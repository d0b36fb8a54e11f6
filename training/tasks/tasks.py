"""Real segmentation tasks: images, binary labels and subjects, split 60/20/20 by subject (paper section 5.1)."""

from __future__ import annotations

import hashlib
import math
import os
import re
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from universeg_rt.errors import InputError, shown
from universeg_rt.storage.arrays import read_npz
from universeg_rt.storage.reading import reason

# Of a regular expression: its characters, the product of its counts as in \d{5}, the seconds of its searches in all
# names of a task.
PATTERN_LENGTH, PATTERN_REPEATS, PATTERN_SECONDS = 200, 10_000, 2.0
SPLITS = {"support": 0.6, "dev": 0.2, "test": 0.2}


@dataclass(frozen=True)
class Task:
    """One binary task: images (N,H,W) uint8 grey, labels (N,H,W) uint8 in {0, 1}, subjects (N,) names.

    Tasks of one data set split their subjects alike, so that no subject trains one task and tests another.
    """

    name: str
    images: np.ndarray
    labels: np.ndarray
    subjects: np.ndarray
    dataset: str = ""

    def __post_init__(self) -> None:
        check_task(self)

    def __len__(self) -> int:
        return len(self.images)

    def select(self, chosen: np.ndarray) -> Task:
        """The entries at the given indices."""
        return Task(self.name, self.images[chosen], self.labels[chosen], self.subjects[chosen], self.dataset)

    def split(self, *names: str) -> Task:
        """The entries of the subjects of one split or more: `support`, `dev`, `test`; all three are the whole task."""
        unknown = [name for name in names if name not in SPLITS]
        if unknown or not names:
            raise InputError(f"splits {unknown or names}; accepted: {', '.join(SPLITS)}")
        if set(names) == set(SPLITS):
            return self
        parts = split_subjects(self.subjects, self.dataset or self.name)
        wanted = np.concatenate([parts[name] for name in names])
        return self.select(np.flatnonzero(np.isin(self.subjects, wanted)))


def check_task(task: Task) -> None:
    """Raise InputError where the arrays do not fit, or a label is empty or not binary (the entries are named)."""
    images, labels, subjects = task.images, task.labels, task.subjects
    if images.ndim != 3 or images.shape != labels.shape or len(subjects) != len(images) or len(images) == 0:
        raise InputError(
            f"task {task.name}: images {images.shape}, labels {labels.shape}, subjects {np.shape(subjects)}; expected "
            "(N,H,W) twice and (N,), N at least 1")
    other = np.flatnonzero((labels > 1).any(axis=(1, 2)))
    if len(other):
        raise InputError(
            f"task {task.name}: labels of {_few(subjects[other])} hold values other than 0 and 1; make one binary task "
            "for each label value")
    empty = np.flatnonzero(~labels.any(axis=(1, 2)))
    if len(empty):
        raise InputError(f"task {task.name}: labels of {_few(subjects[empty])} are empty; leave these entries out")


def split_subjects(subjects: np.ndarray, salt: str = "") -> dict[str, np.ndarray]:
    """Subjects of each split, the same on every machine: ordered by a hash of their names, then cut 60/20/20.

    Raises InputError for fewer than 3 subjects, which cannot fill three splits.
    """
    names = sorted(set(map(str, subjects)), key=lambda s: hashlib.sha256(f"{salt}/{s}".encode()).digest())
    if len(names) < 3:
        raise InputError(f"task {salt}: {len(names)} subjects; splits by subject need at least 3")
    dev = max(1, round(SPLITS["dev"] * len(names)))
    test = max(1, round(SPLITS["test"] * len(names)))
    support = len(names) - dev - test
    return {"support": np.array(names[:support]), "dev": np.array(names[support : support + dev]),
            "test": np.array(names[support + dev :])}


def load_npz(
    path: str | os.PathLike, name: str | None = None, subject_pattern: str | None = None, dataset: str = ""
) -> Task:
    """A task from an archive with `images` (N,H,W) uint8 grey, `labels` (N,H,W) in {0, 1} and `ids` (N,) names.

    `subject_pattern` is a regular expression whose first group, found in an id, is the subject (None: the id itself).
    Raises InputError where the file is missing, damaged, lacks an array, or does not make a task.
    """
    path = Path(path)
    archive = read_npz(path)
    missing = [key for key in ("images", "labels", "ids") if key not in archive]
    if missing:
        raise InputError(f"{path} lacks {', '.join(missing)}; a task file holds images, labels and ids")
    images, labels, ids = archive["images"], archive["labels"], archive["ids"]
    if images.dtype != np.uint8:
        raise InputError(f"{path}: images are {images.dtype}; expected uint8 grey values")
    if not np.issubdtype(labels.dtype, np.integer) and labels.dtype != bool:
        raise InputError(f"{path}: labels are {labels.dtype}; expected integers 0 and 1")
    if labels.size and labels.min() < 0:
        raise InputError(f"{path}: labels hold negative values; expected 0 and 1")
    if ids.ndim != 1:
        raise InputError(f"{path}: ids have the shape {ids.shape}; expected one name an image, (N,)")
    labels = np.minimum(labels, 255).astype(np.uint8)
    return Task(name or path.stem, images, labels, subjects_of(ids, subject_pattern), dataset)


def subjects_of(ids, pattern: str | None) -> np.ndarray:
    """Subject names (N,) of ids: the first group of `pattern` where it is found, else the whole id.

    Raises InputError for a pattern that is none, has no group, or takes longer than PATTERN_SECONDS in all.
    """
    names = [str(i) for i in ids]
    if pattern is None:
        return np.array(names)
    import regex

    if len(pattern) > PATTERN_LENGTH:
        raise InputError(
            f"subject pattern {shown(pattern)} has {len(pattern)} characters; accepted: at most {PATTERN_LENGTH}")
    counts = [max(map(int, re.findall(r"\d+", count))) for count in re.findall(r"\{[\d,]*\d[\d,]*\}", pattern)]
    if math.prod(counts) > PATTERN_REPEATS:  # they are written out when it is compiled
        raise InputError(
            f"subject pattern {shown(pattern)} repeats a part more than {PATTERN_REPEATS} times; accepted: fewer")
    try:
        compiled = regex.compile(pattern)
    except Exception as error:  # regex raises other kinds than its own for some patterns
        raise InputError(f"subject pattern {shown(pattern)} is no regular expression: {reason(error)}") from None
    if compiled.groups < 1:
        raise InputError(f"subject pattern {shown(pattern)} has no group; put the subject's part in parentheses")
    end = time.monotonic() + PATTERN_SECONDS
    try:
        found = [compiled.search(name, timeout=max(1e-3, end - time.monotonic())) for name in names]
    except TimeoutError:
        raise InputError(
            f"subject pattern {shown(pattern)} takes longer than {PATTERN_SECONDS:g} seconds; repeats inside repeats, "
            "as in (a+)+, do: write it more simply") from None
    return np.array([name if m is None or m.group(1) is None else m.group(1) for m, name in zip(found, names)])


def _few(names: np.ndarray) -> str:
    shown = ", ".join(map(str, names[:5]))
    return shown + (f" and {len(names) - 5} more" if len(names) > 5 else "")
