"""Files and folders that are written whole or not at all: a temporary name beside the target, then a rename."""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Iterator

from .errors import OutputError


@contextmanager
def write_file(path: str | os.PathLike) -> Iterator[BinaryIO]:
    """Open a binary file that appears at `path` only if the block ends without an error.

    Raises OutputError where the folder does not exist or cannot be written.
    """
    path = Path(path)
    try:
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}; choose a folder that can be written") from None
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException as error:
        _remove_quietly(temporary)
        if isinstance(error, OSError) and not isinstance(error, OutputError):
            raise OutputError(f"cannot write {path}: {error.strerror or error}") from error
        raise


@contextmanager
def write_folder(path: str | os.PathLike) -> Iterator[Path]:
    """Give a temporary folder that becomes `path` only if the block ends without an error.

    A folder already at `path` is replaced as the last step, and stays as it was when anything fails.
    Raises OutputError where the parent cannot be written.
    """
    path = Path(path).absolute()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent))
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}; choose a folder that can be written") from None
    try:
        yield temporary
        os.chmod(temporary, 0o777 & ~_umask())
        old = None
        if path.exists():
            old = temporary.with_name(temporary.name + ".old")
            os.rename(path, old)
        try:
            os.rename(temporary, path)
        except OSError:
            if old is not None:
                os.rename(old, path)
            raise
        if old is not None:
            shutil.rmtree(old, ignore_errors=True)
    except BaseException as error:
        shutil.rmtree(temporary, ignore_errors=True)
        if isinstance(error, OSError) and not isinstance(error, OutputError):
            raise OutputError(f"cannot write {path}: {error.strerror or error}") from error
        raise


@contextmanager
def writing(path: str | os.PathLike) -> Iterator[None]:
    """Raise OutputError for whatever the system refuses in the block, which writes at `path`."""
    try:
        yield
    except OutputError:
        raise
    except (OSError, ValueError) as error:  # a ValueError is what Python says of a path with a null byte
        why = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise OutputError(f"cannot write {path}: {why}; choose another place") from None


def make_folder(path: str | os.PathLike) -> Path:
    """The folder, made with its parents where it was not there; OutputError where no file can be written into it."""
    with writing(path):
        os.makedirs(path, exist_ok=True)
        tempfile.TemporaryFile(dir=path).close()  # finds out now rather than after what takes long
    return Path(path)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _remove_quietly(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        pass
