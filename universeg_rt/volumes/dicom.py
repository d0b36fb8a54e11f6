"""DICOM in: one series of a folder, or a file of one or several frames, as a volume; geometry by highdicom."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ..errors import InputError, SeveralError, shown
from ..imaging.normalisation import Window
from ..named_types import Array, Vendor
from ..storage.reading import is_folder, refuse_folder
from .frames import Frame, NotAnImage, header_of, is_dicom, read_frames, reading_dicom, values_of
from .geometry import Geometry
from .scratch import scratch_array
from .series import order_frames
from .volume import Volume

ENDINGS = (".dcm", ".dicom", ".ima")
INDEX = "DICOMDIR"  # of a medium, not an image


@dataclass(frozen=True, eq=False)
class Source:
    """What a DICOM Segmentation references. geometry: highdicom.VolumeGeometry, or None."""

    frames: tuple[Frame, ...]
    geometry: Vendor | None


def read_dicom(path: Path, series: str | int | None) -> Volume:
    """A volume (slices, rows, columns): of a folder its one series, or the one of that number (from 1, in the order in
    which an error lists them); of a file its frame or frames. Frames are decoded one by one into a temporary file.

    Raises InputError that names the file or folder, what is wrong and the cure; none quotes a header's text.
    """
    notes: list[str] = []
    if is_folder(path):
        chosen = _chosen(path, _series(path, notes), series)
    else:
        chosen = read_frames(path)
        if series is not None:
            raise InputError(f"series is {shown(series)}, but {path} is one file; leave it out, or give its folder")
    frames, geometry = order_frames(path, chosen, notes)
    affine = None if geometry is None else np.array(geometry.get_affine("RAH"), np.float64)
    if frames[0].colour:
        notes.append("colour was read as its luminance")
    if frames[0].inverted:
        notes.append("its greys are stored inverted and were turned over")
    values = _values(frames)
    shape = (len(frames), *frames[0].size)
    files = tuple(dict.fromkeys(frame.file for frame in frames))
    return Volume(values, Geometry(shape, affine), 0, "dicom", files, frames[0].modality,
                  _window(frames[len(frames) // 2]), tuple(notes), Source(tuple(frames), geometry))


def dicom_files(folder: Path) -> list[Path]:
    """The DICOM files that lie in a folder itself, sorted; also those that are DICOM by their name alone."""
    return [file for file in _files(folder) if file.name != INDEX
            and (file.suffix.lower() in ENDINGS or is_dicom(file))]


def _files(folder: Path) -> list[Path]:
    try:
        return sorted(file for file in folder.iterdir() if not file.name.startswith(".") and file.is_file())
    except OSError as error:
        refuse_folder(error)


def role_of(path: Path) -> Literal["slice", "alone", "other"]:
    """What a DICOM file is in a folder: a slice of a series, a volume or picture by itself (several frames, or no place
    in the patient; also what is broken, which reading it says), or no image."""
    try:
        with reading_dicom(path):
            header = header_of(path, ("NumberOfFrames", "ImagePositionPatient", "Rows"))
            if "Rows" not in header:
                return "other"
            several = int(header.get("NumberOfFrames") or 1) > 1
            return "alone" if several or "ImagePositionPatient" not in header else "slice"
    except InputError:
        return "alone"


def _series(folder: Path, notes: list[str]) -> list[list[Frame]]:
    """The series in a folder, each its frames; in the order of their first files."""
    found: dict[str, list[Frame]] = {}
    files = dicom_files(folder)
    other = len(_files(folder)) - len(files)
    for file in files:
        try:
            for frame in read_frames(file):
                found.setdefault(frame.series, []).append(frame)
        except NotAnImage:
            other += 1
    if other:
        notes.append(f"{other} files of its folder are not DICOM images and were left out")
    if not found:
        raise InputError(f"{folder} holds no DICOM images; give the folder that the images of a series lie in")
    return list(found.values())


def _chosen(folder: Path, found: list[list[Frame]], series: str | int | None) -> list[Frame]:
    if series is None and len(found) == 1:
        return found[0]
    lines = []
    for number, frames in enumerate(found, 1):
        first = frames[0]
        kind = f"{first.modality or 'images'}{' localizer' if first.localizer else ''}"
        lines.append(f"{number}: {len(frames)} of {first.size[0]}x{first.size[1]} {kind}")
    said = "; ".join(lines[:20]) + ("; ..." if len(lines) > 20 else "")
    if series is None:
        raise SeveralError(f"{folder} holds {len(found)} series ({said}); say which one with series, 1 to "
                           f"{len(found)}, or put each into a folder of its own")
    if str(series) not in map(str, range(1, len(found) + 1)):
        raise InputError(f"series is {shown(series)}; {folder} holds 1 to {len(found)} ({said})")
    return found[int(series) - 1]


def _values(frames: Sequence[Frame]) -> Array:
    """(slices, rows, columns) of the stored type, or float32 (float64 for values of 32 bits) once it is rescaled."""
    values: Array | None = None
    plain = all(frame.plain for frame in frames)
    at = {(frame.file, frame.index): place for place, frame in enumerate(frames)}
    of_files: dict[Path, list[Frame]] = {}
    for frame in frames:
        of_files.setdefault(frame.file, []).append(frame)
    for file, those in of_files.items():
        for frame, part in zip(those, values_of(file, those)):
            if values is None:
                wide: Any = np.float64 if frame.bits > 16 else np.float32
                kind = part.dtype.newbyteorder("=")
                kept = plain or frames[0].colour
                values = scratch_array((len(frames), *frames[0].size), kind if kept else wide)
            if (plain or frames[0].colour) and part.dtype.newbyteorder("=") != values.dtype:
                raise InputError(f"{file} holds values of type {part.dtype}, others of the series {values.dtype}; "
                                 "export the series again")
            values[at[frame.file, frame.index]] = part
    assert values is not None  # a series has a frame
    return values


def _window(frame: Frame) -> Window | None:
    """What a frame proposes to show, in its own units; turned over where its greys are."""
    if frame.window is None or frame.colour:
        return None
    centre, width = frame.window
    if frame.inverted:
        low = -2**(frame.bits - 1) if frame.signed else 0
        centre = frame.slope * (2 * low + 2**frame.bits - 1) + 2 * frame.intercept - centre
    return Window(centre - width / 2, centre + width / 2)
