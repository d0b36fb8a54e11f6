"""One case of each defect, for the test of the harness itself; no fuzzer, so `python -m tests.fuzz` leaves it out."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from universeg_rt.errors import InputError

from . import MEMORY


def cases(rng, folder: Path) -> Iterator[tuple[str, Callable[[], object]]]:
    yield "passes", lambda: None
    yield "typed", lambda: _raise(InputError("typed"))
    yield "raw", lambda: _raise(KeyError("raw"))
    yield "hangs", lambda: time.sleep(60)
    yield "dies", os.abort
    yield "covers", _typed_out_of_memory
    yield "asks for too much", lambda: np.ones(2 * MEMORY, np.uint8)
    yield "exits", lambda: _raise(SystemExit(0))
    yield "passes again", lambda: None


def _raise(error: BaseException) -> None:
    raise error


def _typed_out_of_memory() -> None:
    try:
        bytearray(2 * MEMORY)
    except MemoryError:
        raise InputError("too large") from None
