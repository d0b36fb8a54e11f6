"""Reads what others wrote: one wrapper turns whatever a foreign reader trips over into a typed error with the file and
the cure."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from ..errors import InputError, UniverSegError

if TYPE_CHECKING:
    from ..named_types import AnyPath

MAX_REASON = 200  # characters: some readers quote the file


@contextmanager
def reading(what: str, path: AnyPath, error: type[UniverSegError] = InputError, *,
            cure: str = "write or copy it again", quote: bool = True) -> Iterator[None]:
    """Raise `error` for anything that goes wrong in the block, which reads the file at `path`; also a decorator.

    what: what the file should be, with its article ("an image"). cure: what to do about a file that cannot be read.
    quote: whether the error tells what the reader said, which may quote the file; else only that error's type.
    Raises at once where `path` is not a regular file (a folder, a FIFO, a device). Our own errors, a missing package
    and an interruption pass unchanged.
    """
    regular_file(path, error)
    with decoding(what, path, error, cure=cure, quote=quote):
        yield


@contextmanager
def decoding(what: str, path: AnyPath, error: type[UniverSegError] = InputError, *,
             cure: str = "write or copy it again", quote: bool = True) -> Iterator[None]:
    """As `reading`, for bytes at hand that came from the file called `path`."""
    try:
        yield
    except (UniverSegError, ModuleNotFoundError, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except FileNotFoundError:
        raise error(f"{path} does not exist") from None
    except MemoryError:
        raise error(
            f"{path} cannot be read as {what} (there is not enough memory for it); give a smaller one") from None
    except BaseException as caught:  # panics of readers in Rust do not derive from Exception
        why = reason(caught) if quote else type(caught).__name__
        raise error(f"{path} cannot be read as {what} ({why}); {cure}") from None


def regular_file(path: AnyPath, error: type[UniverSegError] = InputError) -> Path:
    """The path, where a regular file lies there (or a link to one); else raise `error`, without opening anything."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        raise error(f"{path} does not exist") from None
    except (OSError, ValueError) as caught:
        raise error(f"{_shown(str(path))} cannot be read ({reason(caught)}); give the path of a regular file") from None
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "a pipe or a device"
        raise error(f"{path} is {kind}; give a regular file")
    return Path(path)


def sha256_of(path: AnyPath, error: type[UniverSegError] = InputError) -> str:
    """sha256 of a regular file, in hexadecimal, a piece at a time."""
    digest = hashlib.sha256()
    with reading("a file", path, error), open(path, "rb") as file:
        while piece := file.read(2**20):
            digest.update(piece)
    return digest.hexdigest()


def path_of(path: object, error: type[UniverSegError] = InputError) -> Path:
    """A path given as text or as a path object; `error` for anything else."""
    try:
        return Path(os.fsdecode(path))  # type: ignore[arg-type]  # a TypeError says that it is none
    except TypeError:
        raise error(f"the path is a {type(path).__name__}; give text or a pathlib.Path") from None


def is_folder(path: Path) -> bool:
    """Whether a folder lies there; False where that cannot be found out, which opening it says better."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def refuse_folder(error: OSError) -> NoReturn:
    """Raise InputError for a folder that cannot be listed; `onerror` of os.walk."""
    raise InputError(f"{error.filename} cannot be read ({reason(error)}); give a folder that can be") from None


def reason(caught: BaseException) -> str:
    """An exception in one short line: its message, or its type where it has none."""
    if isinstance(caught, OSError) and caught.strerror:
        return caught.strerror
    lines = str(caught).strip().splitlines()
    if isinstance(caught, KeyError) or not lines:  # a KeyError's message is the bare key
        return " ".join([type(caught).__name__, *(lines[:1])])
    return _shown(lines[0])


def _shown(text: str) -> str:
    text = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
    return text if len(text) <= MAX_REASON else f"{text[: MAX_REASON - 3]}..."
