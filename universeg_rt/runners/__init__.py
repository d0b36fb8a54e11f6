"""Backends behind one contract (`base.Runner`), and the choice among them (`choose`).

A backend is a module of this folder with a class that fulfils `Runner` and has a class method `open(bundle, precision,
options)`; it imports its library there and not before. A new one is a line in `choose.BACKENDS`.
"""

from __future__ import annotations

from .base import Runner
from .choose import RUNNERS, RunnerState, available_runners, open_runner
from .options import Options

__all__ = ["RUNNERS", "Options", "Runner", "RunnerState", "available_runners", "open_runner"]
