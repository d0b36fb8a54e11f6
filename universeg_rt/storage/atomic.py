"""Files and folders that are written whole or not at all: a temporary name beside the target, then a rename.

A killed process leaves its temporary behind. Each is locked while its process lives; the first write into a folder
removes those that are old and that nobody holds.
"""

from __future__ import annotations

import ctypes
import functools
import json
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from ..errors import OutputError

if TYPE_CHECKING:
    from ..named_types import AnyPath

TEMPORARY = ".universeg.tmp"  # after `.NAME.` and eight random characters
NEW, REPLACED = "new", "replaced"  # in the temporary of a folder
OLD = 3600.0  # seconds after which a temporary that nobody holds is left over
_OURS = re.compile(rf"\.(.+)\.[a-z0-9_]{{8}}{re.escape(TEMPORARY)}")
_EXCHANGE, _HERE = 2, -100  # RENAME_EXCHANGE, AT_FDCWD

_swept: set[Path] = set()


@contextmanager
def write_file(path: AnyPath) -> Iterator[BinaryIO]:
    """Open a binary file that appears at `path` only if the block ends without an error.

    Raises OutputError where the folder does not exist or cannot be written.
    """
    path = Path(path)
    check_folder_of(path)
    _sweep_once(path.parent)
    try:
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=TEMPORARY, dir=path.parent)
    except OSError as error:
        raise OutputError(
            f"cannot write {path}: {error.strerror or error}; choose a folder that can be written") from None
    try:
        with os.fdopen(handle, "wb") as file:
            _lock(file.fileno())
            yield file
            file.flush()
            os.fsync(file.fileno())
            if sys.platform != "win32":  # where an open file cannot be renamed
                _put(temporary, path)
        if sys.platform == "win32":
            _put(temporary, path)
    except BaseException as error:
        _remove(Path(temporary))
        if isinstance(error, OSError) and not isinstance(error, OutputError):
            raise OutputError(f"cannot write {path}: {error.strerror or error}") from error
        raise


def check_folder_of(path: Path) -> None:
    """OutputError where the folder in which a file is to be written does not exist."""
    if not path.parent.is_dir():
        raise OutputError(f"cannot write {path}: there is no folder {path.parent}; make it, or choose another")


def write_json(path: str | os.PathLike[str], value: object) -> None:
    """Write plain values as a JSON file for people too, as `write_file` does."""
    with write_file(path) as file:
        file.write((json.dumps(value, indent=2) + "\n").encode())


@contextmanager
def write_folder(path: AnyPath) -> Iterator[Path]:
    """Give a temporary folder that becomes `path` only if the block ends without an error.

    A folder already at `path` is replaced as the last step, and stays as it was when anything fails. Where the system
    can exchange two names there is always one of the two at `path`; elsewhere `recover_folder` brings back what a kill
    took away.
    Raises OutputError where the parent cannot be written.
    """
    path = Path(path).absolute()
    recover_folder(path)
    _sweep_once(path.parent)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=TEMPORARY, dir=path.parent))
    except OSError as error:
        raise OutputError(
            f"cannot write {path}: {error.strerror or error}; choose a folder that can be written") from None
    try:
        with _held(temporary):
            new = temporary / NEW
            new.mkdir()
            yield new
            if not os.path.lexists(path):
                os.rename(new, path)
            elif not _exchange(new, path):
                os.rename(path, temporary / REPLACED)
                os.rename(new, path)
            _remove(temporary)
    except BaseException as error:
        if not os.path.lexists(path) and (temporary / REPLACED).exists():
            os.rename(temporary / REPLACED, path)
        _remove(temporary)
        if isinstance(error, OSError) and not isinstance(error, OutputError):
            raise OutputError(f"cannot write {path}: {error.strerror or error}") from error
        raise


def recover_folder(path: AnyPath) -> None:
    """Puts back what was at `path` before, where a writer was killed between its two renames and left nothing."""
    path = Path(path).absolute()
    if os.path.lexists(path):
        return
    with suppress(OSError):
        for temporary, name in sorted(_temporaries(path.parent)):
            if name == path.name and (temporary / REPLACED).exists() and _is_free(temporary):
                os.rename(temporary / REPLACED, path)
                _remove(temporary)
                return


def _put(temporary: str, path: Path) -> None:
    os.chmod(temporary, 0o666 & ~_umask())
    os.replace(temporary, path)


def _exchange(one: Path, other: Path) -> bool:
    """Let two names change places in one step; False where the system or the file system cannot."""
    rename = _renameat2()
    return rename is not None and rename(_HERE, os.fsencode(one), _HERE, os.fsencode(other), _EXCHANGE) == 0


@functools.cache
def _renameat2() -> Callable[[int, bytes, int, bytes, int], int] | None:
    if sys.platform != "linux":
        return None
    try:
        function = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):  # a C library without it
        return None
    function.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
    return function


def _sweep_once(folder: Path) -> None:
    """Remove what killed processes left in a folder, the first time that this process writes there."""
    folder = Path(os.path.abspath(folder))
    if folder in _swept:
        return
    _swept.add(folder)
    with suppress(OSError):
        for path, name in _temporaries(folder):
            with suppress(OSError):
                if time.time() - path.lstat().st_mtime > OLD and _is_free(path):
                    if (path / REPLACED).exists():
                        recover_folder(folder / name)
                    _remove(path)


def _temporaries(folder: Path) -> list[tuple[Path, str]]:
    """Of whatever is written in a folder, each with the name that it will have there."""
    found = ((path, _OURS.fullmatch(path.name)) for path in folder.iterdir())
    return [(path, match[1]) for path, match in found if match]


def _lock(handle: int) -> bool:
    """Holds a file or folder as long as the handle, or its process, lasts;
    False where another does or none can tell."""
    try:
        import fcntl
    except ImportError:  # Windows, which lets nobody remove a file that is open
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Hold a folder while the block runs; without a lock where there are none."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:  # Windows opens no folder
        yield
        return
    try:
        _lock(handle)
        yield
    finally:
        os.close(handle)


def _is_free(path: Path) -> bool:
    """Whether no living process holds it."""
    if path.is_symlink():
        return False
    try:
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    except OSError:  # Windows opens no folder
        return sys.platform == "win32" and time.time() - path.lstat().st_mtime > 24 * OLD
    try:
        return _lock(handle)
    finally:
        os.close(handle)


@contextmanager
def writing(path: AnyPath) -> Iterator[None]:
    """Raise OutputError for whatever the system refuses in the block, which writes at `path`."""
    try:
        yield
    except OutputError:
        raise
    except (OSError, ValueError) as error:  # a ValueError is what Python says of a path with a null byte
        why = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise OutputError(f"cannot write to {path}: {why}; choose another place") from None


def make_folder(path: AnyPath) -> Path:
    """The folder, made with its parents where it was not there; OutputError where no file can be written into it."""
    with writing(path):
        os.makedirs(path, exist_ok=True)
        tempfile.TemporaryFile(dir=os.fspath(path)).close()  # finds out now rather than after what takes long
    return Path(path)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _remove(path: Path) -> None:
    """A file, link or folder, as far as it goes."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()
