"""The contract that every backend fulfils: prepare a support, then run queries to logits. No files, no geometry."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np

from ..bundle import Bundle
from ..errors import InputError
from . import shared


class Runner(ABC):
    """Runs one network on one device. Safe to call from several threads at once.

    name: as in `Segmenter.open(runner=...)`. precision: the one that runs, of `runners.PRECISIONS`. device: where it runs,
    in words. reason: why this runner was chosen, in one short line. notes: what is not as was asked or as it could be (a cache
    that could not be used, a path not taken), and the cure; also part of `reason`. passed: of each faster runner that does not
    start here, name and the whole reason. support_sizes: the fewest and the most entries of a set that it takes; None: any
    number.
    """

    name: str = ""
    precision: str = "fp32"
    device: str = "CPU"
    reason: str = ""
    notes: tuple[str, ...] = ()
    passed: dict[str, str] = {}
    support_sizes: tuple[int, int | None] = (1, None)

    @classmethod
    @abstractmethod
    def open(cls, bundle: Bundle, precision: str, threads: int | None) -> Runner:
        """Start on a bundle; precision may be `auto`. BundleError where the bundle lacks what is needed, RunnerError where
        the runner cannot start here: it names the package to install or the field of the machine that does not fit."""

    def prepare(self, support: np.ndarray, weights: np.ndarray) -> object:
        """Do all work that no query is needed for.

        support: (K,S,2,H,W) float32, images in [0, 1] and labels in {0, 1}; weights: (K,S) float32 of the means, each
        row summing to 1, zero for padding. Or the entries that K sets share, (N,2,H,W), with weights (K,N), zero for those that
        are not in a set. Returns a value for `run`; raises InputError where shapes do not fit.
        """
        if support.ndim == 4:
            return shared.prepare(self, support, weights)
        if support.ndim != 5 or support.shape[2] != 2 or 0 in support.shape:
            raise InputError(f"support has shape {support.shape}; expected (K,S,2,H,W) with nothing empty")
        if weights.shape != support.shape[:2]:
            raise InputError(f"weights have shape {weights.shape}; expected {support.shape[:2]}")
        if not (weights >= 0).all() or not np.allclose(weights.sum(axis=1), 1, atol=1e-3):
            raise InputError(f"weights of the sets sum to {weights.sum(axis=1)}; give weights from 0 that sum to 1 in each set")
        return self._prepare(np.ascontiguousarray(support, np.float32), np.ascontiguousarray(weights, np.float32))

    def run(self, prepared: object, queries: np.ndarray) -> np.ndarray:
        """Logits (B,K,1,H,W) float32 of queries (B,1,H,W) float32 in [0, 1]."""
        if queries.ndim != 4 or queries.shape[1] != 1 or 0 in queries.shape:
            raise InputError(f"queries have shape {queries.shape}; expected (B,1,H,W) with nothing empty")
        if isinstance(prepared, shared.SharedEntries):
            return prepared.run(self, queries)
        return self._run(prepared, np.ascontiguousarray(queries, np.float32))

    @abstractmethod
    def _prepare(self, support: np.ndarray, weights: np.ndarray) -> object: ...

    @abstractmethod
    def _run(self, prepared: object, queries: np.ndarray) -> np.ndarray: ...

    @abstractmethod
    def peak_bytes(self, support_size: int, members: int, height: int, width: int) -> int:
        """About how much memory `prepare` and `run` take together for one query, models included."""
