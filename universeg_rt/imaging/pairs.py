"""Pairs of images and labels: a folder with `images/` and `labels/`, whose files have the same names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from ..errors import InputError
from ..named_types import AnyPath, Array
from ..storage.reading import path_of
from .files import named_images, read_image, read_label

IMAGES, LABELS = "images", "labels"  # the folders


def part_of(folder: AnyPath, part: str) -> Path:
    """The folder IMAGES or LABELS, as `part` says, where both lie in this one; else the folder itself."""
    folder = path_of(folder)
    return folder / part if all((folder / each).is_dir() for each in (IMAGES, LABELS)) else folder


def read_pairs(path: AnyPath) -> tuple[list[Array], list[Array], list[str]]:
    """Images, labels and names of a folder with `images/` and `labels/`, sorted by name; InputError where a file has no
    partner or cannot be read, or labels mark by different colours."""
    files = paired(path, named_images)
    images, labels = zip(*files.values())
    marks: dict[int, Path] = {}
    return [read_image(image) for image in images], [read_label(label, marks=marks) for label in labels], [*files]


def paired(path: AnyPath, find: Callable[[Path], Mapping[str, Path]]) -> dict[str, tuple[Path, Path]]:
    """Image and label by name, sorted by it, of a folder with `images/` and `labels/`, in which `find` finds files by
    name; InputError where one of the two is missing or a file has no partner."""
    path = path_of(path)
    for part in (IMAGES, LABELS):
        if not (path / part).is_dir():
            raise InputError(f"{path} has no folder {part}/; a support folder holds images/ and labels/")
    images, labels = find(path / IMAGES), find(path / LABELS)
    lonely = [_lonely("image", "a label", set(images) - set(labels)),
              _lonely("label", "an image", set(labels) - set(images))]
    if any(lonely):
        raise InputError(f"{path}: {' and '.join(filter(None, lonely))}; the two of a pair have one name")
    return {name: (images[name], labels[name]) for name in sorted(images)}


def _lonely(kind: str, partner: str, names: set[str]) -> str:
    if not names:
        return ""
    which = min(names) if len(names) == 1 else f"first {min(names)}"
    return f"{len(names)} {kind}{'s' * (len(names) != 1)} without {partner} of the same name, {which}"
