"""What every runner of a frozen file shares."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np

from ..bundle.onnx_bind import giving
from ..errors import RunnerError
from ..named_types import Floats
from ..runners.options import Options
from ..spec import NetworkSpec
from .record import LOGITS, PROBABILITY, STATIC


class FrozenRunner(ABC):
    """One frozen model on one device. Safe to call from several threads at once.

    name: as `FrozenTask.open(runner=...)`. precision: what it computes in, where that may be another than the file
    states. device, threads: where it runs; of a CPU. reason: why this runner was chosen. notes: as `Runner.notes`.
    """

    name = ""
    precision = ""
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


def readable(model: bytes, kind: str) -> tuple[bytes, str]:
    """A file as a runtime loads it, and the name of its output then: LOGITS of a static file, so that nothing is left
    to compute on the host. An exact one keeps PROBABILITY, a mean over the members that has no logits of its own.
    RunnerError where a static file holds no logits."""
    if kind != STATIC:
        return model, PROBABILITY
    try:
        return giving(model, LOGITS, PROBABILITY), LOGITS
    except ValueError as error:
        raise RunnerError(f"this file is no static network that universeg-export wrote ({error}); freeze the task "
                          "again") from None


def logits_of(values: Floats, output: str) -> Floats:
    """Of what that output of a file gives: itself, or computed from probabilities in float32. One that float32 rounds
    to 0 or 1 counts as the nearest that it tells from them."""
    if output == LOGITS:
        return values
    nearest = np.clip(values.astype(np.float64), np.finfo(np.float32).tiny, 1 - 2.0**-24)
    out: Floats = (np.log(nearest) - np.log1p(-nearest)).astype(np.float32)
    return out
