"""Writes answers where the input lies: label maps and maps of real values, by the ending of the file's name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..named_types import AnyPath, Array
from ..storage.reading import path_of
from .nifti import ENDINGS as NIFTI_ENDINGS
from .nifti import is_nifti, write_nifti
from .segmentation import UnreferencedError, can_reference, write_segmentation
from .stack import ENDINGS as STACK_ENDINGS
from .stack import write_stack
from .volume import Volume

SEGMENTATION_ENDING = ".dcm"
TYPES = (np.uint8, np.uint16)  # of label maps: every reader knows them


def write_labels(path: AnyPath, values: Array, names: Mapping[int, str], like: Volume) -> None:
    """A label map, whole or not at all: NIfTI (`.nii`, `.nii.gz`) with the input's affine, shape, codes and units, a
    DICOM Segmentation (`.dcm`) that references the input's series, or a multi-page TIFF (`.tif`).

    values: (I,J,K) integers or bool, 0 for the background; the smallest of uint8 and uint16 that holds them is written.
    names: of the labels by value, also of those that mark nothing. Raises InputError where the ending does not fit what
    was read, or values do not; OutputError where the file cannot be written.
    """
    path = path_of(path)
    values = _checked(values, names, like)
    if is_nifti(path):
        _check_affine(path, like)
        write_nifti(path, values, like.geometry, like.header if like.kind == "nifti" else None, labels=True)
    elif path.suffix.lower() in STACK_ENDINGS:
        write_stack(path, values)
    elif path.suffix.lower() == SEGMENTATION_ENDING and like.kind == "dicom":
        write_segmentation(path, values, names, like)
    else:
        raise InputError(f"{path} has no ending that a label map of {like.kind} is written with; accepted: "
                         f"{', '.join(_endings(like))}")


def write_labels_beside(stem: AnyPath, values: Array, names: Mapping[int, str], like: Volume, notes: list[str]) -> str:
    """`write_labels` in the format that fits the input (`labels_ending`); returns the ending that the path `stem` got.

    Where the headers of a DICOM series break what a Segmentation needs, the label map is NIfTI, and a note says so.
    """
    stem, ending = path_of(stem), labels_ending(like)
    try:
        write_labels(stem.with_name(stem.name + ending), values, names, like)
    except UnreferencedError as error:
        ending = map_ending(like)
        notes.append(f"{error}; its label map is {ending}")
        write_labels(stem.with_name(stem.name + ending), values, names, like)
    return ending


def write_map(path: AnyPath, values: Array, like: Volume) -> None:
    """A map of real values (I,J,K), such as probabilities or spread, as float32: NIfTI (`.nii`, `.nii.gz`) with the
    input's affine, also beside DICOM; a multi-page TIFF (`.tif`) beside a stack. Errors as `write_labels`."""
    path = path_of(path)
    _check_shape(values, like)
    if is_nifti(path):
        _check_affine(path, like)
        header = like.header if like.kind == "nifti" else None
        write_nifti(path, values.astype(np.float32, copy=False), like.geometry, header)
    elif path.suffix.lower() in STACK_ENDINGS:
        write_stack(path, values.astype(np.float32, copy=False))
    else:
        raise InputError(f"{path} has no ending that a map is written with; accepted: "
                         f"{', '.join((*NIFTI_ENDINGS, *STACK_ENDINGS))}")


def labels_ending(like: Volume) -> str:
    """The ending of label maps beside a volume: a DICOM Segmentation where one can reference what was read."""
    return SEGMENTATION_ENDING if can_reference(like) else map_ending(like)


def map_ending(like: Volume) -> str:
    """The ending of maps of real values beside a volume."""
    return STACK_ENDINGS[0] if like.geometry.affine is None else NIFTI_ENDINGS[1]


def _endings(like: Volume) -> tuple[str, ...]:
    return (*(NIFTI_ENDINGS if like.geometry.affine is not None else ()), *STACK_ENDINGS,
            *((SEGMENTATION_ENDING,) if like.kind == "dicom" else ()))


def _check_affine(path: Path, like: Volume) -> None:
    if like.geometry.affine is None:
        raise InputError(f"{path} is NIfTI, which says where voxels lie, and the input does not; accepted: "
                         f"{', '.join(_endings(like))}")


def _check_shape(values: Array, like: Volume) -> None:
    if values.shape != like.geometry.shape:
        raise InputError(f"the values have shape {values.shape}, the volume {like.geometry.shape}; they must be the "
                         "same")


def _checked(values: Array, names: Mapping[int, str], like: Volume) -> Array:
    """Of the smallest type that holds the values and the names."""
    _check_shape(values, like)
    if values.dtype.kind not in "biu":
        raise InputError(f"the label map has type {values.dtype}; accepted: integers or bool")
    most = max(int(values.max()), *names, 0)
    if int(values.min()) < 0 or most > np.iinfo(TYPES[-1]).max:
        raise InputError(f"the label map holds {values.min()} to {most}; accepted: 0 to {np.iinfo(TYPES[-1]).max}")
    kind = next(kind for kind in TYPES if most <= np.iinfo(kind).max)
    return values.astype(kind, copy=False)
