"""Refining a task: where to look and from which probability to mark, chosen by leaving out entries of the support."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol, get_args

import numpy as np

from . import left_out
from .answers.absence import Looks
from .answers.thresholds import LEAST_GAIN, THRESHOLD, Gain, best, by_the_others, dice_at
from .ensemble import Ensemble
from .errors import InputError, shown
from .imaging.metrics import dice
from .imaging.normalisation import MINMAX, Normalisation, Range
from .imaging.windows import MOST, STRAY, Box, box_around, check_region, cut, inside, put_back, scale_of, window_around
from .named_types import Array, Bools, Doubles, Floats
from .prediction import Prediction
from .predictor import Placed, Predictor, Query, Ran
from .support import SupportSet

Kind = Literal["off", "window", "threshold"]
How = Literal["off", "window", "threshold", "auto"]
OFF: Kind = "off"
WINDOW: Kind = "window"
THRESHOLD_OF: Kind = "threshold"


class Prepares(Protocol):
    """What is asked of a Segmenter here."""

    def prepare(self, support: SupportSet, ensemble: Ensemble | None = None, *, aspect: str = "stretch",
                normalise: Normalisation = MINMAX) -> Predictor: ...


@dataclass(frozen=True)
class Choice:
    """What was taken and why. kind: `off`, `window` or `threshold`. threshold: from which a pixel is marked. dice: mean
    Dice on the entries left out of the support, by kind, as far as it was measured; that of `threshold` for each entry
    with what the others chose. entries: how many were left out. reason: in a sentence."""

    kind: Kind
    threshold: float
    dice: dict[str, float]
    entries: int
    reason: str

    @property
    def gain(self) -> float:
        """Dice expected above `off`; 0 where it was not measured."""
        return self.dice[self.kind] - self.dice[OFF] if self.kind in self.dice else 0.0


class RefinedTask(Predictor):
    """A task that looks closer: in a region that is given, or as `choice` says; made by `Task.refine`. `predict` and so
    on as a Task has them; it closes with its Task.

    A window is cut out of the image and answered by a support whose entries are cut around their own labels; outside
    of it nothing is marked. Its logits are those of the window. `absent_below` judges the first answer, of the whole
    image.
    """

    def __init__(self, task: Predictor, zoomed: Predictor, choice: Choice) -> None:
        super().__init__(task.grid, task.aspect, task.normalise, task.notes, task.foreground, {}, task.dims)
        self.task = task
        self.zoomed = zoomed
        self.choice = choice
        self.threshold = choice.threshold

    @property
    def looks(self) -> Looks | None:
        return self.task.looks

    def place(
        self, images: Sequence[Array] | Array, names: Sequence[str] | None = None, volume_range: Range | None = None,
        shares: Sequence[float] | None = None, keep_noise: bool = False, places: Sequence[float] | None = None,
    ) -> Placed:
        return self.task.place(images, names, volume_range, shares, keep_noise, places)

    def predict_placed(
        self, placed: Placed, *, threshold: float | None = None, logits: bool = False,
        absent_below: float | None = None,
    ) -> list[Prediction]:
        threshold = self.threshold if threshold is None else threshold
        coarse = self.task.predict_placed(placed, threshold=threshold, logits=logits, absent_below=absent_below)
        return self.look_again(placed, coarse, threshold, logits) if self.choice.kind == WINDOW else coarse

    def look_again(
        self, placed: Placed, coarse: Sequence[Prediction], threshold: float, logits: bool = False
    ) -> list[Prediction]:
        """Second answers in windows around the first, where windows show less than the image."""
        boxes = [None if found.emptied else _window_of(found.probability, found.threshold) for found in coarse]
        return self._in_boxes(placed.queries, boxes, coarse, threshold, logits)

    def predict_in(
        self, images: Sequence[Array] | Array, regions: Sequence[Box | Bools | None], *,
        threshold: float | None = None, logits: bool = False, names: Sequence[str] | None = None,
        volume_range: Range | None = None, keep_noise: bool = False,
    ) -> list[Prediction]:
        """Segment images within regions that the user knows: boxes (top, left, bottom, right) in pixels, or masks (H,W)
        such as that of another label, which are looked around with a margin. For None, or an empty mask, an image is
        answered as `predict` does.

        The support's windows are around each label with half its size on either side: give boxes alike. names,
        volume_range, keep_noise: as `predict_batch` takes them. Raises as that, and InputError for a wrong region.
        """
        placed = self.place(images, names, volume_range, keep_noise=keep_noise)
        if len(regions) != len(placed.queries):
            raise InputError(f"{len(placed.queries)} images but {len(regions)} regions; give each its own, or None")
        one = all(region is regions[0] for region in regions)
        boxes = [None if region is None else check_region(region, query.image.shape, "region" if one else f"region {i}")
                 for i, (region, query) in enumerate(zip(regions, placed.queries))]
        boxes = [box if query.blank is None else None for box, query in zip(boxes, placed.queries)]
        free = [i for i, box in enumerate(boxes) if box is None]
        answers = self.predict_placed(placed.of(free), threshold=threshold, logits=logits) if free else []
        threshold = self.threshold if threshold is None else threshold
        found: list[Prediction | None] = [None] * len(boxes)
        for i, answer in zip(free, answers):
            found[i] = answer
        return self._in_boxes(placed.queries, boxes, found, threshold, logits)

    def predict_in_order(
        self, images: Sequence[Array] | Array, first: Box | Bools | None = None, *,
        threshold: float | None = None, logits: bool = False, names: Sequence[str] | None = None,
        volume_range: Range | None = None, keep_noise: bool = False,
    ) -> list[Prediction]:
        """Segment neighbouring slices in order, each within a region around the mask of the one before, the first
        within `first`; where that mask is empty a slice is looked at whole."""
        region: Box | Bools | None = first
        out: list[Prediction] = []
        for i, image in enumerate(images):
            out += self.predict_in([image], [region], threshold=threshold, logits=logits,
                                   names=None if names is None else [names[i]], volume_range=volume_range,
                                   keep_noise=keep_noise)
            region = out[-1].mask
        return out

    def close(self) -> None:
        self.task.close()
        self.zoomed.close()

    def __repr__(self) -> str:
        return f"RefinedTask({self.task!r}, {self.choice.kind}, threshold {self.threshold:g})"

    def __reduce__(self) -> tuple[object, ...]:
        return RefinedTask, (self.task, self.zoomed, self.choice)

    def _in_boxes(
        self, queries: Sequence[Query], boxes: Sequence[Box | None], found: Sequence[Prediction | None],
        threshold: float, logits: bool,
    ) -> list[Prediction]:
        """Answers within boxes; where there is none, what was found before."""
        seen = [i for i, box in enumerate(boxes) if box is not None]
        cuts = [cut(queries[i].image, box) for i, box in enumerate(boxes) if box is not None]
        # A window takes as much of [0, 1] as its image, as the support's windows do.
        names, shares = [queries[i].name for i in seen], [queries[i].share for i in seen]
        placed = self.zoomed.place(cuts, names, queries[0].volume_range if queries else None, shares)
        answers = self.zoomed.predict_placed(placed, threshold=threshold, logits=logits)
        out = list(found)
        for i, answer in zip(seen, answers):
            box = boxes[i]
            assert box is not None
            out[i] = _in_place(answer, box, queries[i], found[i])
        return [each for each in out if each is not None]

    def _run(self, queries: Floats) -> Floats:
        return self.task._run(queries)

    @property
    def _members(self) -> int:
        return self.task._members

    def _ran(self) -> Ran:
        return self.task._ran()


def refine(
    task: Predictor, segmenter: Prepares, support: SupportSet, ensemble: Ensemble, how: str, seed: int
) -> RefinedTask:
    """As `Task.refine`."""
    if how not in get_args(How):
        raise InputError(f"how is {shown(how)}; accepted: {', '.join(get_args(How))}")
    zoomed = segmenter.prepare(around_labels(support), ensemble, aspect=task.aspect, normalise=task.normalise)
    if how in (OFF, WINDOW):
        reason = "asked for" if how == WINDOW else "no second look: windows are where they are given"
        return RefinedTask(task, zoomed, Choice(WINDOW if how == WINDOW else OFF, THRESHOLD, {}, 0, reason))
    return RefinedTask(task, zoomed, decide(measure(task, segmenter, support, ensemble, seed), how))


def around_labels(support: SupportSet) -> SupportSet:
    """Each entry cut to a window around its own label, with a margin; entries without the label, and those whose window
    shows one value alone, as they are."""
    images, labels = list(support.images), list(support.labels)
    for i, (image, label) in enumerate(zip(support.images, support.labels)):
        box = box_around(label)
        if box is None:
            continue
        window = window_around(box, label.shape, scale_of(box, label.shape))
        part = cut(image, window)
        if part.min() < part.max():
            images[i], labels[i] = part, cut(label, window)
    return replace(support, images=tuple(images), labels=tuple(labels))


def _window_of(probability: Floats, threshold: float) -> Box | None:
    """Where to look again; None where that would show hardly more."""
    box = box_around(inside(probability, threshold), STRAY)
    if box is None or (scale := scale_of(box, probability.shape)) > MOST:
        return None
    return window_around(box, probability.shape, scale)


def _in_place(answer: Prediction, box: Box, query: Query, before: Prediction | None) -> Prediction:
    """The answer of a window in the query's place, with the notes on the whole image too."""
    maps = answer.mask, answer.probability, answer.spread
    mask, probability, spread = (put_back(each, box, query.image.shape) for each in maps)
    timing = answer.timing if before is None else answer.timing.after(before.timing)
    notes = tuple(dict.fromkeys((*query.notes, *answer.notes)))
    return replace(answer, mask=mask, probability=probability, spread=spread, timing=timing, notes=notes)


# Choosing -------------------------------------------------------------------------------------------------------------

@dataclass(frozen=True, eq=False)
class Left:
    """Dice on entries left out of the support (N,): as they are, in a window, and (N,T) at each of THRESHOLDS."""

    off: Doubles
    window: Doubles
    thresholds: Doubles


def measure(task: Predictor, segmenter: Prepares, support: SupportSet, ensemble: Ensemble, seed: int) -> Left:
    """Run up to eight entries by supports without them; InputError where there are too few different ones."""
    images = support.on_grid(task.grid, task.aspect, task.normalise)[:, 0]
    if (differing := left_out.differing(images)) < left_out.FEWEST:
        raise InputError(
            f"the support has {differing} different image{'s' * (differing != 1)}, and choosing leaves some out: give "
            f"at least {left_out.FEWEST}, or take 'off' or 'window'")
    off, window, thresholds = [], [], []
    for members, gone in left_out.groups(images, seed):
        kept = [i for i in range(len(support)) if i not in gone]
        if not any(support.labels[i].any() for i in kept):
            continue
        rest = support.subset(kept)
        with _windowed(task, segmenter, rest, ensemble) as refined:
            shares = None if support.shares is None else [support.shares[i] for i in members]
            placed = refined.place([support.images[i] for i in members], shares=shares)
            coarse = refined.task.predict_placed(placed)
            again = refined.look_again(placed, coarse, THRESHOLD)
        for i, first, second in zip(members, coarse, again):
            truth = support.labels[i]
            off.append(dice(first.mask, truth))
            window.append(dice(second.mask, truth))
            thresholds.append(dice_at(first.probability, truth))
    if len(off) < 2:
        raise InputError("too few entries mark anything for some to be left out; take 'off' or 'window'")
    return Left(np.array(off), np.array(window), np.array(thresholds))


def decide(left: Left, how: str) -> Choice:
    """What `how` takes by Dice on the entries left out."""
    count, threshold = len(left.off), best(left.thresholds)
    values: dict[str, Doubles] = {OFF: left.off, WINDOW: left.window, THRESHOLD_OF: by_the_others(left.thresholds)}
    found = {kind: float(each.mean()) for kind, each in values.items()}
    if how == THRESHOLD_OF:
        return Choice(THRESHOLD_OF, threshold, found, count, "asked for")
    kind: Kind = WINDOW if found[WINDOW] >= found[THRESHOLD_OF] else THRESHOLD_OF
    gain = Gain.of(values[kind], left.off)
    if gain.pays:
        reason = f"{kind} gains {gain.mean:.3f} Dice on {count} entries left out (95 %: ± {gain.half_width:.3f})"
        return Choice(kind, threshold if kind == THRESHOLD_OF else THRESHOLD, found, count, reason)
    reason = (f"the best of the others, {kind}, changes Dice by {gain.mean:+.3f} on {count} entries left out (95 %: "
              f"± {gain.half_width:.3f}); it is taken from {LEAST_GAIN:+g} on, where the interval is above 0")
    return Choice(OFF, THRESHOLD, found, count, reason)


def _windowed(task: Predictor, segmenter: Prepares, rest: SupportSet, ensemble: Ensemble) -> RefinedTask:
    """A task of the rest of a support, with windows."""
    size = ensemble.support_size
    if size is not None and size > len(rest) and not ensemble.replacement:
        ensemble = replace(ensemble, support_size=len(rest))
    coarse, zoomed = (segmenter.prepare(each, ensemble, aspect=task.aspect, normalise=task.normalise)
                      for each in (rest, around_labels(rest)))
    return RefinedTask(coarse, zoomed, Choice(WINDOW, THRESHOLD, {}, 0, ""))
