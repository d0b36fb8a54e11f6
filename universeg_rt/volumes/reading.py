"""Reads volumes and their labels from whatever file or folder holds them."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..errors import InputError, SeveralError
from ..imaging.files import add_named, image_files
from ..named_types import AnyPath, Array
from ..storage.reading import is_folder, path_of, refuse_folder, regular_file
from .alignment import in_order_of
from .dicom import ENDINGS as DICOM_ENDINGS
from .dicom import dicom_files, read_dicom, role_of
from .frames import is_dicom
from .nifti import ENDINGS as NIFTI_ENDINGS
from .nifti import is_nifti, read_nifti
from .scratch import mapped_by_slices, present, slices_of
from .segmentation import is_segmentation, read_segmentation
from .stack import is_stack, read_stack
from .volume import LabelVolume, Volume

ACCEPTED = "NIfTI (.nii, .nii.gz), a folder of one DICOM series, a DICOM file, a TIFF of several pages"
MOST_LABEL = 2**16 - 1  # a greater value cannot be written again


def read_volume(path: AnyPath, *, time: int | None = None, series: str | int | None = None) -> Volume:
    """A volume: NIfTI, DICOM (a folder of one series, or a file), or the pages of a TIFF.

    time: which volume of a NIfTI file with a fourth axis. series: the number, from 1, of one of several in a DICOM
    folder; the error that counts them lists them. Values are mapped from files and take no memory until they are looked
    at. Raises InputError that names the file, what is wrong with it and the cure.
    """
    path = path_of(path)
    if is_nifti(path):
        _refuse(path, "series", series)
        return read_nifti(path, time)
    _refuse(path, "time", time)
    if is_stack(path):
        _refuse(path, "series", series)
        return read_stack(path)
    if is_folder(path) or path.suffix.lower() in DICOM_ENDINGS or is_dicom(path):
        return read_dicom(path, series)
    regular_file(path)
    raise InputError(f"{path} is no volume; accepted: {ACCEPTED}")


def read_chosen(path: AnyPath, time: int | None, series: str | int | None) -> Volume:
    """As `read_volume`, where time and series are said of those files among others that hold several."""
    path = path_of(path)
    try:
        return read_volume(path)
    except SeveralError:
        return read_volume(path, time=time) if is_nifti(path) else read_volume(path, series=series)


def label_values(path: AnyPath) -> set[float] | None:
    """Up to three of the values in a label file; None of a Segmentation, whose values have names."""
    path = path_of(path)
    if is_segmentation(path):
        return None
    there: set[float] = set()
    for part in slices_of(_label_volume(path).values):
        there.update(present(part)[:3].tolist())
        if len(there) > 2:
            break
    return there


def _label_volume(path: Path) -> Volume:
    return read_stack(path, label=True) if is_stack(path) else read_volume(path)


def read_labels(path: AnyPath, like: Volume, *, mask: tuple[float, float] | None = None) -> LabelVolume:
    """The label map of a volume, on the same voxels: NIfTI, a DICOM Segmentation of its series, or the pages of a TIFF.

    Axes may stand in another order or run the other way, as in NIfTI made of a DICOM series: they are put as the
    volume's, nothing is resampled. Values are whole numbers from 0, the background, to 65,535. mask: two values of any
    kind that stand for the background and the one label, which keeps its value where it may be a label's, else is 1.
    Raises InputError as `read_volume` and where values are others, GeometryError where the labels do not lie on the
    volume's voxels.
    """
    path = path_of(path)
    if is_segmentation(path):
        return read_segmentation(path, like)
    found = _label_volume(path)
    values, geometry, axes = in_order_of(like.geometry, found.values, found.geometry)
    found = replace(found, values=values, geometry=geometry, acquired=axes[found.acquired])
    like.geometry.check_same(found.geometry, str(like.files[0] if like.files else "the volume"), str(path))
    if mask is not None:
        found = replace(found, values=_marked(found.values, mask[1]))
    values, there = _whole(path, found)
    return LabelVolume(values, like.geometry, {value: f"label {value}" for value in there}, found.notes)


def find_volumes(folder: AnyPath) -> dict[str, Path]:
    """All volumes below a folder by their path in it without the ending (`p1/001`), sorted by it.

    A folder with slices of DICOM series is one; a DICOM file of several frames, a radiograph and a Segmentation are
    each one by itself. Hidden files and folders are left out. InputError where two have the same name, or none is
    there.
    """
    found = volumes_below(folder)
    if not found:
        raise InputError(f"{folder} holds no volumes; accepted: {ACCEPTED}")
    return found


def volumes_below(folder: AnyPath, leave_out: Callable[[Path], bool] | None = None) -> dict[str, Path]:
    """As `find_volumes`, empty where none is there. leave_out: says of a subfolder whether it is left out."""
    folder = path_of(folder)
    if not is_folder(folder):
        raise InputError(f"{folder} is not a folder")
    found: dict[str, Path] = {}
    for root, folders, files in os.walk(folder, onerror=refuse_folder):
        folders[:] = sorted(name for name in folders
                            if not name.startswith(".") and not (leave_out and leave_out(Path(root) / name)))
        here = Path(root)
        roles = {file: role_of(file) for file in dicom_files(here)}
        for file in sorted(here / name for name in files if not name.startswith(".")):
            if roles[file] == "alone" if file in roles else is_nifti(file) or is_stack(file):
                add_named(found, stem_of(file.relative_to(folder)), file)
        if "slice" in roles.values():
            add_named(found, here.relative_to(folder).as_posix() if here != folder else here.resolve().name, here)
    return dict(sorted(found.items()))


def pictures_beside(folder: Path, volumes: Mapping[str, Path]) -> list[Path]:
    """All image files below a folder that are none of its volumes, as `volumes_below` gives them."""
    held = set(volumes.values())
    return [file for file in image_files(folder) if file not in held]


def is_volume(path: AnyPath) -> bool:
    """Whether a volume may be read from a file or folder, by its name and first bytes."""
    path = path_of(path)
    if is_folder(path):
        return bool(dicom_files(path))
    return is_nifti(path) or is_stack(path) or path.suffix.lower() in DICOM_ENDINGS or is_dicom(path)


def stem_of(path: Path) -> str:
    """The path without its ending, of which `.nii.gz` is one."""
    ending = next((e for e in sorted(NIFTI_ENDINGS, key=len, reverse=True) if path.name.lower().endswith(e)), None)
    return (path.with_name(path.name[:-len(ending)]) if ending else path.with_suffix("")).as_posix()


def _refuse(path: Path, name: str, value: object) -> None:
    if value is not None:
        raise InputError(f"{name} is {value!r}, but {path} has none to choose from; leave it out")


def _marked(values: Array, high: float) -> Array:
    """A label volume that holds a label where the values are `high`, and 0 elsewhere."""
    value = int(high) if 0 < high <= MOST_LABEL and high % 1 == 0 else 1
    return mapped_by_slices(values, np.uint16, lambda part: np.where(part == high, value, 0))


def _whole(path: Path, found: Volume) -> tuple[Array, list[int]]:
    """The values as unsigned integers, and which there are but 0."""
    there: set[int] = set()
    for part in slices_of(found.values):
        values = present(part)
        if values.dtype.kind == "f" and (values != np.round(values)).any():
            raise InputError(f"{path} is no label map: it holds {values[values != np.round(values)][0]:g}; give whole "
                             "numbers, 0 for the background; probabilities must be cut first, for example at 0.5")
        if values[0] < 0 or values[-1] > MOST_LABEL:
            raise InputError(f"{path} is no label map: it holds {values[0] + 0:g} to {values[-1] + 0:g}; accepted: 0, "
                             f"the background, to {MOST_LABEL}; give labels other numbers")
        there.update(int(v) for v in values)
    there.discard(0)
    if found.values.dtype.kind == "u":
        return found.values, sorted(there)
    kind = np.uint8 if max(there, default=0) <= 255 else np.uint16
    return mapped_by_slices(found.values, kind, lambda part: part.astype(kind)), sorted(there)
