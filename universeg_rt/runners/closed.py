"""In the place of a runner that was given back: says what it was, and runs nothing."""

from __future__ import annotations

from typing import NoReturn

from ..bundle.bundle import Bundle
from ..errors import RunnerError
from ..named_types import Floats
from .base import Runner
from .options import Options
from .shared import PreparedSupport, SharedEntries


class Closed(Runner):
    """Every call raises RunnerError."""

    def __init__(self, runner: Runner) -> None:
        self.name, self.precision, self.device, self.threads = (
            runner.name,
            runner.precision,
            runner.device,
            runner.threads,
        )
        self.reason, self.notes, self.passed, self.support_sizes = (
            runner.reason,
            runner.notes,
            runner.passed,
            runner.support_sizes,
        )

    @classmethod
    def open(cls, bundle: Bundle, precision: str, options: Options) -> Runner:
        _refuse()

    def prepare(self, support: Floats, weights: Floats) -> PreparedSupport | SharedEntries:
        _refuse()

    def run(self, prepared: PreparedSupport | SharedEntries, queries: Floats) -> Floats:
        _refuse()

    def peak_bytes(self, support_size: int, members: int, height: int, width: int) -> int:
        _refuse()

    def _prepare(self, support: Floats, weights: Floats) -> object:
        _refuse()

    def _run(self, prepared: object, queries: Floats) -> Floats:
        _refuse()


def _refuse() -> NoReturn:
    raise RunnerError("this Segmenter is closed; open it again")
