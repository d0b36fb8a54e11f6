"""The public face: open a bundle, prepare a support set, predict masks."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock

import numpy as np

from .bundle.bundle import Bundle
from .ensemble import Ensemble, distinct
from .errors import InputError
from .notes import fingerprint, mask_note, range_note
from .imaging.preprocess import Placement, check_image, count_of, normalise
from .runners import Runner, open_runner
from .runners.shared import sets_in_group
from .support import Drawn, SupportSet


@dataclass(frozen=True)
class Timing:
    """Seconds of one prediction; in a batch, network is the batch's time divided by its size.

    runner, precision: what ran the network. notes: as `Runner.notes`, what was not as asked or as it could be, and the cure.
    """

    preprocess: float
    network: float
    postprocess: float
    runner: str = ""
    precision: str = ""
    notes: tuple[str, ...] = ()

    @property
    def total(self) -> float:
        return self.preprocess + self.network + self.postprocess


@dataclass(frozen=True, eq=False)
class Prediction:
    """All maps have the input image's own size (H,W).

    mask: bool, probability >= 0.5. probability: float32, mean over the ensemble's members. spread: float32, standard
    deviation over the members (zero for one member). notes: what is allowed but rarely meant, of this image and of the task's
    support (`Task.notes`), each with the cure.
    """

    mask: np.ndarray
    probability: np.ndarray
    spread: np.ndarray
    timing: Timing
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Estimate:
    """What a prediction will cost here: seconds for each image, and bytes of memory for the whole process's network part."""

    seconds: float
    bytes: int


class Segmenter:
    """A bundle with the runner that runs it. Safe to use from several threads."""

    def __init__(self, bundle: Bundle, runner: Runner) -> None:
        self.bundle = bundle
        self.runner = runner
        self._seconds: tuple[float, float] | None = None
        self._lock = Lock()

    @classmethod
    def open(
        cls, path: str | os.PathLike | None = None, *, runner: str = "auto", precision: str = "auto",
        threads: int | None = None,
    ) -> "Segmenter":
        """Open the bundle at `path` (None: the shipped one), checking its files, and start a runner.

        Raises BundleError, RunnerError, or InputError for an unknown runner or precision or a thread count below 1.
        """
        bundle = Bundle.open(path)
        return cls(bundle, open_runner(bundle, runner, precision, threads))

    @property
    def grid(self) -> tuple[int, int]:
        """Height and width at which the network runs, in pixels."""
        return self.bundle.manifest.input.height, self.bundle.manifest.input.width

    def prepare(self, support: SupportSet, ensemble: Ensemble | None = None, *, aspect: str = "stretch") -> "Task":
        """Do the work that no query is needed for, once.

        ensemble: None for one member with all entries. aspect: how images get to the grid and back, `stretch` or `pad`
        (keeps the aspect ratio); the same for support and queries. Raises InputError.
        """
        if not isinstance(support, SupportSet):
            raise InputError(f"support is a {type(support).__name__}; make a SupportSet, for example with from_arrays")
        if not isinstance(ensemble, Ensemble | None):
            raise InputError(f"ensemble is a {type(ensemble).__name__}; give an Ensemble, for example Ensemble(members=5, support_size=16)")
        ensemble = Ensemble() if ensemble is None else ensemble
        members, places = distinct(ensemble.draw(len(support)))
        used = np.unique(np.concatenate([indices for indices, _ in members]))
        drawn = Drawn.of(support, used, self.grid, aspect)
        notes = drawn.notes()
        if len(members) == 1 < ensemble.members:
            notes.append(f"all {ensemble.members} members are the same set of {len(members[0][0])} entries, computed once; for members that "
                         "differ give a support_size below the number of entries, or replacement=True")
        weights = np.zeros((len(members), len(used)), np.float32)
        for k, (indices, row) in enumerate(members):
            weights[k, np.searchsorted(used, indices)] = row
        prepared = self.runner.prepare(drawn.on_grid, weights)
        return Task(self, support, ensemble, aspect, prepared, places, drawn, tuple(notes))

    def estimate(self, support_size: int, members: int = 1) -> Estimate:
        """Time and memory of one prediction with `members` sets of `support_size` distinct entries, beforehand.

        The time is measured once on this machine with two small supports (about a second) and extended linearly.
        """
        Ensemble(members, support_size)  # checks the range
        if support_size is None:
            raise InputError("support_size is None; give the number of distinct entries of a set")
        with self._lock:
            if self._seconds is None:
                self._seconds = self._calibrate()
        fixed, each = self._seconds
        at_once = min(members, sets_in_group(support_size, 2 * 4 * self.grid[0] * self.grid[1]))
        return Estimate(members * (fixed + each * support_size), self.runner.peak_bytes(support_size, at_once, *self.grid))

    def _calibrate(self, small: int = 4, large: int = 20, repeats: int = 3) -> tuple[float, float]:
        """Seconds a query and a support set take whatever the support's size, and seconds an entry."""
        fewest, most = self.runner.support_sizes
        small, large = (max(fewest, size if most is None else min(most, size)) for size in (small, large))
        rng = np.random.default_rng(0)
        query = rng.random((1, 1, *self.grid), np.float32)
        entries = rng.random((1, large, 2, *self.grid), np.float32)
        entries[:, :, 1] = np.linspace(0, 1, self.grid[1]) > 0.5  # labels as masks are: mostly constant
        prepared = {size: self.runner.prepare(entries[:, :size], np.full((1, size), 1 / size, np.float32)) for size in {small, large}}
        seconds: dict[int, list[float]] = {small: [], large: []}
        for repeat in range(repeats + 1):  # the first pass warms up
            for size, value in prepared.items():
                start = time.perf_counter()
                self.runner.run(value, query)
                if repeat:
                    seconds[size].append(time.perf_counter() - start)
        # The fastest: a slow moment in one of few passes would be multiplied when it is extended to large supports.
        low, high = (min(seconds[size]) for size in (small, large))
        if small == large:  # an engine for one size only
            return low, 0.0
        each = max(high - low, 0.0) / (large - small)
        return max(low - each * small, 0.0), each


class Task:
    """A prepared support set, ready for queries; made by `Segmenter.prepare`. Safe to use from several threads."""

    def __init__(self, segmenter: Segmenter, support: SupportSet, ensemble: Ensemble, aspect: str, prepared: object,
                 places: np.ndarray, drawn: Drawn, notes: tuple[str, ...]) -> None:
        """places: (K,) for each member the index of the prepared set. notes: what is allowed but rarely meant in the support."""
        self.segmenter = segmenter
        self.support = support
        self.ensemble = ensemble
        self.aspect = aspect
        self.notes = notes
        self._prepared = prepared
        self._places = places
        self._foreground = drawn.foreground
        self._entries = drawn.fingerprints()

    def predict(self, image: np.ndarray) -> Prediction:
        """Segment one grey image (H,W) of any size and real type. Raises InputError where it breaks the input contract."""
        return self.predict_batch([image])[0]

    def predict_batch(self, images: Sequence[np.ndarray] | np.ndarray) -> list[Prediction]:
        """Segment images (N,H,W), or a sequence of (H,W) of any sizes; all are checked before any is run."""
        if isinstance(images, np.ndarray) and images.ndim != 3:
            raise InputError(f"images have shape {images.shape}; expected (N,H,W), or a sequence of (H,W)")
        count = count_of(images, "images")
        checked = [check_image(image, f"image {i}" if count > 1 else "image") for i, image in enumerate(images)]
        if not checked:
            return []
        queries = np.empty((count, 1, *self.segmenter.grid), np.float32)
        placed = [self._place(image, f"image {i}" if count > 1 else "image", queries[i, 0]) for i, image in enumerate(checked)]
        start = time.perf_counter()
        logits = self.segmenter.runner.run(self._prepared, queries)[:, self._places]
        network = (time.perf_counter() - start) / count
        return [self._finish(*values, network) for values in zip(logits, placed)]

    def member_probabilities(self, image: np.ndarray) -> np.ndarray:
        """Probabilities (K,H,W) float32 of each member of the ensemble, for studying it; raises as `predict` does."""
        query = np.empty((1, 1, *self.segmenter.grid), np.float32)
        placed = self._place(check_image(image), "image", query[0, 0])
        logits = self.segmenter.runner.run(self._prepared, query)[0, self._places]
        return np.stack([placed.placement.back(member) for member in _sigmoid(logits[:, 0])])

    def _place(self, image: np.ndarray, name: str, out: np.ndarray) -> _Placed:
        """Write a checked image to `out`, on the grid."""
        start = time.perf_counter()
        placement = Placement.of(image.shape, self.segmenter.grid, self.aspect)
        normalised = normalise(image)
        out[:] = placement.normalised_to_grid(normalised, self.segmenter.grid, name)
        notes = [range_note(normalised, name)]
        if (entry := self._entries.get(fingerprint(out))) is not None:
            notes.append(f"{name} is in the support, as entry {entry}; a score on it says nothing of images that are not")
        return _Placed(placement, tuple(note for note in notes if note), time.perf_counter() - start)

    def _finish(self, logits: np.ndarray, placed: _Placed, network: float) -> Prediction:
        """(K,1,H,W) logits on the grid -> maps at the image's size."""
        start = time.perf_counter()
        members = _sigmoid(logits[:, 0])
        probability = placed.placement.back(members.mean(axis=0))
        if len(members) > 1:
            spread = placed.placement.back(members.std(axis=0))
        else:
            spread = np.zeros_like(probability)
        mask = probability >= 0.5
        note = mask_note(float(mask.mean()), self._foreground)
        runner = self.segmenter.runner
        timing = Timing(placed.seconds, network, time.perf_counter() - start, runner.name, runner.precision, runner.notes)
        return Prediction(mask, probability, spread, timing, (*placed.notes, *([note] if note else []), *self.notes))


@dataclass(frozen=True)
class _Placed:
    """Of a query on the grid: where it lies there, notes on it, and the seconds that it took."""

    placement: Placement
    notes: tuple[str, ...]
    seconds: float


def _sigmoid(logits: np.ndarray) -> np.ndarray:
    """In float64, without overflow."""
    return 0.5 + 0.5 * np.tanh(0.5 * logits.astype(np.float64))
