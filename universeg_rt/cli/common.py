"""What every command shares: errors are one line on stderr and a non-zero exit status."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ..errors import UniverSegError


def run_command(body: Callable[[argparse.Namespace], int], parser: argparse.ArgumentParser, arguments: list[str] | None) -> int:
    """Parse and run; a UniverSegError or a missing package is printed without a stack trace and gives 1, Ctrl-C 130.

    SIGTERM ends a command as Ctrl-C does, so that what was half written is removed.
    """
    args = parser.parse_args(arguments)
    try:
        with _terminated_like_interrupted():
            return body(args)
    except UniverSegError as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 1
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("universeg_rt"):
            raise
        print(f"{parser.prog}: the package {error.name} is missing; {_cure(parser.prog)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"{parser.prog}: interrupted", file=sys.stderr)
        return 130


@contextmanager
def _terminated_like_interrupted() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield  # signals belong to the main thread
        return

    def interrupt(*_) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _cure(program: str) -> str:
    extra = {"universeg-bench": "[bench]", "universeg-export": "[export]", "universeg-train": "[train]", "universeg-evaluate": "[train]"}.get(program, "")
    return f"pip install 'universeg_rt{extra}'"
