"""The contract that every backend fulfils: prepare a support, then run queries to logits. No files, no geometry."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np

from ..bundle.bundle import Bundle
from ..errors import InputError, RunnerError
from ..named_types import Doubles, Floats
from . import shared
from .options import Options


class Runner(ABC):
    """Runs one network on one device. Safe to call from several threads at once.

    name: as in `Segmenter.open(runner=...)`. precision: the one that runs, of `precision.PRECISIONS`. device: where it
    runs, in words. threads: of a CPU runner; None where they are not counted. reason: why this runner was chosen, in
    one short line. notes: what is not as was asked or as it could be (a cache that could not be used, a path not
    taken), and the cure; also part of `reason`. passed: of each faster runner that does not start here, name and the
    whole reason. support_sizes: the fewest and the most entries of a set that it takes; None: any number.
    """

    name: str = ""
    precision: str = "fp32"
    device: str = "CPU"
    threads: int | None = None
    reason: str = ""
    notes: tuple[str, ...] = ()
    passed: dict[str, str] = {}
    support_sizes: tuple[int, int | None] = (1, None)

    @classmethod
    @abstractmethod
    def open(cls, bundle: Bundle, precision: str, options: Options) -> Runner:
        """Start on a bundle; precision may be `auto`. BundleError where the bundle lacks what is needed, RunnerError
        where the runner cannot start here: it names the package to install or the field of the machine that does not
        fit."""

    @classmethod
    def check_here(cls, options: Options) -> str | None:
        """On what it starts here, in words; None where that says no more than its name. Raises RunnerError, as `open`
        would, where it starts on this machine with no bundle."""
        return None

    @property
    def place(self) -> str:
        """Where it runs, for people: the device, and how many threads where they are counted."""
        if self.threads is None:
            return self.device
        return f"{self.device}, {self.threads} thread{'s' * (self.threads != 1)}"

    def prepare(self, support: Floats, weights: Floats) -> shared.PreparedSupport | shared.SharedEntries:
        """Do all work that no query is needed for.

        support: (K,S,2,H,W) float32, images in [0, 1] and labels in {0, 1}; weights: (K,S) float32 of the means, each
        row summing to 1, zero for padding. Or the entries that K sets share, (N,2,H,W), with weights (K,N), zero for
        those that are not in a set. Returns a value for `run`; raises InputError where shapes do not fit.
        """
        if support.ndim == 4:
            return shared.prepare(self, support, weights)
        if support.ndim != 5 or support.shape[2] != 2 or 0 in support.shape:
            raise InputError(f"support has shape {support.shape}; expected (K,S,2,H,W) with nothing empty")
        if weights.shape != support.shape[:2]:
            raise InputError(f"weights have shape {weights.shape}; expected {support.shape[:2]}")
        shared.check_weights(weights)
        value = self._prepare(np.ascontiguousarray(support, np.float32), np.ascontiguousarray(weights, np.float32))
        return shared.PreparedSupport(value, support.shape[0], support.shape[3:])

    def run(self, prepared: shared.PreparedSupport | shared.SharedEntries, queries: Floats) -> Floats:
        """Logits (B,K,1,H,W) float32 of queries (B,1,H,W) float32 in [0, 1]. Raises InputError where shapes do not fit,
        RunnerError where the backend fails or gives anything else than finite logits of this shape."""
        if queries.ndim != 4 or queries.shape[1] != 1 or 0 in queries.shape:
            raise InputError(f"queries have shape {queries.shape}; expected (B,1,H,W) with nothing empty")
        if isinstance(prepared, shared.SharedEntries):
            return prepared.run(self, queries)
        if queries.shape[2:] != prepared.size:
            raise InputError(f"queries are {queries.shape[2:]}, the support was prepared at {prepared.size}")
        logits = self._run(prepared.value, np.ascontiguousarray(queries, np.float32))
        self._check(logits, (len(queries), prepared.sets, 1, *prepared.size))
        return logits

    def mean_constants(
        self, prepared: shared.PreparedSupport | shared.SharedEntries, query: Floats, shares: Doubles
    ) -> tuple[Floats, list[Floats]]:
        """Logits (K,1,H,W) of one query (1,H,W) as `run` gives them, and of each block the constant map (C,h,w) that
        stands for the support in a static network, c = Wt * (b + Wv * mean_i(v_i)) + bt: the mean over the K sets,
        weighted by shares (K,) that sum to 1.

        RunnerError where the runner gives no such maps; else as `run`.
        """
        if isinstance(prepared, shared.SharedEntries):
            return prepared.mean_constants(self, query, shares)
        if query.shape[1:] != prepared.size:
            raise InputError(f"the query is {query.shape[1:]}, the support was prepared at {prepared.size}")
        logits, constants = self._mean_constants(prepared.value, np.ascontiguousarray(query, np.float32), shares)
        self._check(logits, (prepared.sets, 1, *prepared.size))
        return logits, constants

    def _mean_constants(
        self, prepared: Any, query: Floats, shares: Doubles
    ) -> tuple[Floats, list[Floats]]:
        raise RunnerError(
            f"the runner {self.name} gives no constant maps, of which a static task is made; open the bundle with "
            "runner='native' to freeze, or take kind='exact'"
        )

    def _check(self, logits: Any, expected: tuple[int, ...]) -> None:
        """RunnerError where logits are no mask's: whatever is not a number would pass for background."""
        ours = f"the runner {self.name} ({self.precision}, {self.device})"
        shape, kind = getattr(logits, "shape", None), getattr(logits, "dtype", None)
        if shape != expected or kind != np.float32:
            raise RunnerError(
                f"{ours} gave logits of shape {shape} and type {kind}, expected {expected} of float32; use another "
                "runner, or export the bundle again")
        finite = int(np.isfinite(logits).sum())
        if finite != logits.size:
            raise RunnerError(
                f"{ours} gave {logits.size - finite} logits of {logits.size} that are not finite numbers; use "
                "precision='fp32' or another runner; where all do so, the weights are damaged")

    @abstractmethod
    def _prepare(self, support: Floats, weights: Floats) -> object: ...

    @abstractmethod
    def _run(self, prepared: Any, queries: Floats) -> Floats:
        """prepared: what this runner's `_prepare` gave."""

    @abstractmethod
    def peak_bytes(self, support_size: int, members: int, height: int, width: int) -> int:
        """About how much memory `prepare` and `run` take together for one query, models included."""
