"""Task: a prepared support set that predicts masks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from .ensemble import Draw, Ensemble
from .errors import RunnerError
from .freezing import Freezable, Opened, freeze
from .frozen_task import FrozenTask
from .imaging.normalisation import Normalisation
from .named_types import Array, Floats
from .predictor import Ran
from .runners.shared import PreparedSupport, SharedEntries
from .support import Drawn, SupportSet


class Prepares(Opened, Protocol):
    """What a Task asks of the Segmenter that prepared it."""

    @property
    def grid(self) -> tuple[int, int]: ...

    @property
    def prepare(self) -> Callable[..., Task]: ...

    def run(self, prepared: PreparedSupport | SharedEntries, queries: Floats) -> Floats: ...


class Task(Freezable):
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
        draw: Draw,
        drawn: Drawn,
        notes: tuple[str, ...],
    ) -> None:
        """notes: what is allowed but rarely meant in the support."""
        self.segmenter: Prepares = segmenter
        super().__init__(segmenter.grid, aspect, normalise, notes, drawn.foreground, drawn.fingerprints())
        self.support = support
        self.ensemble = ensemble
        self.draw = draw
        self._prepared: PreparedSupport | SharedEntries | None = prepared

    def freeze(
        self,
        proxies: str | Sequence[Array] | Array = "support",
        *,
        kind: str = "auto",
        max_loss: float = 0.01,
        seed: int = 0,
        half: bool = True,
    ) -> FrozenTask:
        """Turn the support into constants: a task whose file needs no support and no bundle any more, with the same
        `predict`.

        kind: `exact` keeps the network and its cost, the support becomes part of it; the answers are this Task's.
        `static` replaces what the support gives to each block by one constant map, the mean of those of the proxies: a
        plain network whose cost no longer grows with the support or the ensemble, and an approximation. `auto` takes
        static where its Dice on the support's own entries, each left out in turn, is at most `max_loss` below exact's.
        proxies: `support` for up to eight of its entries, drawn by `seed`, each as a query of others; or images of the
        task, without labels, as `predict_batch` takes them. half: hold the constant maps in half precision, which
        halves a static file; the network's arithmetic stays as it is.

        What it costs stands in `FrozenTask.price` before any query comes. Raises InputError for bad options or proxies,
        and where `static` is asked of a network that has no static form; RunnerError where the runner cannot give what
        is needed or the Task is closed; BundleError where the bundle lacks the models.
        """
        return freeze(self, proxies, kind, max_loss, seed, half)

    def close(self) -> None:
        self._prepared = None

    @property
    def prepared(self) -> PreparedSupport | SharedEntries:
        """What the runner prepared; RunnerError where the Task is closed."""
        if self._prepared is None:
            raise RunnerError("this Task is closed; prepare it again")
        return self._prepared

    def __repr__(self) -> str:
        ensemble, manifest = self.ensemble, self.segmenter.bundle.manifest
        size = ensemble.support_size or len(self.support)
        members = f"{ensemble.members} member{'s' * (ensemble.members != 1)} of {size}"
        options = "" if self.aspect == "stretch" else f", aspect {self.aspect}"
        options += "" if isinstance(self.normalise, str) else f", {self.normalise}"
        state = ", closed" if self._prepared is None else ""
        return f"Task({manifest.name}, {len(self.support)} entries, {members}{options}{state})"

    def __reduce__(self) -> tuple[object, ...]:
        if self._prepared is None:
            raise RunnerError("a closed Task cannot be pickled; prepare it again")
        return _prepared_again, (self.segmenter, self.support, self.ensemble, self.aspect, self.normalise)

    def _run(self, queries: Floats) -> Floats:
        """Logits (B,K,1,h,w), a set for each member as drawn."""
        logits: Floats = self.segmenter.run(self.prepared, queries)[:, self.draw.places]
        return logits

    def _ran(self) -> Ran:
        runner = self.segmenter.runner
        return Ran(runner.name, runner.precision, runner.notes)


def _prepared_again(
    segmenter: Prepares, support: SupportSet, ensemble: Ensemble, aspect: str, normalise: Normalisation
) -> Task:
    return segmenter.prepare(support, ensemble, aspect=aspect, normalise=normalise)
