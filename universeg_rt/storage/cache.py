"""Where the SDK keeps what can be made again: the user's cache folder, and files in it that are whole or not there."""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path

from ..environment import said, variable
from ..errors import OutputError
from .atomic import write_file

VARIABLE = variable("cache")


def cache_folder() -> Path:
    """$UNIVERSEG_RT_CACHE, else `universeg_rt` in the user's cache folder; it need not exist."""
    if named := said("cache"):
        return Path(named)
    if sys.platform == "win32" and os.environ.get("LOCALAPPDATA"):
        return Path(os.environ["LOCALAPPDATA"]) / "universeg_rt" / "cache"
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / (".cache"
                                                              if sys.platform != "darwin" else "Library/Caches")
    return Path(base) / "universeg_rt"


class CachedFiles:
    """Files of bytes in one folder, each behind its own sha256; `notes` says what could not be used or written, and
    why."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.notes: list[str] = []

    def read(self, name: str) -> bytes | None:
        """The bytes last written under a name, or None where there are none, or not those."""
        path = self.folder / name
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            self._note(f"the cache {self.folder} cannot be read ({error.strerror})")
            return None
        digest, content = data[:32], data[32:]
        if hashlib.sha256(content).digest() != digest:
            self._note(f"{path} was damaged and is made again")
            return None
        return content

    def write(self, name: str, content: bytes) -> None:
        """Keep bytes under a name; where that cannot be, note it and go on."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with write_file(self.folder / name) as file:
                file.write(hashlib.sha256(content).digest() + content)
        except OSError as error:  # OutputError is one
            reason = error.strerror if not isinstance(error, OutputError) else None
            self._note(
                f"the cache {self.folder} cannot be written ({reason or error}); set cache in Segmenter.open, or "
                f"{VARIABLE}")

    def _note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)
