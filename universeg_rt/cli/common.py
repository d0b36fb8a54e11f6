"""What every command shares: errors are one line on stderr and a non-zero exit status."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ..errors import UniverSegError
from ..install import install_hint

EXTRAS = {"universeg-bench": "bench", "universeg-export": "export", "universeg-train": "train", "universeg-evaluate": "train"}


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
        return report_missing(parser.prog, error)
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


def report_missing(program: str, error: ModuleNotFoundError) -> int:
    """Print the package that a command misses with the cure, one line on stderr, and give the exit status 1.

    Raises the error again where a part of the project itself is missing.
    """
    if (error.name or "").startswith("universeg_rt"):
        raise error
    print(f"{program}: the package {error.name} is missing; {install_hint(EXTRAS.get(program, ''))}", file=sys.stderr)
    return 1
