"""Environment variables of the SDK: one prefix, and what they say where an argument says nothing."""

from __future__ import annotations

import os

PREFIX = "UNIVERSEG_RT_"


def variable(name: str) -> str:
    """The variable of an option of `Segmenter.open`: `UNIVERSEG_RT_DEVICE` for `device`."""
    return PREFIX + name.upper()


def said(name: str) -> str | None:
    """What the variable of an option says; None where it is not set or empty."""
    return os.environ.get(variable(name)) or None
