"""Maps of a volume that is being segmented: mapped from files, so that memory does not grow with the volume, and kept
when the run is interrupted, so that `--resume` goes on at the slice where it stood."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import InputError
from ..named_types import Array
from ..storage.atomic import write_json, writing
from ..storage.reading import reading
from ..volumes.scratch import take_room

FOLDER = ".partial"  # below --output; hidden, so that no run reads it as its input
STATE = "state.json"


class Partial:
    """Maps of one volume in a folder of its own, and how far they are.

    done: slices that are whole, from the first. facts: of each of these, as `advance` was given them.
    """

    def __init__(
        self, folder: Path, made_of: Mapping[str, Any], kinds: Mapping[str, tuple[tuple[int, ...], npt.DTypeLike]]
    ) -> None:
        """Go on with what lies in the folder if it was made of the same things, else begin anew.

        made_of: plain values that the maps depend on. kinds: shape and type of each map by name. Raises OutputError
        where the folder cannot be written.
        """
        self._folder = folder
        self._made_of = json.loads(json.dumps(dict(made_of)))
        sizes = {self._file(name): math.prod(shape) * np.dtype(kind).itemsize for name, (shape, kind) in kinds.items()}
        whole = all(file.is_file() and file.stat().st_size == size for file, size in sizes.items())
        self.done, self.facts = self._earlier() if whole else (0, [])
        with writing(folder):
            if not self.done:
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir(parents=True)
            self.maps = {name: self._mapped(name, shape, np.dtype(kind)) for name, (shape, kind) in kinds.items()}

    def advance(self, facts: list[dict[str, Any]]) -> None:
        """The next slices, one of `facts` each, are in the maps."""
        for each in self.maps.values():
            each.flush()  # type: ignore[attr-defined]  # of a mapped array
        self.facts += facts
        self.done += len(facts)
        write_json(self._folder / STATE, {"made_of": self._made_of, "done": self.done, "facts": self.facts})

    def remove(self) -> None:
        """The volume is written: nothing of this is needed any more."""
        self.maps.clear()
        shutil.rmtree(self._folder, ignore_errors=True)
        for folder in self._folder.parents:
            try:
                folder.rmdir()  # those that are empty now, up to FOLDER
            except OSError:
                return
            if folder.name == FOLDER:
                return

    def _mapped(self, name: str, shape: tuple[int, ...], kind: np.dtype[Any]) -> Array:
        with open(self._file(name), "r+b" if self.done else "w+b") as file:
            take_room(file, math.prod(shape) * kind.itemsize)
            return np.memmap(file, kind, "r+", 0, shape)

    def _earlier(self) -> tuple[int, list[dict[str, Any]]]:
        path = self._folder / STATE
        try:
            with reading("the state of an interrupted volume", path):
                found = json.loads(path.read_bytes())
                done, facts = found["done"], found["facts"]
                same = found["made_of"] == self._made_of and isinstance(done, int) and len(facts) == done
        except InputError:  # there is none, or it is damaged: the volume is begun anew
            return 0, []
        return (done, facts) if same else (0, [])

    def _file(self, name: str) -> Path:
        return self._folder / f"{name}.map"


def discard(output: Path) -> None:
    """Removes what interrupted runs left below --output."""
    shutil.rmtree(output / FOLDER, ignore_errors=True)
