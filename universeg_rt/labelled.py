"""Supports with several labels: whose label maps hold several values, and the task that predicts all of them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType

import numpy as np

from .answers.absence import Looks
from .entries import Shares, add_to_hash, add_volumes_to_hash, check_shares, checked_entries
from .errors import InputError, shown
from .imaging.pairs import read_pairs
from .imaging.preprocess import check_label_map
from .labelled_predictor import LabelledPredictor, Overlap
from .named_types import AnyPath, Array
from .predictor import Predictor
from .refining import RefinedTask
from .storage.reading import is_folder, path_of
from .support import SupportSet
from .support_file import Entries, Label, read_entries, unnamed
from .task import Task


@dataclass(frozen=True, eq=False)
class LabelledSupport:
    """N images (H,W), as given, and their label maps (H,W) uint16, 0 for the background; sizes may differ.

    names: of the entries. label_names: of the labels by value, in the order of values; every value that is in the maps
    has one. shares: as SupportSet's. looks: as SupportSet's, by value; empty where no volumes were seen. Make one with
    `from_arrays`, `from_folder` or `from_npz`; each raises InputError as those of SupportSet.
    """

    images: tuple[Array, ...]
    labels: tuple[Array, ...]
    names: tuple[str, ...]
    label_names: dict[int, str]
    shares: tuple[float, ...] | None = None
    looks: Mapping[int, Looks] = field(default_factory=dict)

    @classmethod
    def from_arrays(
        cls, images: Array | Sequence[Array], labels: Array | Sequence[Array], names: Sequence[str] | None = None,
        shares: Shares | None = None, *, label_names: Mapping[int, str] | None = None,
        looks: Mapping[int, Looks] = MappingProxyType({}),
    ) -> LabelledSupport:
        """images, names, shares: as `SupportSet.from_arrays`. labels: arrays (N,H,W) or sequences of (H,W) of
        integers from 0 to 65535. label_names: by value, for as many as are known; others are named `label 3`."""
        checked = checked_entries(images, labels, names, check_label_map)
        values = sorted({int(value) for label in checked[1] for value in np.unique(label)} - {0})
        given = {} if label_names is None else {int(value): str(name) for value, name in label_names.items()}
        found = {value: given.get(value, unnamed(value)) for value in values}
        if len(set(found.values())) < len(found):
            raise InputError(f"two labels have the same name ({shown(found)}); give each value a name of its own")
        known = {value: looks[value] for value in found if value in looks}
        return cls(*checked, found, check_shares(shares, checked[2]), known)

    @classmethod
    def from_folder(cls, path: AnyPath, *, label_names: Mapping[int, str] | None = None) -> LabelledSupport:
        """A folder as `SupportSet.from_folder` reads it, whose labels hold several values; a palette's by index."""
        images, labels, names = read_pairs(path)
        return cls.from_arrays(images, labels, names, label_names=label_names)

    @classmethod
    def from_npz(cls, path: AnyPath, *, label_names: Mapping[int, str] | None = None) -> LabelledSupport:
        """An .npz as `SupportSet.from_npz` reads it, whose labels hold several values; or one that `SupportSet.save`
        wrote of a label that it knew, which has its value and its name here too."""
        return cls.of_file(read_entries(path), label_names or {})

    @classmethod
    def of_file(cls, found: Entries, label_names: Mapping[int, str]) -> LabelledSupport:
        """Of what an .npz holds; a label that the file knows has its name there, unless label_names gives another."""
        label = found.label
        known = {} if label is None else {label.value: label.name}
        looks = {} if label is None or found.looks is None else {label.value: found.looks}
        return cls.from_arrays(found.images, found.maps(), found.names, found.shares,
                               label_names={**known, **label_names}, looks=looks)

    @classmethod
    def load(cls, path: AnyPath, *, label_names: Mapping[int, str] | None = None) -> LabelledSupport:
        """`from_folder` for a folder, `from_npz` for a file."""
        path = path_of(path)
        read = cls.from_folder if is_folder(path) else cls.from_npz
        return read(path, label_names=label_names)

    @property
    def values(self) -> tuple[int, ...]:
        """The labels' values, sorted."""
        return tuple(self.label_names)

    def value_of(self, label: str | int) -> int:
        """Of a label by its name, or by its value, also as text; InputError where the support has none such."""
        for value, name in self.label_names.items():
            if label == name or not isinstance(label, bool) and label in (value, str(value)):
                return value
        known = ", ".join(f"{value} ({name})" for value, name in self.label_names.items())
        raise InputError(f"the support has no label {shown(label)}; it has {known}")

    def chosen(self, labels: Sequence[str | int] | None) -> tuple[int, ...]:
        """Values of labels by name or value, in that order; all for None. InputError for none, or one given twice."""
        if labels is None:
            return self.values
        if isinstance(labels, (str, bytes)) or not isinstance(labels, Sequence):
            raise InputError(f"labels is {shown(labels)}; give a list of names or values")
        values = tuple(self.value_of(label) for label in labels)
        if not values or len(set(values)) < len(values):
            raise InputError(f"labels is {shown(labels)}; give each label once, at least one")
        return values

    def of(self, label: str | int) -> SupportSet:
        """The support of one label, by name or value, which it knows; it shares the images."""
        value = self.value_of(label)
        marked = tuple(np.asarray(each == value) for each in self.labels)
        for each in marked:
            each.flags.writeable = False
        return SupportSet(self.images, marked, self.names, self.shares, Label(value, self.label_names[value]),
                          self.looks.get(value))

    @cached_property
    def sha256(self) -> str:
        """sha256 of all images, label maps and shares in order, and of looks; names and files do not count."""
        digest = hashlib.sha256()
        for arrays in zip(self.images, self.labels):
            for array in arrays:
                add_to_hash(digest, array)
        add_volumes_to_hash(digest, self.shares, self.looks.values())
        return digest.hexdigest()

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        return f"LabelledSupport({len(self)} entr{'y' if len(self) == 1 else 'ies'}, {shown(self.label_names)})"

    def __reduce__(self) -> tuple[object, ...]:
        return _restored, (self.images, self.labels, self.names, self.label_names, self.shares, dict(self.looks))


def _restored(
    images: tuple[Array, ...], labels: tuple[Array, ...], names: tuple[str, ...], label_names: dict[int, str],
    shares: tuple[float, ...] | None, looks: Mapping[int, Looks],
) -> LabelledSupport:
    """A support from a pickle; arrays come out of it writeable."""
    for array in (*images, *labels):
        array.flags.writeable = False
    return LabelledSupport(images, labels, names, label_names, shares, looks)


class LabelledTask(LabelledPredictor):
    """A task for each label of a support, ready for queries; made by `Segmenter.prepare_labels`. Closes, pickles and
    shares threads as a Task does.

    tasks: by the label's name. overlap: as `Segmenter.prepare_labels`. refined: by name what answers in place of the
    tasks, where `refine` made this.
    """

    def __init__(
        self, support: LabelledSupport, tasks: dict[str, Task], overlap: Overlap,
        refined: dict[str, RefinedTask] | None = None,
    ) -> None:
        answering: Mapping[str, Predictor] = tasks if refined is None else refined
        values = {name: support.value_of(name) for name in tasks}
        super().__init__(answering, values, overlap, reader=next(iter(tasks.values())))
        self.support = support
        self.tasks = tasks
        self.refined = refined

    def refine(self, how: str = "auto", *, seed: int = 0) -> LabelledTask:
        """A task that looks closer, chosen for each label alone as `Task.refine` says; `refined` has the choices. It
        runs on the tasks of this one."""
        refined = {name: task.refine(how, seed=seed) for name, task in self.tasks.items()}
        return LabelledTask(self.support, self.tasks, self.overlap, refined)

    def __repr__(self) -> str:
        return super().__repr__()[:-1] + (")" if self.refined is None else ", refined)")

    def __reduce__(self) -> tuple[object, ...]:
        return LabelledTask, (self.support, self.tasks, self.overlap, self.refined)
