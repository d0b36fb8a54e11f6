"""Predictor: from images of any size to masks, by a network on its grid; what Task and FrozenTask share."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from .errors import InputError
from .imaging.normalisation import Normalisation, normalised
from .imaging.preprocess import Placement, check_image, count_of, is_colour
from .named_types import Array, Doubles, Floats
from .notes import fingerprint, mask_note, range_note
from .prediction import Prediction, Timing

THRESHOLD = 0.5


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
    known.
    """

    def __init__(self, grid: tuple[int, int], aspect: str, normalise: Normalisation, notes: tuple[str, ...],
                 foreground: float, entries: Mapping[str, str]) -> None:
        self.grid = grid
        self.aspect = aspect
        self.normalise = normalise
        self.notes = notes
        self.foreground = foreground
        self._entries = entries

    def predict(self, image: Array, *, threshold: float = THRESHOLD, logits: bool = False) -> Prediction:
        """Segment one grey image (H,W) of any size and real type, or a colour one (H,W,3) or (H,W,4) of uint8 by its
        luminance.

        threshold: probability from which a pixel is in the mask, between 0 and 1. logits: keep the members' logits
        too. Raises InputError where the image breaks the input contract or an option is out of range, RunnerError
        where the runner fails or the Task or its Segmenter is closed.
        """
        return self.predict_batch([image], threshold=threshold, logits=logits)[0]

    def predict_batch(
        self, images: Sequence[Array] | Array, *, threshold: float = THRESHOLD, logits: bool = False
    ) -> list[Prediction]:
        """Segment images (N,H,W), or a sequence of images as `predict` takes them, of any sizes; all are checked
        before any is run."""
        if isinstance(threshold, bool) or not isinstance(threshold, (int, float, np.floating)) or not 0 < threshold < 1:
            raise InputError(f"threshold is {threshold!r}; give a number between 0 and 1")
        queries, placed = self._place_all(images)
        if not placed:
            return []
        start = time.perf_counter()
        found = self._run(queries)
        network = (time.perf_counter() - start) / len(placed)
        return [self._finish(*values, network, float(threshold), logits) for values in zip(found, placed)]

    def on_grid(self, images: Sequence[Array] | Array) -> Floats:
        """(N,1,h,w) float32 in [0, 1]: images, as `predict_batch` takes them, as the network reads them."""
        return self._place_all(images)[0]

    def member_probabilities(self, image: Array) -> Floats:
        """Probabilities (K,H,W) float32 of each member of the ensemble, for studying it; raises as `predict` does."""
        query = np.empty((1, 1, *self.grid), np.float32)
        placed = self._place(check_image(image), "image", query[0, 0])
        return np.stack([placed.placement.back(member) for member in sigmoid(self._run(query)[0, :, 0])])

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

    @abstractmethod
    def _run(self, queries: Floats) -> Floats:
        """Logits (B,K,1,h,w) float32 of queries (B,1,h,w) on the grid; RunnerError after `close`."""

    @abstractmethod
    def _ran(self) -> Ran: ...

    def _place_all(self, images: Sequence[Array] | Array) -> tuple[Floats, list[_Placed]]:
        """All images on the grid (N,1,h,w), all checked before any is placed."""
        if isinstance(images, np.ndarray):
            if is_colour(images):
                raise InputError(
                    f"images have shape {images.shape} and type uint8, as one colour image; give image[None], or a list"
                )
            if images.ndim != 3 and not (images.ndim == 4 and len(images) and is_colour(images[0])):
                raise InputError(f"images have shape {images.shape}; expected (N,H,W), or a sequence of (H,W)")
        count = count_of(images, "images")
        names = [f"image {i}" if count > 1 else "image" for i in range(count)]
        checked = [check_image(image, name) for image, name in zip(images, names)]
        queries = np.empty((count, 1, *self.grid), np.float32)
        return queries, [self._place(*each) for each in zip(checked, names, queries[:, 0])]

    def _place(self, image: Array, name: str, out: Floats) -> _Placed:
        """Write a checked image to `out`, on the grid."""
        start = time.perf_counter()
        placement = Placement.of(image.shape, self.grid, self.aspect)
        wide = normalised(image, self.normalise, name)
        out[:] = placement.normalised_to_grid(wide, self.grid, name)
        notes = [range_note(wide, name)]
        if (entry := self._entries.get(fingerprint(out))) is not None:
            notes.append(
                f"{name} is in the support, as entry {entry}; a score on it says nothing of images that are not"
            )
        return _Placed(placement, tuple(note for note in notes if note), time.perf_counter() - start)

    def _finish(
        self, logits: Floats, placed: _Placed, network: float, threshold: float, keep_logits: bool
    ) -> Prediction:
        """(K,1,h,w) logits on the grid -> maps at the image's size."""
        start = time.perf_counter()
        members = sigmoid(logits[:, 0])
        probability = placed.placement.back(members.mean(axis=0))
        if len(members) > 1:
            spread = placed.placement.back(members.std(axis=0))
        else:
            spread = np.zeros_like(probability)
        mask = probability >= threshold
        note = mask_note(float(mask.mean()), self.foreground)
        ran = self._ran()
        timing = Timing(placed.seconds, network, time.perf_counter() - start, ran.name, ran.precision, ran.notes)
        return Prediction(
            mask,
            probability,
            spread,
            timing,
            (*placed.notes, *([note] if note else []), *self.notes),
            threshold,
            logits[:, 0] if keep_logits else None,
        )


@dataclass(frozen=True)
class _Placed:
    """Of a query on the grid: where it lies there, notes on it, and the seconds that it took."""

    placement: Placement
    notes: tuple[str, ...]
    seconds: float


def sigmoid(logits: Floats) -> Doubles:
    """In float64, without overflow."""
    out: Doubles = 0.5 + 0.5 * np.tanh(0.5 * logits.astype(np.float64))
    return out
