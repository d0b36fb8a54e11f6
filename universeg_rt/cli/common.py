"""What every command shares: it prints an error as one line on stderr and exits with a non-zero status."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType

from ..errors import InputError, UniverSegError
from ..install import install_hint

# What a command's name has in it, and the extra that its packages stand in.
EXTRAS = {
    "universeg-bench": "bench", "universeg-export": "export", "universeg-train": "train", "universeg-evaluate": "train",
    "universeg-segment": "medical",
    "universeg_rt.benchmarks.": "bench", "universeg_rt.export.": "export", "universeg_rt.training.": "train",
    "universeg_rt.kernels.": "kernels", "universeg_rt.cli.demo": "demo",
}

INTERRUPTED = 128 + signal.SIGINT
CLOSED = 141  # what a shell gives for a program that SIGPIPE ended: 128 + 13, by number as Windows has no such signal
# The SDK's words for a cure, and the command's.
OPTIONS = {
    "replacement=True": "--replacement", "support_size": "--support-size",
    "prepare(..., normalise=Percentiles(0.1, 99.9))": "--percentiles 0.1 99.9",
    "say which one with time,": "say which one with --time,",
    "say which one with series,": "say which one with --series,",
    "say which plane with the axis:": "say which plane with --axis:",
    "absent_below": "--absent-below", ", or None to empty no mask": ", or leave it out",
}



def run_command(body: Callable[[argparse.Namespace], int], parser: argparse.ArgumentParser,
                arguments: list[str] | None) -> int:
    """Parse and run `body`, as `guarded` does; every command has --version."""
    from .. import __version__

    parser.add_argument("--version", action="version", version=f"{parser.prog} {__version__}")
    return guarded(parser.prog, lambda: body(parser.parse_args(arguments)))


def given(args: argparse.Namespace, parser: argparse.ArgumentParser) -> set[str]:
    """Names in `args` of the options that are not as they are where they are left out."""
    return {name for name, value in vars(args).items() if value != parser.get_default(name)}


def as_options(names: Iterable[str]) -> str:
    """Names in the parsed arguments as they are given on the command line, in order."""
    return ", ".join(sorted("--" + name.replace("_", "-") for name in names))


def in_options(text: str, own: Mapping[str, str] = MappingProxyType({})) -> str:
    """A message of the SDK in the words of the command line; own: those of this command."""
    for word, option in {**OPTIONS, **own}.items():
        text = text.replace(word, option)
    return text


@contextmanager
def said_in_options(own: Mapping[str, str] = MappingProxyType({})) -> Iterator[None]:
    """An InputError of the SDK that passes says its cure in the words of the command line; own: as `in_options`."""
    try:
        yield
    except InputError as error:
        raise InputError(in_options(str(error), own)) from None


def guarded(program: str, body: Callable[[], int]) -> int:
    """Run and give the exit status; a UniverSegError or a missing package is printed without a stack trace and gives 1,
    Ctrl-C 130.

    SIGTERM ends a command as Ctrl-C does, so that what was half written is removed. A reader that closes our output
    early (`| head`) ends it quietly with 141.
    """
    try:
        with _terminated_like_interrupted():
            try:
                return body()
            finally:
                if sys.stdout is not None:
                    sys.stdout.flush()  # here, where a closed pipe can be handled, not when the interpreter ends
    except BrokenPipeError:
        _drop_output()
        return CLOSED
    except UniverSegError as error:
        return _fail(program, str(error), 1)
    except ModuleNotFoundError as error:
        return report_missing(program, error)
    except KeyboardInterrupt:
        return _fail(program, "interrupted", INTERRUPTED)


def report_missing(program: str, error: ModuleNotFoundError) -> int:
    """Prints the package that a command misses with the cure; returns the exit status.

    Raises the error again where a part of the project itself is missing.
    """
    if (error.name or "").startswith("universeg_rt"):
        raise error
    extra = next((extra for part, extra in EXTRAS.items() if part in program), "")
    return _fail(program, f"the package {error.name} is missing; {install_hint(extra)}", 1)


@contextmanager
def importing(module: str, program: str) -> Iterator[None]:
    """Around the imports of a module that is also a command; module: its `__name__`.

    Run as the command, a missing package ends it as `report_missing` says; imported, the error passes.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if module != "__main__":
            raise
        raise SystemExit(report_missing(program, error)) from None


def add_runner_options(parser: argparse.ArgumentParser) -> None:
    """--bundle, --runner, --precision and --threads, for `Segmenter.open` to check."""
    from ..precision import PRECISIONS
    from ..runners import RUNNERS

    parser.add_argument("--bundle", type=Path, help="bundle folder (the shipped one)")
    parser.add_argument("--runner", default="auto", help=f"auto, {', '.join(RUNNERS)} (auto)")
    parser.add_argument("--precision", default="auto", help=f"auto, {', '.join(PRECISIONS)} (auto)")
    parser.add_argument("--threads", type=int, help="of a CPU runner")


def child_arguments(program: str, parent: str, *names: str) -> list[str]:
    """The arguments of a process that the command `parent` starts; exits with 2 unless they are as many as `names`."""
    given = sys.argv[1:]
    if len(given) != len(names):
        raise SystemExit(_fail(program, f"{parent} starts this, with {' '.join(names)}; run {parent} instead", 2))
    return given


def say(text: str) -> None:
    """Print a line to stderr, whose reader may be gone."""
    try:
        print(text, file=sys.stderr, flush=True)
    except OSError:
        pass


def _fail(program: str, message: str, status: int) -> int:
    say(f"{program}: {' '.join(message.splitlines())}")
    return status


def _drop_output() -> None:
    """Sends what closed streams still buffer to nowhere, or the interpreter complains of it as it ends."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BrokenPipeError:
            os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


@contextmanager
def _terminated_like_interrupted() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield  # signals belong to the main thread
        return

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
