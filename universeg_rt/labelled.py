"""Several labels at once: a support whose label maps hold several values, and the task that predicts all of them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Literal, Self, get_args

import numpy as np

from .errors import InputError, shown
from .imaging.pairs import read_pairs
from .imaging.preprocess import check_label_map
from .named_types import AnyPath, Array, Bools
from .prediction import Prediction, Timing
from .predictor import Predictor, check_threshold
from .refining import RefinedTask
from .storage.arrays import read_npz
from .storage.reading import is_folder, path_of
from .support import SupportSet, add_to_hash, checked_entries, texts_of
from .task import Task

if TYPE_CHECKING:
    from .named_types import Floats

Overlap = Literal["argmax", "independent"]
ARGMAX: Overlap = "argmax"
OTHER_LABEL = "the mask is empty: wherever this label reaches its threshold, another is more probable"


@dataclass(frozen=True, eq=False)
class LabelledSupport:
    """N images (H,W), as given, and their label maps (H,W) uint16, 0 for the background; sizes may differ.

    names: of the entries. label_names: of the labels by value, in the order of values; every value that is in the maps
    has one. Make one with `from_arrays`, `from_folder` or `from_npz`; each raises InputError as those of SupportSet.
    """

    images: tuple[Array, ...]
    labels: tuple[Array, ...]
    names: tuple[str, ...]
    label_names: dict[int, str]

    @classmethod
    def from_arrays(
        cls, images: Array | Sequence[Array], labels: Array | Sequence[Array], names: Sequence[str] | None = None,
        *, label_names: Mapping[int, str] | None = None,
    ) -> LabelledSupport:
        """images, names: as `SupportSet.from_arrays`. labels: arrays (N,H,W) or sequences of (H,W) of integers from 0
        to 65535. label_names: by value, for as many as are known; others are named `label 3`."""
        checked = checked_entries(images, labels, names, check_label_map)
        values = sorted({int(value) for label in checked[1] for value in np.unique(label)} - {0})
        given = {} if label_names is None else {int(value): str(name) for value, name in label_names.items()}
        found = {value: given.get(value, f"label {value}") for value in values}
        if len(set(found.values())) < len(found):
            raise InputError(f"two labels have the same name ({shown(found)}); give each value a name of its own")
        return cls(*checked, found)

    @classmethod
    def from_folder(cls, path: AnyPath, *, label_names: Mapping[int, str] | None = None) -> LabelledSupport:
        """A folder as `SupportSet.from_folder` reads it, whose labels hold several values; a palette's by index."""
        images, labels, names = read_pairs(path)
        return cls.from_arrays(images, labels, names, label_names=label_names)

    @classmethod
    def from_npz(cls, path: AnyPath, *, label_names: Mapping[int, str] | None = None) -> LabelledSupport:
        """An .npz with `images` and `labels` (N,H,W), and `names` of the entries if it has them; never unpickles."""
        path = path_of(path)
        data = read_npz(path)
        if "images" not in data or "labels" not in data:
            raise InputError(f"{path} holds {', '.join(data) or 'nothing'}; expected the arrays images and labels")
        return cls.from_arrays(data["images"], data["labels"], texts_of(data, "names", path), label_names=label_names)

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
        """The support of one label, by name or value; it shares the images."""
        value = self.value_of(label)
        marked = tuple(np.asarray(each == value) for each in self.labels)
        for each in marked:
            each.flags.writeable = False
        return SupportSet(self.images, marked, self.names)

    @cached_property
    def sha256(self) -> str:
        """sha256 of all images and label maps in order; names and files do not count."""
        digest = hashlib.sha256()
        for arrays in zip(self.images, self.labels):
            for array in arrays:
                add_to_hash(digest, array)
        return digest.hexdigest()

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        return f"LabelledSupport({len(self)} entr{'y' if len(self) == 1 else 'ies'}, {shown(self.label_names)})"

    def __reduce__(self) -> tuple[object, ...]:
        return _restored, (self.images, self.labels, self.names, self.label_names)


def _restored(
    images: tuple[Array, ...], labels: tuple[Array, ...], names: tuple[str, ...], label_names: dict[int, str]
) -> LabelledSupport:
    """A support from a pickle; arrays come out of it writeable."""
    for array in (*images, *labels):
        array.flags.writeable = False
    return LabelledSupport(images, labels, names, label_names)


@dataclass(frozen=True, eq=False)
class LabelledPrediction:
    """Several labels of one image. labels: (H,W) uint8, or uint16 where a value needs it, 0 for the background: each
    pixel's label of the highest probability among those whose mask it is in. predictions: by the label's name; with the
    overlap `argmax` each mask is where `labels` has its value, with `independent` masks may overlap. values: by name.
    """

    labels: Array
    predictions: dict[str, Prediction]
    values: dict[str, int]

    @property
    def masks(self) -> dict[str, Bools]:
        """(H,W) bool by name."""
        return {name: prediction.mask for name, prediction in self.predictions.items()}

    @property
    def timing(self) -> Timing:
        """Of all labels: the image was placed once, the network ran once a label."""
        all_of_them = [prediction.timing for prediction in self.predictions.values()]
        return replace(all_of_them[0], network=sum(timing.network for timing in all_of_them),
                       postprocess=sum(timing.postprocess for timing in all_of_them))

    def __repr__(self) -> str:
        height, width = self.labels.shape
        shares = ", ".join(f"{name} {mask.mean():.1%}" for name, mask in self.masks.items())
        return f"LabelledPrediction({height}x{width}, {shares}, {self.timing.total:.3f} s)"


class LabelledTask:
    """A task for each label of a support, ready for queries; made by `Segmenter.prepare_labels`. Closes, pickles and
    shares threads as a Task does.

    tasks: by the label's name. overlap: as `Segmenter.prepare_labels`. refined: by name what answers in place of the
    tasks, where `refine` made this.
    """

    def __init__(
        self, support: LabelledSupport, tasks: dict[str, Task], overlap: Overlap,
        refined: dict[str, RefinedTask] | None = None,
    ) -> None:
        self.support = support
        self.tasks = tasks
        self.overlap: Overlap = overlap
        self.refined = refined
        self._answering: Mapping[str, Predictor] = tasks if refined is None else refined
        self._first = next(iter(tasks.values()))

    def refine(self, how: str = "auto", *, seed: int = 0) -> LabelledTask:
        """A task that looks closer, chosen for each label alone as `Task.refine` says; `refined` has the choices. It
        runs on the tasks of this one."""
        refined = {name: task.refine(how, seed=seed) for name, task in self.tasks.items()}
        return LabelledTask(self.support, self.tasks, self.overlap, refined)

    @property
    def values(self) -> dict[str, int]:
        """Of the labels by name."""
        return {name: self.support.value_of(name) for name in self.tasks}

    @property
    def notes(self) -> tuple[str, ...]:
        """What is allowed but rarely meant: what all labels share as it is, of one label with its name."""
        shared = [note for note in self._first.notes if all(note in task.notes for task in self.tasks.values())]
        own = [f"{name}: {note}" for name, task in self.tasks.items() for note in task.notes if note not in shared]
        return (*shared, *own)

    def predict(
        self, image: Array, *, threshold: float | Mapping[str, float] | None = None, logits: bool = False,
        absent_below: float | None = None,
    ) -> LabelledPrediction:
        """Segment one image, as `Task.predict` takes it. threshold: of all labels, or by name of some;
        None: each task's own. absent_below: as `Task.predict` takes it, of each label alone."""
        return self.predict_batch([image], threshold=threshold, logits=logits, absent_below=absent_below)[0]

    def predict_batch(
        self, images: Sequence[Array] | Array, *, threshold: float | Mapping[str, float] | None = None,
        logits: bool = False, absent_below: float | None = None,
    ) -> list[LabelledPrediction]:
        """Segment images, as `Task.predict_batch` takes them; each is checked, normalised and placed once."""
        thresholds = self._thresholds(threshold)
        placed = self._first.place(images)
        found = {
            name: task.predict_placed(placed, threshold=thresholds[name], logits=logits, absent_below=absent_below)
            for name, task in self._answering.items()
        }
        return [self._merged(dict(zip(found, each))) for each in zip(*found.values())]

    def warm_up(self) -> None:
        """As `Task.warm_up`, of every label."""
        for task in self._answering.values():
            task.warm_up()

    def close(self) -> None:
        """Give back what was prepared for every label; the Segmenter stays open."""
        for task in self._answering.values():
            task.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        refined = "" if self.refined is None else ", refined"
        return f"LabelledTask({', '.join(self.tasks)}, {self.overlap}{refined}, {self._first!r})"

    def __reduce__(self) -> tuple[object, ...]:
        return LabelledTask, (self.support, self.tasks, self.overlap, self.refined)

    def _thresholds(self, threshold: float | Mapping[str, float] | None) -> dict[str, float]:
        own = {name: task.threshold for name, task in self._answering.items()}
        if threshold is None:
            return own
        if not isinstance(threshold, Mapping):
            return dict.fromkeys(own, check_threshold(threshold))
        for name in threshold:
            if name not in own:
                raise InputError(f"threshold names the label {shown(name)}; the task has {', '.join(own)}")
        return {name: check_threshold(threshold.get(name, value)) for name, value in own.items()}

    def _merged(self, predictions: dict[str, Prediction]) -> LabelledPrediction:
        """Predictions of one image as one, by the rule of overlap."""
        values = self.values
        labels = label_map(predictions, values)
        if self.overlap == ARGMAX:
            predictions = {name: _without_others(prediction, labels == values[name])
                           for name, prediction in predictions.items()}
        return LabelledPrediction(labels, predictions, values)


def label_map(predictions: Mapping[str, Prediction], values: Mapping[str, int]) -> Array:
    """(H,W) uint8 or uint16: at each pixel the value of the label of the highest probability among those whose mask it
    is in, the first of equal ones; 0 where it is in none."""
    shape = next(iter(predictions.values())).mask.shape
    out = np.zeros(shape, np.uint8 if max(values.values()) < 256 else np.uint16)
    highest: Floats = np.zeros(shape, np.float32)
    for name, prediction in predictions.items():
        taken = prediction.mask & (prediction.probability > highest)
        out[taken], highest[taken] = values[name], prediction.probability[taken]
    return out


def _without_others(prediction: Prediction, mask: Bools) -> Prediction:
    notes = prediction.notes
    if prediction.mask.any() and not mask.any():
        notes = (OTHER_LABEL, *notes)
    return replace(prediction, mask=mask, notes=notes)


def check_overlap(overlap: object) -> None:
    """InputError unless it is one of the rules."""
    if overlap not in get_args(Overlap):
        raise InputError(f"overlap is {shown(overlap)}; accepted: {', '.join(get_args(Overlap))}")
