"""Volume: grey values with their geometry, and what is needed to write an answer back beside them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ..imaging.normalisation import Window
from ..named_types import Array
from .geometry import Geometry

Kind = Literal["nifti", "dicom", "stack"]


@dataclass(frozen=True, eq=False)
class Volume:
    """values: (I,J,K) of a real type, rescaled to the modality's units; it may be mapped from a file. acquired: the
    array axis along which slices were acquired. kind, files: what it was read from. modality: as DICOM names it (`CT`,
    `MR`), else empty. window: what the file proposes to show. notes: what was done to it or is rarely meant. header:
    what the writer of the same kind needs, and nobody else reads.
    """

    values: Array
    geometry: Geometry
    acquired: int
    kind: Kind
    files: tuple[Path, ...]
    modality: str = ""
    window: Window | None = None
    notes: tuple[str, ...] = ()
    header: Any = field(default=None, repr=False)


@dataclass(frozen=True, eq=False)
class LabelVolume:
    """values: (I,J,K) integers, 0 for the background. names: of the labels that are there, by value; a file without
    names gives `label 1` and so on."""

    values: Array
    geometry: Geometry
    names: dict[int, str]
    notes: tuple[str, ...] = ()
