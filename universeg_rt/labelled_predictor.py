"""Predictions of several labels at once: an answer for each, and which label each pixel has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, Self, get_args

import numpy as np

from .answers.thresholds import check_threshold
from .errors import InputError, shown
from .named_types import Array, Bools
from .prediction import Prediction, Timing
from .predictor import Predictor

if TYPE_CHECKING:
    from .imaging.normalisation import Range
    from .named_types import Floats

Overlap = Literal["argmax", "independent"]
ARGMAX: Overlap = "argmax"
OTHER_LABEL = "the mask is empty: wherever this label reaches its threshold, another is more probable"


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


class LabelledPredictor:
    """A Predictor for each label that answers for it: tasks, frozen ones or refined ones, of one grid, aspect and
    normalisation. Closes and shares threads as they do.

    answering: by the label's name. values: of the labels by name, as label maps have them. overlap: as
    `Segmenter.prepare_labels`.
    """

    def __init__(
        self, answering: Mapping[str, Predictor], values: Mapping[str, int], overlap: Overlap = ARGMAX,
        reader: Predictor | None = None,
    ) -> None:
        """reader: places images for all, where not the first does: one that knows the support, as frozen ones do not.
        InputError for an unknown rule, or where images are not read alike."""
        check_overlap(overlap)
        self.answering = dict(answering)
        self.values = dict(values)
        self.overlap: Overlap = overlap
        self._first = next(iter(self.answering.values())) if reader is None else reader
        if len({(each.grid, each.aspect, str(each.normalise), each.dims)
                for each in (self._first, *self.answering.values())}) > 1:
            raise InputError("the labels' tasks differ in grid, aspect, normalisation, or in whether slices stay dim; "
                             "prepare them alike")

    @property
    def notes(self) -> tuple[str, ...]:
        """What is allowed but rarely meant: what all labels share as it is, of one label with its name."""
        notes = {name: each.notes for name, each in self.answering.items()}
        shared = [note for note in next(iter(notes.values())) if all(note in own for own in notes.values())]
        own = [f"{name}: {note}" for name, each in notes.items() for note in each if note not in shared]
        return (*shared, *own)

    def predict(
        self, image: Array, *, threshold: float | Mapping[str, float] | None = None, logits: bool = False,
        absent_below: float | None = None, volume_range: Range | None = None, place: float | None = None,
        keep_noise: bool = False,
    ) -> LabelledPrediction:
        """Segment one image, as `Task.predict` takes it. threshold: of all labels, or by name of some; None: each
        task's own. absent_below and what follows: as `Task.predict` takes them, of each label alone."""
        return self.predict_batch([image], threshold=threshold, logits=logits, absent_below=absent_below,
                                  volume_range=volume_range, places=None if place is None else [place],
                                  keep_noise=keep_noise)[0]

    def predict_batch(
        self, images: Sequence[Array] | Array, *, threshold: float | Mapping[str, float] | None = None,
        logits: bool = False, absent_below: float | None = None, names: Sequence[str] | None = None,
        volume_range: Range | None = None, places: Sequence[float] | None = None, keep_noise: bool = False,
    ) -> list[LabelledPrediction]:
        """Segment images, as `Task.predict_batch` takes them; each is checked, normalised and placed once."""
        thresholds = self._thresholds(threshold)
        placed = self._first.place(images, names, volume_range, keep_noise=keep_noise, places=places)
        return self.merged({
            name: task.predict_placed(placed, threshold=thresholds[name], logits=logits, absent_below=absent_below)
            for name, task in self.answering.items()
        })

    def merged(self, found: Mapping[str, Sequence[Prediction]]) -> list[LabelledPrediction]:
        """Predictions of the same images, by each label's name, as one an image, by the rule of overlap."""
        return [self._merged(dict(zip(found, each))) for each in zip(*found.values(), strict=True)]

    def warm_up(self) -> None:
        """As `Task.warm_up`, of every label."""
        for task in self.answering.values():
            task.warm_up()

    def close(self) -> None:
        """Give back what was prepared for every label; the Segmenter stays open."""
        for task in self.answering.values():
            task.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(self.answering)}, {self.overlap}, {self._first!r})"

    def _thresholds(self, threshold: float | Mapping[str, float] | None) -> dict[str, float]:
        own = {name: task.threshold for name, task in self.answering.items()}
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
        labels = label_map(predictions, self.values)
        if self.overlap == ARGMAX:
            predictions = {name: _without_others(prediction, labels == self.values[name])
                           for name, prediction in predictions.items()}
        return LabelledPrediction(labels, predictions, self.values)


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
