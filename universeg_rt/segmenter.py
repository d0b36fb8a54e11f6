"""The public face: opens a bundle, prepares support sets. Task predicts."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock

import numpy as np

from .bundle.bundle import SHIPPED, Bundle
from .ensemble import NEAREST, Draw, Ensemble
from .errors import BundleError, InputError, RunnerError
from .imaging.normalisation import MINMAX, Normalisation, check_normalisation
from .labelled import LabelledSupport, LabelledTask
from .labelled_predictor import ARGMAX, Overlap, check_overlap
from .named_types import Floats
from .notes import few_notes
from .runners import Options, Runner, open_runner
from .runners.closed import Closed
from .runners.shared import PreparedSupport, SharedEntries, largest_set, sets_in_group
from .sets import FixedSets, NearestSets
from .support import Drawn, PlacedImage, SupportSet
from .task import Task

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Estimate:
    """What a prediction will cost here: seconds for each image, and bytes of memory for the process's network part."""

    seconds: float
    bytes: int


@dataclass(frozen=True)
class _Asked:
    """What a Segmenter was opened with, to open it again in another process. path None: the shipped bundle."""

    path: str | None
    sha256: str
    runner: str
    precision: str
    options: Options


class Segmenter:
    """A bundle with the runner that runs it. Safe to use from several threads.

    `close()`, or a `with` block, gives back the runner with its weights. A Segmenter that `open` made pickles as its
    path and options, and is opened again where it is unpickled.
    """

    def __init__(self, bundle: Bundle, runner: Runner) -> None:
        self.bundle = bundle
        self.runner = runner
        self._asked: _Asked | None = None
        self._seconds: tuple[float, float] | None = None
        self._lock = Lock()
        self._logged: tuple[str, ...] = ()
        self._log_notes()

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str] | None = None,
        *,
        runner: str = "auto",
        precision: str = "auto",
        threads: int | None = None,
        device: int | None = None,
        tf32: bool | None = None,
        plugin: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | None = None,
        cache: str | os.PathLike[str] | None = None,
        instructions: str | None = None,
    ) -> Segmenter:
        """Open the bundle at `path` (None: the shipped one), checking its files, and start a runner.

        threads and what follows: as `runners.Options`; None takes what the environment variable says
        (UNIVERSEG_RT_DEVICE and so on), else the default. Raises BundleError, RunnerError, or InputError for an
        unknown runner or precision or an option of a wrong kind.
        """
        options = Options(threads, device, tf32, plugin, cache, instructions)
        return cls._open(path, runner, precision, options)

    @classmethod
    def _open(cls, path: str | os.PathLike[str] | None, runner: str, precision: str, options: Options) -> Segmenter:
        bundle = Bundle.open(path)
        opened = cls(bundle, open_runner(bundle, runner, precision, options=options))
        shipped = path is None or bundle.path == SHIPPED
        opened._asked = _Asked(
            None if shipped else str(bundle.path.absolute()), bundle.sha256, runner, precision, options
        )
        return opened

    @property
    def grid(self) -> tuple[int, int]:
        """Height and width at which the network runs, in pixels."""
        return self.bundle.manifest.input.height, self.bundle.manifest.input.width

    @property
    def options(self) -> Options:
        """What its runner was started with, as far as `open` started it."""
        return Options() if self._asked is None else self._asked.options

    def prepare(
        self,
        support: SupportSet,
        ensemble: Ensemble | None = None,
        *,
        aspect: str = "stretch",
        normalise: Normalisation = MINMAX,
    ) -> Task:
        """Do the work that no query is needed for, once.

        ensemble: None for one member with all entries. aspect: how images get to the grid and back, `stretch` or `pad`
        (keeps the aspect ratio). normalise: which intensities become 0 and 1, `"minmax"` for each image's least and
        greatest, or Window(low, high) or Percentiles(low, high), outside of which values are clipped. Both hold for
        support and queries. Raises InputError, and RunnerError where the runner fails or the Segmenter is closed.
        """
        if not isinstance(support, SupportSet):
            raise InputError(f"support is a {type(support).__name__}; make a SupportSet, for example with from_arrays")
        return self._prepare(support, ensemble, aspect, normalise, {})

    def prepare_labels(
        self,
        support: LabelledSupport,
        ensemble: Ensemble | None = None,
        *,
        labels: Sequence[str | int] | None = None,
        aspect: str = "stretch",
        normalise: Normalisation = MINMAX,
        overlap: Overlap = ARGMAX,
    ) -> LabelledTask:
        """As `prepare`, for several labels at once: images are normalised and placed once for all of them.

        labels: by name or value, in that order; None for all. overlap: `argmax` gives a pixel to the label of the
        highest probability, among those that reach their threshold; `independent` leaves each label its own mask.
        Raises as `prepare`, and InputError for a label that the support lacks or that is given twice.
        """
        if not isinstance(support, LabelledSupport):
            raise InputError(
                f"support is a {type(support).__name__}; make a LabelledSupport, for example with from_arrays")
        check_overlap(overlap)
        ensemble = Ensemble() if ensemble is None else ensemble
        placed: dict[int, PlacedImage] = {}
        tasks = {}
        for value in support.chosen(labels):
            name = support.label_names[value]
            try:
                tasks[name] = self._prepare(support.of(value), ensemble, aspect, normalise, placed)
            except InputError as error:
                raise InputError(f"label {name}: {error}") from None
        return LabelledTask(support, tasks, overlap)

    def _prepare(
        self, support: SupportSet, ensemble: Ensemble | None, aspect: str, normalise: Normalisation,
        placed: dict[int, PlacedImage],
    ) -> Task:
        """As `prepare`; placed: as `Drawn.of`."""
        if not isinstance(ensemble, Ensemble | None):
            raise InputError(
                f"ensemble is a {type(ensemble).__name__}; give an Ensemble, for example "
                "Ensemble(members=5, support_size=16)"
            )
        normalise = check_normalisation(normalise)
        ensemble = Ensemble() if ensemble is None else ensemble
        if ensemble.policy == NEAREST:
            drawn = Drawn.of(support, np.arange(len(support)), self.grid, aspect, normalise, placed)
            sets = NearestSets(drawn.on_grid, ensemble)
            few = few_notes(ensemble.support_size or len(support))
            return Task(self, support, ensemble, aspect, normalise, sets, drawn, (*drawn.notes(), *few))
        draw = Draw.of(len(support), ensemble)
        drawn = Drawn.of(support, draw.used, self.grid, aspect, normalise, placed)
        notes = [*drawn.notes(), *few_notes(largest_set(draw.weights))]
        if len(draw.weights) == 1 < ensemble.members:
            notes.append(
                f"all {ensemble.members} members are the same set of {len(draw.used)} entries, computed once; for "
                "members that differ give a support_size below the number of entries, or replacement=True"
            )
        fixed = FixedSets(draw, self.runner.prepare(drawn.on_grid, draw.weights))
        return Task(self, support, ensemble, aspect, normalise, fixed, drawn, tuple(notes))

    def run(self, prepared: PreparedSupport | SharedEntries, queries: Floats) -> Floats:
        """As `Runner.run`; what the runner notes of itself meanwhile goes to the log."""
        logits = self.runner.run(prepared, queries)
        self._log_notes()
        return logits

    def warm_up(self) -> None:
        """Prepare the smallest support that the runner takes and run it once, so that the first request finds all
        loaded. `Task.warm_up` does so for the shapes of a task."""
        entries = self.runner.support_sizes[0]
        support = np.zeros((1, entries, 2, *self.grid), np.float32)
        prepared = self.runner.prepare(support, np.full((1, entries), 1 / entries, np.float32))
        self.run(prepared, np.zeros((1, 1, *self.grid), np.float32))

    def close(self) -> None:
        """Give back the runner: its memory is free when what runs at this moment and the tasks that it prepared for
        are gone. Later calls raise RunnerError; to close again does nothing."""
        if not isinstance(self.runner, Closed):
            self.runner = Closed(self.runner)

    def __enter__(self) -> Segmenter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        runner = self.runner
        state = ", closed" if isinstance(runner, Closed) else ""
        return f"Segmenter({self.bundle.manifest.name}, {runner.name} {runner.precision}, {runner.place}{state})"

    def __reduce__(self) -> tuple[object, ...]:
        if isinstance(self.runner, Closed):
            raise RunnerError("a closed Segmenter cannot be pickled; open it again")
        if self._asked is None:
            raise InputError(
                "a Segmenter made of a runner cannot be pickled; make it with Segmenter.open, whose path and options "
                "are"
            )
        return _opened_again, (self._asked,)

    def _log_notes(self) -> None:
        notes = self.runner.notes
        for note in notes[len(self._logged) :] if notes[: len(self._logged)] == self._logged else notes:
            log.warning("%s (%s): %s", self.runner.name, self.runner.precision, note)
        self._logged = notes

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
        return Estimate(
            members * (fixed + each * support_size), self.runner.peak_bytes(support_size, at_once, *self.grid)
        )

    def _calibrate(self, small: int = 4, large: int = 20, repeats: int = 3) -> tuple[float, float]:
        """Seconds a query and a support set take whatever the support's size, and seconds an entry."""
        fewest, most = self.runner.support_sizes
        small, large = (max(fewest, size if most is None else min(most, size)) for size in (small, large))
        rng = np.random.default_rng(0)
        query = rng.random((1, 1, *self.grid), np.float32)
        entries = rng.random((1, large, 2, *self.grid), np.float32)
        entries[:, :, 1] = np.linspace(0, 1, self.grid[1]) > 0.5  # labels as masks are: mostly constant
        prepared = {
            size: self.runner.prepare(entries[:, :size], np.full((1, size), 1 / size, np.float32))
            for size in {small, large}
        }
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


def _opened_again(asked: _Asked) -> Segmenter:
    """A Segmenter from a pickle; BundleError where another bundle lies at its path now."""
    segmenter = Segmenter._open(asked.path, asked.runner, asked.precision, asked.options)
    if segmenter.bundle.sha256 != asked.sha256:
        raise BundleError(
            f"the bundle at {segmenter.bundle.path} is not the one that was pickled (sha256 of its manifest "
            f"{segmenter.bundle.sha256}, then {asked.sha256}); put that one there, or open this one anew"
        )
    return segmenter
