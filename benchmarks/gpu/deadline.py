"""Ends what would run on when its time is up: between two inputs, and inside the build of an engine."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext

from universeg_rt.errors import EngineError
from universeg_rt.export.engine.process import Report

# Of the time that is left, what a step takes at the most where others follow, by name.
SHARES = {"engines": 0.5, "parity": 0.5}


class OutOfTime(Exception):
    """The deadline came between two inputs."""


def of_step(state: dict, name: str) -> float:
    """The deadline of a step: a part of the time that is left where steps to come want some too."""
    steps, deadline = state["options"].steps, state["deadline"]
    if not any(other in steps for other in ("parity", "timing") if other != name):
        return deadline
    now = time.monotonic()
    return now + SHARES[name] * max(0.0, deadline - now)


def half(deadline: float) -> float:
    """When half of the time that is left until then will be over."""
    now = time.monotonic()
    return now + max(0.0, deadline - now) / 2


def until(deadline: float, inputs: Iterable) -> Iterator:
    """The inputs one by one; raises OutOfTime before one that would begin after the deadline."""
    for each in inputs:
        if time.monotonic() > deadline:
            raise OutOfTime
        yield each


def build_until(deadline: float, label: str = "") -> AbstractContextManager[Report]:
    """For `build_engines`: raises EngineError from inside a build that goes on after the deadline, which ends it."""

    def report(*_: object) -> None:
        if time.monotonic() > deadline:
            raise EngineError("the time limit was reached while it was built")

    return nullcontext(report)
