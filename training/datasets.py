"""Data sets as YAML files say: where their tasks lie, under which licence, and what in a name is the subject."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from universeg_rt.errors import InputError
from universeg_rt.training.config import from_dict
from universeg_rt.training.tasks import Task, load_npz


@dataclass(frozen=True)
class TaskEntry:
    """One task of a data set: its name and, for npz, its file under the data folder."""

    name: str
    file: str


@dataclass(frozen=True)
class DataSet:
    """One data set: `licence` as its source states it; `subject` is a regular expression whose group is the subject."""

    name: str
    licence: str
    tasks: tuple[TaskEntry, ...]
    subject: str | None = None
    format: str = "npz"


def load_dataset(path: str | os.PathLike, root: str | os.PathLike) -> list[Task]:
    """All tasks that a data-set file names, read from the data folder `root`."""
    import yaml

    path = Path(path)
    try:
        values = yaml.safe_load(path.read_text())
    except OSError as error:
        raise InputError(f"cannot read the data set {path}: {error.strerror}") from None
    except yaml.YAMLError as error:
        raise InputError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    dataset = from_dict(DataSet, values, str(path))
    return [load_npz(Path(root) / entry.file, entry.name, dataset.subject, dataset.name) for entry in dataset.tasks]
