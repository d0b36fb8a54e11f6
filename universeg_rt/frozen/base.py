"""What every runner of a frozen file shares."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np

from ..named_types import Floats
from ..runners.options import Options
from ..spec import NetworkSpec


class FrozenRunner(ABC):
    """One frozen model on one device. Safe to call from several threads at once.

    name: as `FrozenTask.open(runner=...)`. device, threads: where it runs; of a CPU. reason: why this runner was
    chosen. notes: as `Runner.notes`.
    """

    name = ""
    device = "CPU"
    threads = 1
    reason = ""
    notes: tuple[str, ...] = ()

    @abstractmethod
    def __init__(self, model: bytes, kind: str, spec: NetworkSpec, options: Options) -> None:
        """RunnerError where the runner cannot start here or does not run this kind."""

    def with_constants(self, maps: Sequence[Floats]) -> FrozenRunner | None:
        """The same network with other constant maps (C,h,w), a block each; None where that needs a new model."""
        return None

    @abstractmethod
    def run(self, queries: Floats) -> Floats:
        """Logits (B,1,H,W) float32 of queries (B,1,H,W) float32 in [0, 1]."""


def logits_of(probability: Floats) -> Floats:
    """Of probabilities in float32; one that float32 rounds to 0 or 1 counts as the nearest that it tells from them."""
    nearest = np.clip(probability.astype(np.float64), np.finfo(np.float32).tiny, 1 - 2.0**-24)
    out: Floats = (np.log(nearest) - np.log1p(-nearest)).astype(np.float32)
    return out
