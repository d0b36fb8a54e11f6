"""Predictor: from images of any size to masks, by a network on its grid; what Task and FrozenTask share."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from .answers.absence import UNKNOWN_NOTE, Looks, absent_note, check_absent_below, check_places
from .answers.thresholds import THRESHOLD, check_threshold
from .errors import BlankError, InputError, NoiseError
from .imaging.normalisation import Normalisation, Range, check_not_noise, check_range, normalised, share_of, span_of
from .imaging.preprocess import Placement, check_image, count_of, is_colour
from .named_types import Array, Doubles, Floats
from .notes import HOT, fingerprint, mask_note, range_note, support_note
from .prediction import ABSENT, BLANK, NOISE, Prediction, Timing


@dataclass(frozen=True)
class Ran:
    """What ran the network, as `Runner` says it: its name, precision and notes."""

    name: str
    precision: str
    notes: tuple[str, ...] = ()


class Predictor(ABC):
    """Predicts masks of images. Safe to use from several threads; `close()`, or a `with` block, gives back what it
    holds.

    grid: height and width at which the network runs, in pixels. aspect, normalise: how images get there, as
    `Segmenter.prepare` takes them. notes: what is allowed but rarely meant in the support. foreground: the share of
    pixels that the support's labels mark. entries: names of the support's images by fingerprint, as far as they are
    known. dims: whether slices of a volume that span little of it stay dim, as they do in a support of volumes
    (`SupportSet.shares`). threshold: probability from which a pixel is in the mask, where a call says none.
    """

    def __init__(self, grid: tuple[int, int], aspect: str, normalise: Normalisation, notes: tuple[str, ...],
                 foreground: float, entries: Mapping[str, str], dims: bool) -> None:
        self.grid = grid
        self.aspect = aspect
        self.normalise = normalise
        self.notes = notes
        self.foreground = foreground
        self.entries = entries
        self.dims = dims
        self.threshold = THRESHOLD

    def predict(
        self, image: Array, *, threshold: float | None = None, logits: bool = False, absent_below: float | None = None,
        volume_range: Range | None = None, place: float | None = None, keep_noise: bool = False,
    ) -> Prediction:
        """Segment one grey image (H,W) of any size and real type, or a colour one (H,W,3) or (H,W,4) of uint8 by its
        luminance.

        threshold: probability from which a pixel is in the mask, between 0 and 1 (None: `self.threshold`). logits: keep
        the members' logits too. absent_below: presence (`answers.absence.Looks.presence`, from 0 to 1) below which the
        target is taken to be absent: the mask is empty, with a note, the probability as it was; None: never. It needs
        `looks`, else a note says that absence is not judged. volume_range: of a slice the lowest and
        highest intensity of its volume, as `volumes.slicing.intensity_range` gives them: a slice that spans much less
        takes less of [0, 1] (`imaging.normalisation.share_of`), where the support is of volumes. place: of a
        slice where it lies in its volume, from 0, the first one, to 1, the last (`Slices.places`): `absent_below`
        counts it, where the support is of volumes.

        An image of one value, also within `normalise`'s range or on the grid, has an empty mask, probability 0, and a
        note; the network does not run for it. So it is with a slice that holds nothing but noise (`check_not_noise`
        there), unless keep_noise. Raises InputError where the image breaks the input contract or an option is out of
        range, RunnerError where the runner fails or the Task or its Segmenter is closed.
        """
        return self.predict_batch([image], threshold=threshold, logits=logits, absent_below=absent_below,
                                  volume_range=volume_range, places=None if place is None else [place],
                                  keep_noise=keep_noise)[0]

    def predict_batch(
        self, images: Sequence[Array] | Array, *, threshold: float | None = None, logits: bool = False,
        absent_below: float | None = None, names: Sequence[str] | None = None, volume_range: Range | None = None,
        places: Sequence[float] | None = None, keep_noise: bool = False,
    ) -> list[Prediction]:
        """Segment images (N,H,W), or a sequence of images as `predict` takes them, of any sizes; all are checked
        before any is run. names: of the images, for notes and errors. volume_range, keep_noise: as `predict`, of
        all. places: of each image, as its `place`."""
        threshold = self.threshold if threshold is None else check_threshold(threshold)
        check_absent_below(absent_below)
        placed = self.place(images, names, volume_range, keep_noise=keep_noise, places=places)
        return self.predict_placed(placed, threshold=threshold, logits=logits, absent_below=absent_below)

    def place(
        self, images: Sequence[Array] | Array, names: Sequence[str] | None = None, volume_range: Range | None = None,
        shares: Sequence[float] | None = None, keep_noise: bool = False, places: Sequence[float] | None = None,
    ) -> Placed:
        """Images, as `predict_batch` takes them, on the grid, all checked before any is placed; for `predict_placed`
        of this Predictor, or of one of the same grid, aspect, normalisation and support images. shares: as `share_of`
        gave them, where images are windows of others."""
        if isinstance(images, np.ndarray):
            if is_colour(images):
                raise InputError(
                    f"images have shape {images.shape} and type uint8, as one colour image; give image[None], or a list"
                )
            if images.ndim != 3 and not (images.ndim == 4 and len(images) and is_colour(images[0])):
                raise InputError(f"images have shape {images.shape}; expected (N,H,W), or a sequence of (H,W)")
        count = count_of(images, "images")
        if names is None:
            names = [f"image {i}" if count > 1 else "image" for i in range(count)]
        elif count_of(names, "names") != count:
            raise InputError(f"{count} images but {len(names)} names")
        checked = [check_image(image, name, blank=True) for image, name in zip(images, names)]
        volume_range, judged = check_range(volume_range), shares is None and not keep_noise
        lie = check_places(places, count)
        if shares is None:
            shares = [share_of(image, self.normalise, volume_range) if self.dims else 1.0 for image in checked]
        on_grid = np.empty((count, 1, *self.grid), np.float32)
        return Placed(on_grid, [self._place(*each, volume_range, judged)
                                for each in zip(checked, names, shares, lie, on_grid[:, 0], strict=True)])

    def predict_placed(
        self, placed: Placed, *, threshold: float | None = None, logits: bool = False,
        absent_below: float | None = None,
    ) -> list[Prediction]:
        """As `predict_batch`, of images that `place` placed."""
        threshold = self.threshold if threshold is None else check_threshold(threshold)
        absent_below = check_absent_below(absent_below)
        if not placed.queries:
            return []
        start = time.perf_counter()
        found = self._logits(placed)
        network = (time.perf_counter() - start) / max(1, sum(query.blank is None for query in placed.queries))
        return [self._finish(*each, network, threshold, logits, absent_below) for each in zip(found, placed.queries)]

    def on_grid(self, images: Sequence[Array] | Array, names: Sequence[str] | None = None) -> Floats:
        """(N,1,h,w) float32 in [0, 1]: images, as `predict_batch` takes them, as the network reads them. names: for
        errors. BlankError for an image of one value."""
        placed = self.place(images, names)
        for query in placed.queries:
            if query.blank is not None:
                raise query.blank
        return placed.on_grid

    def member_probabilities(self, image: Array) -> Floats:
        """Probabilities (K,H,W) float32 of each member of the ensemble, for studying it; raises as `predict` does."""
        placed = self.place([image])
        logits = self._logits(placed)[0]
        return np.stack([placed.queries[0].placement.back(member) for member in sigmoid(logits[:, 0])])

    def warm_up(self) -> None:
        """Run one query twice and drop the result, so that the first image finds all loaded: what a GPU captures as a
        graph, it captures when a shape comes again."""
        query = np.zeros((1, 1, *self.grid), np.float32)
        for _ in range(2):
            self._run(query)

    @abstractmethod
    def close(self) -> None:
        """Give back what it holds; what runs at this moment ends as usual, what comes later raises RunnerError."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def looks(self) -> Looks | None:
        """What tells a target's absence by an image's look, where the support shows it."""
        return None

    @property
    @abstractmethod
    def _members(self) -> int:
        """Maps that `_run` gives for a query."""

    @abstractmethod
    def _run(self, queries: Floats) -> Floats:
        """Logits (B,K,1,h,w) float32 of queries (B,1,h,w) on the grid; RunnerError after `close`."""

    @abstractmethod
    def _ran(self) -> Ran: ...

    def _place(self, image: Array, name: str, share: float, place: float | None, out: Floats,
               volume_range: Range | None, judged: bool) -> Query:
        """Write a checked image to `out`, on the grid. judged: whether it may hold nothing but noise."""
        start = time.perf_counter()
        placement = Placement.of(image.shape, self.grid, self.aspect)
        try:
            wide = normalised(image, self.normalise, name, share)
            if judged:
                check_not_noise(image, name, volume_range)
            out[:] = placement.normalised_to_grid(wide.values, self.grid, name, wide.own)
        except BlankError as error:
            out[:] = 0
            note = f"{error.short}: its mask is empty, and the network did not run for it"
            seconds = time.perf_counter() - start
            return Query(image, name, volume_range, share, place, placement, (note,), seconds, error)
        wide_range = wide.own and (volume_range is None or span_of(image) > HOT * (volume_range[1] - volume_range[0]))
        notes = [range_note(wide.values, name) if wide_range else None]
        if (entry := self.entries.get(fingerprint(out))) is not None:
            notes.append(support_note(name, entry))
        said, seconds = tuple(note for note in notes if note), time.perf_counter() - start
        return Query(image, name, volume_range, share, place, placement, said, seconds)

    def _logits(self, placed: Placed) -> Floats:
        """(N,K,1,h,w): of the network, or of probability 0 for what is blank."""
        seen = [i for i, query in enumerate(placed.queries) if query.blank is None]
        if len(seen) == len(placed.queries):
            return self._run(placed.on_grid)
        logits = np.full((len(placed.queries), self._members, 1, *self.grid), -np.inf, np.float32)
        if seen:
            logits[seen] = self._run(placed.on_grid[seen])
        return logits

    def _finish(
        self, logits: Floats, placed: Query, network: float, threshold: float, keep_logits: bool,
        absent_below: float | None = None,
    ) -> Prediction:
        """(K,1,h,w) logits of a query -> maps at the image's size."""
        start = time.perf_counter()
        members = sigmoid(logits[:, 0])
        probability = placed.placement.back(members.mean(axis=0))
        seen = placed.blank is None
        if len(members) > 1 and seen:
            spread = placed.placement.back(members.std(axis=0))
        else:
            spread = np.zeros_like(probability)
        mask = probability >= threshold
        notes = [mask_note(placed.name, float(mask.mean()), self.foreground) if seen else None]
        emptied = "" if seen else NOISE if isinstance(placed.blank, NoiseError) else BLANK
        found = None
        if absent_below is not None and seen and self.looks is not None:
            found = self.looks.presence(placed.image, self.normalise, placed.place)
            if mask.any() and found < absent_below:
                mask, emptied, notes = np.zeros_like(mask), ABSENT, [absent_note(found, absent_below)]
        elif absent_below is not None and mask.any():
            notes.append(UNKNOWN_NOTE)
        ran = self._ran()
        seconds = placed.seconds, network if seen else 0.0, time.perf_counter() - start
        timing = Timing(*seconds, ran.name, ran.precision, ran.notes)
        return Prediction(
            mask,
            probability,
            spread,
            timing,
            (*placed.notes, *(note for note in notes if note), *self.notes),
            threshold,
            logits[:, 0] if keep_logits else None,
            emptied,
            placed.share,
            found,
        )


@dataclass(frozen=True)
class Query:
    """Of a query on the grid: the image (H,W) as it came, its name, the range of the volume that it is a slice of, the
    share of [0, 1] that it takes, its place in that volume, where it lies on the grid, notes on it, the seconds that it
    took, and why there is nothing to see in it."""

    image: Array
    name: str
    volume_range: Range | None
    share: float
    place: float | None
    placement: Placement
    notes: tuple[str, ...]
    seconds: float
    blank: BlankError | None = None


@dataclass(frozen=True, eq=False)
class Placed:
    """Queries on the grid: on_grid (N,1,h,w) float32 in [0, 1], zeros for a blank one."""

    on_grid: Floats
    queries: list[Query]

    def of(self, indices: Sequence[int]) -> Placed:
        """Some of them."""
        return Placed(self.on_grid[list(indices)], [self.queries[i] for i in indices])


def sigmoid(logits: Floats) -> Doubles:
    """In float64, without overflow."""
    out: Doubles = 0.5 + 0.5 * np.tanh(0.5 * logits.astype(np.float64))
    return out
