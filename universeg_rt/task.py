"""Task: a prepared support set that predicts masks."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from .bundle.bundle import Bundle
from .ensemble import Ensemble
from .errors import InputError, RunnerError
from .imaging.normalisation import MINMAX, Normalisation, normalised
from .imaging.preprocess import Placement, check_image, count_of, is_colour
from .named_types import Array, Doubles, Floats, Integers
from .notes import fingerprint, mask_note, range_note
from .prediction import Prediction, Timing
from .runners import Runner
from .runners.shared import PreparedSupport, SharedEntries
from .support import Drawn, SupportSet

THRESHOLD = 0.5


class Prepares(Protocol):
    """What a Task asks of the Segmenter that prepared it."""

    bundle: Bundle
    runner: Runner

    @property
    def grid(self) -> tuple[int, int]: ...

    def prepare(
        self,
        support: SupportSet,
        ensemble: Ensemble | None = None,
        *,
        aspect: str = "stretch",
        normalise: Normalisation = MINMAX,
    ) -> Task: ...

    def run(self, prepared: PreparedSupport | SharedEntries, queries: np.ndarray) -> np.ndarray: ...


class Task:
    """A prepared support set, ready for queries; made by `Segmenter.prepare`. Safe to use from several threads.

    `close()`, or a `with` block, gives back what was prepared; the Segmenter stays open. A Task pickles as its
    Segmenter, support and options, and is prepared again where it is unpickled.
    """

    def __init__(
        self,
        segmenter: Prepares,
        support: SupportSet,
        ensemble: Ensemble,
        aspect: str,
        normalise: Normalisation,
        prepared: PreparedSupport | SharedEntries,
        places: Integers,
        drawn: Drawn,
        notes: tuple[str, ...],
    ) -> None:
        """places: (K,) for each member the index of the prepared set. notes: what is allowed but rarely meant in the
        support."""
        self.segmenter = segmenter
        self.support = support
        self.ensemble = ensemble
        self.aspect = aspect
        self.normalise = normalise
        self.notes = notes
        self._prepared: PreparedSupport | SharedEntries | None = prepared
        self._places = places
        self._foreground = drawn.foreground
        self._entries = drawn.fingerprints()

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
        if isinstance(images, np.ndarray):
            if is_colour(images):
                raise InputError(
                    f"images have shape {images.shape} and type uint8, as one colour image; give image[None], or a list"
                )
            if images.ndim != 3 and not (images.ndim == 4 and len(images) and is_colour(images[0])):
                raise InputError(f"images have shape {images.shape}; expected (N,H,W), or a sequence of (H,W)")
        if isinstance(threshold, bool) or not isinstance(threshold, (int, float, np.floating)) or not 0 < threshold < 1:
            raise InputError(f"threshold is {threshold!r}; give a number between 0 and 1")
        count = count_of(images, "images")
        checked = [check_image(image, f"image {i}" if count > 1 else "image") for i, image in enumerate(images)]
        if not checked:
            return []
        queries = np.empty((count, 1, *self.segmenter.grid), np.float32)
        placed = [
            self._place(image, f"image {i}" if count > 1 else "image", queries[i, 0]) for i, image in enumerate(checked)
        ]
        start = time.perf_counter()
        found = self._run(queries)
        network = (time.perf_counter() - start) / count
        return [self._finish(*values, network, float(threshold), logits) for values in zip(found, placed)]

    def member_probabilities(self, image: Array) -> Floats:
        """Probabilities (K,H,W) float32 of each member of the ensemble, for studying it; raises as `predict` does."""
        query = np.empty((1, 1, *self.segmenter.grid), np.float32)
        placed = self._place(check_image(image), "image", query[0, 0])
        return np.stack([placed.placement.back(member) for member in _sigmoid(self._run(query)[0, :, 0])])

    def warm_up(self) -> None:
        """Run one query twice and drop the result, so that the first image finds all loaded: what a GPU captures as a
        graph, it captures when a shape comes again."""
        query = np.zeros((1, 1, *self.segmenter.grid), np.float32)
        for _ in range(2):
            self._run(query)

    def close(self) -> None:
        """Give back what was prepared; what runs at this moment ends as usual, what comes later raises RunnerError."""
        self._prepared = None

    def __enter__(self) -> Task:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        ensemble, manifest = self.ensemble, self.segmenter.bundle.manifest
        size = ensemble.support_size or len(self.support)
        members = f"{ensemble.members} member{'s' * (ensemble.members != 1)} of {size}"
        options = "" if self.aspect == "stretch" else f", aspect {self.aspect}"
        options += "" if isinstance(self.normalise, str) else f", {self.normalise}"
        state = ", closed" if self._prepared is None else ""
        return (
            f"Task({manifest.name}, {len(self.support)} entries, {members}"
            f"{options}{state})"
        )

    def __reduce__(self) -> tuple[object, ...]:
        if self._prepared is None:
            raise RunnerError("a closed Task cannot be pickled; prepare it again")
        return _prepared_again, (self.segmenter, self.support, self.ensemble, self.aspect, self.normalise)

    def _run(self, queries: Floats) -> Floats:
        """Logits (B,K,1,h,w) of queries on the grid, a set for each member as drawn."""
        prepared = self._prepared
        if prepared is None:
            raise RunnerError("this Task is closed; prepare it again")
        logits: Floats = self.segmenter.run(prepared, queries)[:, self._places]
        return logits

    def _place(self, image: Array, name: str, out: Floats) -> _Placed:
        """Write a checked image to `out`, on the grid."""
        start = time.perf_counter()
        placement = Placement.of(image.shape, self.segmenter.grid, self.aspect)
        wide = normalised(image, self.normalise, name)
        out[:] = placement.normalised_to_grid(wide, self.segmenter.grid, name)
        notes = [range_note(wide, name)]
        if (entry := self._entries.get(fingerprint(out))) is not None:
            notes.append(
                f"{name} is in the support, as entry {entry}; a score on it says nothing of images that are not")
        return _Placed(placement, tuple(note for note in notes if note), time.perf_counter() - start)

    def _finish(
        self, logits: Floats, placed: _Placed, network: float, threshold: float, keep_logits: bool
    ) -> Prediction:
        """(K,1,h,w) logits on the grid -> maps at the image's size."""
        start = time.perf_counter()
        members = _sigmoid(logits[:, 0])
        probability = placed.placement.back(members.mean(axis=0))
        if len(members) > 1:
            spread = placed.placement.back(members.std(axis=0))
        else:
            spread = np.zeros_like(probability)
        mask = probability >= threshold
        note = mask_note(float(mask.mean()), self._foreground)
        runner = self.segmenter.runner
        timing = Timing(
            placed.seconds, network, time.perf_counter() - start, runner.name, runner.precision, runner.notes
        )
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


def _prepared_again(
    segmenter: Prepares, support: SupportSet, ensemble: Ensemble, aspect: str, normalise: Normalisation
) -> Task:
    return segmenter.prepare(support, ensemble, aspect=aspect, normalise=normalise)


def _sigmoid(logits: Floats) -> Doubles:
    """In float64, without overflow."""
    out: Doubles = 0.5 + 0.5 * np.tanh(0.5 * logits.astype(np.float64))
    return out
