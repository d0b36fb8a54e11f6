"""How a runner is started: what `Segmenter.open` is told beside the bundle, the runner and the precision."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

from ..environment import said
from ..errors import InputError
from ..storage.cache import cache_folder
from ..storage.reading import path_of
from .threads import check_threads

if TYPE_CHECKING:
    from ..named_types import AnyPath


@dataclass(frozen=True)
class Options:
    """Each runner reads those that concern it. None takes what the environment variable says (`UNIVERSEG_RT_` and the
    name in capitals, but for threads), else the default.

    threads: of a CPU runner (one a core). device: the GPU's number (0). tf32: let float32 products of
    `onnxruntime-cuda` be rounded to TF32 (no; the variable: 1). plugin: plugin libraries for TensorRT that are not in
    their usual place (the variable: separated as in PATH). cache: folder for what can be made again (the user's cache
    folder). instructions: of the native runner, such as `plain` (auto). engines: files of engines that were built for a
    frozen task (those beside its file). Raises InputError for a value of a wrong kind.
    """

    threads: int | None = None
    device: int | None = None
    tf32: bool | None = None
    plugin: AnyPath | Sequence[AnyPath] | None = None
    cache: AnyPath | None = None
    instructions: str | None = None
    engines: Sequence[AnyPath] | None = None

    def __post_init__(self) -> None:
        check_threads(self.threads)
        if self.device is not None and (
            isinstance(self.device, bool) or not isinstance(self.device, int) or self.device < 0
        ):
            raise InputError(f"device is {self.device!r}; give the GPU's number, 0 for the first")
        if not isinstance(self.tf32, bool | None):
            raise InputError(f"tf32 is {self.tf32!r}; give True or False")
        if not isinstance(self.instructions, str | None):
            raise InputError(f"instructions is {self.instructions!r}; give a text, or None for the default")
        if self.plugin is not None:
            given = (self.plugin,) if isinstance(self.plugin, (str, os.PathLike)) else self.plugin
            if not isinstance(given, Sequence):
                raise InputError(f"plugin is a {type(given).__name__}; give a path or a list of paths")
            object.__setattr__(self, "plugin", tuple(path_of(path) for path in given))
        if self.engines is not None:
            object.__setattr__(self, "engines", tuple(path_of(path) for path in self.engines))
        if self.cache is not None:
            object.__setattr__(self, "cache", path_of(self.cache))

    @property
    def use_tf32(self) -> bool:
        return said("tf32") == "1" if self.tf32 is None else self.tf32

    @property
    def plugins(self) -> tuple[Path, ...]:
        """Plugin libraries that are named, in order."""
        named = (said("plugin") or "").split(os.pathsep) if self.plugin is None else self.plugin
        return tuple(Path(path) for path in named if path)  # type: ignore[union-attr]  # a tuple since __post_init__

    @property
    def cache_folder(self) -> Path:
        return cache_folder() if self.cache is None else Path(self.cache)

    @property
    def instruction_set(self) -> str:
        return self.instructions or said("instructions") or "auto"

    def __repr__(self) -> str:
        given = ((field.name, getattr(self, field.name)) for field in fields(self))
        return f"Options({', '.join(f'{name}={value!r}' for name, value in given if value is not None)})"
