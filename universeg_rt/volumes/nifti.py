"""NIfTI in and out, by nibabel: one three-dimensional volume, mapped from its file, and answers with its header."""

from __future__ import annotations

import gzip
import os
from pathlib import Path
from typing import IO, Any

import numpy as np

from ..errors import InputError, SeveralError, shown
from ..imaging.preprocess import MAX_PIXELS
from ..install import needed
from ..named_types import Array, Doubles, Vendor
from ..storage.atomic import write_file
from ..storage.reading import reading
from .geometry import Geometry
from .guards import quiet
from .scratch import PIECE, mapped_by_slices, scratch_file, slices_of
from .volume import Volume

ENDINGS = (".nii", ".nii.gz")
MILLIMETRES = {"meter": 1000.0, "mm": 1.0, "micron": 0.001, "unknown": 1.0}
# What says where the voxels lie; all else of a header may speak of the patient and is not copied.
PLACE = ("qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z",
         "srow_x", "srow_y", "srow_z", "xyzt_units", "dim_info")
SHEAR = 1e-6  # the volume of a voxel against that of a box of its edges: what is flatter has no inside
ANISOTROPIC = 1.05  # the greatest spacing against the next, above which slices were acquired along it


def is_nifti(path: Path) -> bool:
    """Whether the name ends as one of NIfTI's."""
    return path.name.lower().endswith(ENDINGS)


def read_nifti(path: Path, time: int | None) -> Volume:
    """The volume of a NIfTI-1 or -2 file; time: index into the fourth axis, where it has more than one entry.

    An uncompressed file is mapped, a compressed one is unpacked into a temporary file. Raises InputError naming the
    file where it is broken, has no three axes, colours, a singular affine, or values that are not finite.
    """
    nibabel = _nibabel()
    notes: list[str] = []
    with reading("a whole NIfTI volume", path), quiet(), open(path, "rb") as file:
        packed = path.name.lower().endswith(".gz")
        source: IO[Any] = gzip.GzipFile(fileobj=file, mode="rb") if packed else file  # type: ignore[assignment]
        header = _header(nibabel, source)
        shape, dtype = _three_axes(path, header, time), _real(path, header)
        voxels = shape[0] * shape[1] * shape[2]
        start = int(header.get_data_offset()) + (time or 0) * voxels * dtype.itemsize
        if start < header.single_vox_offset:
            raise ValueError(f"its data begin at byte {start}, inside its header")
        if packed:
            raw = _unpacked(source, start, shape, dtype)
        else:
            left = os.fstat(file.fileno()).st_size - start
            if left < voxels * dtype.itemsize:
                raise ValueError(f"its header says {voxels * dtype.itemsize} bytes of data, {left} follow")
            raw = np.memmap(file, dtype, "r", start, shape, "F")
        affine = _affine(path, header, notes)
        slope, intercept = header.get_slope_inter()
    _check_finite(path, raw)
    geometry = Geometry(shape, affine)
    values = _scaled(path, raw, 1.0 if slope is None else slope, 0.0 if slope is None else intercept)
    return Volume(values, geometry, _acquired(header, geometry), "nifti", (path,), notes=tuple(notes), header=header)


def write_nifti(path: Path, values: Array, geometry: Geometry, header: Vendor | None, *, labels: bool = False) -> None:
    """values (I,J,K) of their own type, whole or not at all; header: of the input's NIfTI file, whose affine, codes and
    units are kept to the bit; None takes the geometry's affine as that of the scanner."""
    nibabel = _nibabel()
    if header is None:
        image = nibabel.Nifti1Image(values, geometry.affine, dtype=values.dtype)
        image.set_sform(geometry.affine, "scanner")
        image.set_qform(geometry.affine, "scanner")
        image.header.set_xyzt_units("mm")
    else:
        kept = type(header)()
        for field in PLACE:
            kept[field] = header[field]
        kept["pixdim"][:4] = header["pixdim"][:4]
        kept.set_data_dtype(values.dtype)
        two = isinstance(header, nibabel.Nifti2Header)
        image = (nibabel.Nifti2Image if two else nibabel.Nifti1Image)(values, None, kept)
        # Shaping the header writes the distances between voxels anew where the number of axes changes.
        image.header["pixdim"][:4] = header["pixdim"][:4]
    if labels:
        image.header.set_intent("label")
    image.header.set_slope_inter(1, 0)
    with write_file(path) as file:
        if not path.name.lower().endswith(".gz"):
            image.to_stream(file)
            return
        with gzip.GzipFile(filename="", fileobj=file, mode="wb", compresslevel=1, mtime=0) as packed:
            image.to_stream(packed)


def _nibabel() -> Vendor:
    return needed("nibabel", "medical", "NIfTI")


def _header(nibabel: Vendor, source: IO[bytes]) -> Vendor:
    size = source.read(4)
    source.seek(0)
    second = 540 in (int.from_bytes(size, "little"), int.from_bytes(size, "big"))
    header = (nibabel.Nifti2Header if second else nibabel.Nifti1Header).from_fileobj(source)
    if header["magic"] != header.single_magic:
        raise ValueError("its header is not that of a single file with its data")
    return header


def _three_axes(path: Path, header: Vendor, time: int | None) -> tuple[int, int, int]:
    shape = tuple(int(n) for n in header.get_data_shape())
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if not 2 <= len(shape) <= 4 or min(shape) < 1:
        raise InputError(f"{path} has shape {shape}; accepted: three axes, or a fourth of which one entry is read; "
                         "save one volume of three axes")
    count = shape[3] if len(shape) == 4 else 1
    if time is None and count > 1:
        raise SeveralError(f"{path} holds {count} volumes, shape {shape}; say which one with time, 0 to {count - 1}")
    if time is not None and (isinstance(time, bool) or not isinstance(time, int) or not 0 <= time < count):
        raise InputError(f"time is {shown(time)}; {path} holds the times 0 to {count - 1}")
    spatial = (*shape[:3], 1)[:3]
    if (largest := np.sort(spatial)[1:].prod(dtype=object)) > MAX_PIXELS:
        raise InputError(f"{path} has slices of {largest:,} pixels; accepted: at most {MAX_PIXELS:,}; cut it first")
    return spatial[0], spatial[1], spatial[2]


def _real(path: Path, header: Vendor) -> np.dtype:
    dtype: np.dtype = header.get_data_dtype()
    if dtype.kind not in "biuf":
        kind = "colours" if dtype.fields else f"values of type {dtype}"
        raise InputError(f"{path} holds {kind}; accepted: real numbers; save one channel, or their luminance")
    return dtype


def _unpacked(source: IO[bytes], start: int, shape: tuple[int, int, int], dtype: np.dtype) -> Array:
    """The volume at this byte of a compressed stream; the stream is read to its end, where its checksum stands."""
    source.seek(start)
    left = shape[0] * shape[1] * shape[2] * dtype.itemsize
    with scratch_file() as file:
        while left and (piece := source.read(min(PIECE, left))):
            file.write(piece)
            left -= len(piece)
        if left:
            raise ValueError(f"it ends {left} bytes before its header says")
        while source.read(PIECE):
            pass
        file.flush()
        return np.memmap(file, dtype, "r", 0, shape, "F")


def _affine(path: Path, header: Vendor, notes: list[str]) -> Doubles:
    """In millimetres; InputError where voxels would have no extent."""
    (place, place_code), (turn, turn_code) = header.get_sform(coded=True), header.get_qform(coded=True)
    affine = np.array(header.get_best_affine(), np.float64)
    edges = np.linalg.norm(affine[:3, :3], axis=0)
    flat = not np.isfinite(affine).all() or not abs(np.linalg.det(affine[:3, :3])) > SHEAR * edges.prod()
    if flat or np.isnan(_nibabel().orientations.io_orientation(affine)).any():
        raise InputError(f"{path} has an affine that no voxel has a place by (singular or not finite); set its "
                         "sform or qform first")
    if not place_code and not turn_code:
        notes.append("its header does not say how the patient lies; axes are taken as left, anterior, superior")
    if place_code and turn_code and np.abs(place - turn).max() > 0.1 * edges.min():
        notes.append("its sform and qform differ; the sform is used")
    affine[:3] *= MILLIMETRES.get(header.get_xyzt_units()[0], 1.0)
    return affine


def _acquired(header: Vendor, geometry: Geometry) -> int:
    """The axis of slices that the header names, else that of the greatest spacing, else the last."""
    named = header.get_dim_info()[2]
    if named is not None:
        return int(named)
    spacing = np.array(geometry.spacing)
    order = np.argsort(spacing, kind="stable")
    return int(order[2]) if spacing[order[2]] > ANISOTROPIC * spacing[order[1]] else 2


def _check_finite(path: Path, raw: Array) -> None:
    if raw.dtype.kind != "f":
        return
    bad = sum(int((~np.isfinite(part)).sum()) for part in slices_of(raw))
    if bad:
        raise InputError(f"{path} holds {bad} NaN or infinite values; replace them, for example by numpy.nan_to_num")


def _scaled(path: Path, raw: Array, slope: float, intercept: float) -> Array:
    """Rescaled as the header says, float32 where that is exact for the raw values, else float64."""
    if (slope, intercept) == (1, 0):
        return raw
    narrow = raw.dtype.itemsize <= 2 or raw.dtype == np.float32
    wide: np.dtype[Any] = np.dtype(np.float64 if raw.dtype.itemsize <= 8 else np.longdouble)
    values = mapped_by_slices(raw, np.float32 if narrow else np.float64,
                              lambda part: np.asarray(part, wide) * slope + intercept)
    _check_finite(path, values)
    return values
