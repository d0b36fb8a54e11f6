"""Data sets as YAML files say: where their tasks lie, under which licence, and what in a name is the subject."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from universeg_rt.errors import InputError, shown
from universeg_rt.storage.arrays import read_npz
from universeg_rt.training.settings.values import from_dict, read_yaml
from universeg_rt.training.tasks.readers import load_folder, load_nifti
from universeg_rt.training.tasks.tasks import Task, load_npz, subjects_of

FORMATS = ("npz", "folder", "nifti")


@dataclass(frozen=True)
class TaskEntry:
    """One task. npz: `file`, and `absent` for a file of images without the target. folder: the folders `images` and
    `labels`, and the mask `value` of the label."""

    name: str
    file: str = ""
    images: str = ""
    labels: str = ""
    value: int | None = None
    absent: str = ""


@dataclass(frozen=True)
class DataSet:
    """One data set: `licence` as its source states it; `subject` is a regular expression whose group is the subject.

    npz and folder list `tasks`; nifti gives `modalities` (name: path), `segmentation` (path) and `labels` (name:
    value).
    """

    name: str
    licence: str
    format: str = "npz"
    subject: str | None = None
    tasks: tuple[TaskEntry, ...] = ()
    modalities: dict[str, str] = field(default_factory=dict)
    segmentation: str = ""
    labels: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise InputError(f"data set {self.name}: format {shown(self.format)}; accepted: {', '.join(FORMATS)}")
        if self.format == "nifti" and not (self.modalities and self.segmentation and self.labels):
            raise InputError(f"data set {self.name}: nifti needs modalities, segmentation and labels")
        wanted = {"npz": ("file",), "folder": ("images", "labels")}.get(self.format, ())
        for entry in self.tasks:
            missing = [name for name in wanted if not getattr(entry, name)]
            if missing:
                raise InputError(f"data set {self.name}: task {entry.name} lacks {', '.join(missing)}")
        if wanted and not self.tasks:
            raise InputError(f"data set {self.name} lists no tasks")


def add_data_root(parser: argparse.ArgumentParser) -> None:
    """--data-root, for `load_datasets`."""
    parser.add_argument("--data-root", default=os.environ.get("UNIVERSEG_RT_DATA", ""),
                        help="folder of the data sets' files (or UNIVERSEG_RT_DATA)")


def load_datasets(paths: Sequence[str | os.PathLike], root: str | os.PathLike) -> list[Task]:
    """The tasks of several files, as `load_dataset`; InputError too where there are some and no root is given."""
    if paths and not str(root):
        raise InputError("say where the data sets' files are with --data-root or UNIVERSEG_RT_DATA")
    return [task for path in paths for task in load_dataset(path, root)]


def load_dataset(path: str | os.PathLike, root: str | os.PathLike) -> list[Task]:
    """All tasks that a data-set file names, read from the data folder `root`; InputError where anything is amiss."""
    dataset, root = read_dataset(path), Path(root)
    if dataset.format == "nifti":
        return load_nifti(root, dataset.modalities, dataset.segmentation, dataset.labels, dataset.name)
    if dataset.format == "folder":
        return [load_folder(root / e.images, root / e.labels, e.name, e.value, dataset.subject, dataset.name)
                for e in dataset.tasks]
    return [load_npz(root / e.file, e.name, dataset.subject, dataset.name) for e in dataset.tasks]


@dataclass(frozen=True)
class Absent:
    """Images (N,H,W) uint8 of a task's kind without its target, and their subjects (N,): for evaluation alone."""

    images: np.ndarray
    subjects: np.ndarray


def load_absent(path: str | os.PathLike, root: str | os.PathLike) -> dict[str, Absent]:
    """By task name what the `absent` files of a data set hold (npz: images (N,H,W) uint8, ids (N,)); InputError where
    one lacks them."""
    dataset, found = read_dataset(path), {}
    for entry in dataset.tasks:
        if not entry.absent:
            continue
        archive = read_npz(Path(root) / entry.absent)
        images, ids = (archive.get(name, np.empty(0)) for name in ("images", "ids"))
        if images.ndim != 3 or images.dtype != np.uint8 or ids.shape != images.shape[:1]:
            raise InputError(f"{entry.absent} must hold images (N,H,W) uint8 without the target, and ids (N,)")
        found[entry.name] = Absent(images, subjects_of(ids, dataset.subject))
    return found


def read_dataset(path: str | os.PathLike) -> DataSet:
    """The description alone; InputError where it cannot be read or is not one."""
    path = Path(path)
    return from_dict(DataSet, read_yaml(path, "the YAML file of a data set"), str(path))
