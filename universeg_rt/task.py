"""Task: a prepared support set that predicts masks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Protocol

from .answers.absence import Looks
from .answers.thresholds import THRESHOLD
from .ensemble import NEAREST, Draw, Ensemble
from .errors import RunnerError
from .freezing import freeze
from .frozen_files import Freezable, Opened
from .frozen_task import FrozenTask
from .imaging.normalisation import Normalisation
from .named_types import Array, Floats
from .predictor import Ran
from .refining import RefinedTask, refine
from .runners.shared import PreparedSupport, SharedEntries
from .sets import FixedSets, NearestSets, Runs
from .support import Drawn, SupportSet


class Prepares(Opened, Runs, Protocol):
    """What a Task asks of the Segmenter that prepared it."""

    @property
    def grid(self) -> tuple[int, int]: ...

    @property
    def prepare(self) -> Callable[..., Task]: ...


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
        sets: FixedSets | NearestSets,
        drawn: Drawn,
        notes: tuple[str, ...],
    ) -> None:
        """drawn: all entries that a set may hold. notes: what is allowed but rarely meant in the support."""
        self.segmenter: Prepares = segmenter
        super().__init__(segmenter.grid, aspect, normalise, notes, drawn.foreground, drawn.fingerprints(),
                         support.shares is not None)
        self.support = support
        self.ensemble = ensemble
        self._sets: FixedSets | NearestSets | None = sets

    def freeze(
        self,
        proxies: str | Sequence[Array] | Array = "support",
        *,
        kind: str = "auto",
        max_loss: float = 0.01,
        threshold: float | str = THRESHOLD,
        seed: int = 0,
        half: bool = True,
        precision: str = "fp32",
    ) -> FrozenTask:
        """Turn the support into constants: a task whose file needs no support and no bundle any more, with the same
        `predict`.

        kind: `exact` keeps the network and its cost, the support becomes part of it; its probabilities are this Task's.
        `static` replaces what the support gives to each block by one constant map, the mean of those of the proxies: a
        plain network whose cost no longer grows with the support or the ensemble, and an approximation. `auto` takes
        static where that loses at most `max_loss` (`Price.loss`) on the support's own entries, each left out in turn,
        and exact where they are too few to tell. proxies: `support` for up to eight of its entries, drawn by `seed`,
        each as a query of others, and in small supports turned and shifted (`universeg_rt.proxies`); or images of the
        task, without labels, as `predict_batch` takes them. threshold: the
        probability from which the frozen task marks; `choose` takes another than 0.5 where the entries left out say
        that it gains (`answers.thresholds`). half: hold the constant maps in half precision, which halves a static
        file; the network's arithmetic stays as it is. precision: of a static file's arithmetic, `fp32` or `fp16`,
        which is for GPUs (an exact file has that of the Segmenter); its price is measured in fp32.

        What it costs stands in `FrozenTask.price` before any query comes. Raises InputError for bad options or proxies,
        for a task of the policy `nearest`, and where `static` is asked of a network that has no static form;
        RunnerError where the runner cannot give what is needed or the Task is closed; BundleError where the bundle
        lacks the models.
        """
        return freeze(self, proxies, kind, max_loss, threshold, seed, half, precision)

    def refine(self, how: str = "auto", *, seed: int = 0) -> RefinedTask:
        """A task that looks closer, with the same `predict`.

        how: `window` looks a second time, in a window around the first mask; `threshold` marks from another probability
        than 0.5; `auto` takes one of them, or `off`, by Dice on up to eight entries of the support, drawn by `seed` and
        left out of it in pairs. What was taken, why, and the gain to expect stand in `RefinedTask.choice`. Whatever it
        is, `predict_in` looks into regions that are given. It holds a second support, cut around the labels, and runs
        on this Task. Raises InputError for another `how`, or for a support too small to leave entries out; RunnerError
        where the Task is closed.
        """
        return refine(self, self.segmenter, self.support, self.ensemble, how, seed)

    def close(self) -> None:
        self._sets = None

    @property
    def sets(self) -> FixedSets | NearestSets:
        """The support sets that answer queries; RunnerError where the Task is closed."""
        if self._sets is None:
            raise RunnerError("this Task is closed; prepare it again")
        return self._sets

    @property
    def draw(self) -> Draw:
        """What was drawn from the support; InputError for the policy `nearest`, RunnerError where the Task is
        closed."""
        return self.sets.draw

    @property
    def prepared(self) -> PreparedSupport | SharedEntries:
        """What the runner prepared; raises as `draw`."""
        return self.sets.prepared

    def __repr__(self) -> str:
        ensemble, manifest = self.ensemble, self.segmenter.bundle.manifest
        size = ensemble.support_size or len(self.support)
        members = f"{ensemble.members} member{'s' * (ensemble.members != 1)} of {size}"
        members += f" {ensemble.policy}" * (ensemble.policy == NEAREST)
        options = "" if self.aspect == "stretch" else f", aspect {self.aspect}"
        options += "" if isinstance(self.normalise, str) else f", {self.normalise}"
        state = ", closed" if self._sets is None else ""
        return f"Task({manifest.name}, {len(self.support)} entries, {members}{options}{state})"

    def __reduce__(self) -> tuple[object, ...]:
        if self._sets is None:
            raise RunnerError("a closed Task cannot be pickled; prepare it again")
        return _prepared_again, (self.segmenter, self.support, self.ensemble, self.aspect, self.normalise)

    @cached_property
    def looks(self) -> Looks | None:
        known = self.support.looks
        if known is None:
            return Looks.of_entries(self.support.images, self.support.labels, self.normalise)
        return known if known.tells else None

    @property
    def _members(self) -> int:
        return self.ensemble.members

    def _run(self, queries: Floats) -> Floats:
        """Logits (B,K,1,h,w), a set for each member as drawn."""
        return self.sets.run(self.segmenter, queries)

    def _ran(self) -> Ran:
        runner = self.segmenter.runner
        return Ran(runner.name, runner.precision, runner.notes)


def _prepared_again(
    segmenter: Prepares, support: SupportSet, ensemble: Ensemble, aspect: str, normalise: Normalisation
) -> Task:
    return segmenter.prepare(support, ensemble, aspect=aspect, normalise=normalise)
