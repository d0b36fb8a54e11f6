"""Series: whether the frames of one DICOM series form a volume, in which order, and where it lies.

The checks follow the list of dicom2nifti: localizers, several sizes, mixed orientations, duplicate positions, missing
slices, unequal distances, a tilted gantry.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..install import needed
from ..named_types import Doubles, Vendor
from .frames import Frame

ORIENTATION = 1e-3  # of a direction cosine: 0.3 mm over 300 mm
REGULAR, UNEVEN = 0.01, 0.05  # of the distance between slices: taken as equal; taken as equal with a note
NOTED, TILTED = 0.05, 0.5  # pixels that a slice may lie beside the line through the first along the normal


def order_frames(where: Path, frames: Sequence[Frame], notes: list[str]) -> tuple[list[Frame], Vendor | None]:
    """The frames of a series from the first slice to the last, and their highdicom.VolumeGeometry (slices, rows,
    columns); None where they do not say where they lie, as a single radiograph or the frames of a film.

    Raises InputError that says what keeps them from being a volume. notes: what was done is appended.
    """
    frames = _without_localizers(where, frames, notes)
    _check_same(where, frames, "sizes", lambda frame: f"{frame.size[0]}x{frame.size[1]}")
    _check_same(where, frames, "kinds of values", lambda frame: "colour" if frame.colour else "grey")
    if any(None in (frame.position, frame.orientation, frame.spacing) for frame in frames):
        return _unplaced(where, frames, notes), None
    _check_same(where, frames, "frames of reference", lambda frame: frame.reference, shown=False)
    _check_same(where, frames, "pixel spacings", lambda frame: " x ".join(f"{s:g}" for s in frame.spacing or ()))
    orientation = _orientation(where, frames)
    highdicom = needed("highdicom", "medical", "DICOM")
    positions = np.array([frame.position for frame in frames])
    if len(frames) == 1:
        thickness = frames[0].thickness or 1.0
        notes.append(f"one slice: its thickness is taken as {thickness:g} mm")
        frames = list(frames)
    else:
        thickness, order = _regular(where, highdicom, frames, positions, orientation, notes)
        frames, positions = [frames[i] for i in order], positions[order]
    rows, columns = frames[0].size
    geometry = highdicom.VolumeGeometry.from_attributes(
        image_position=list(positions[0]), image_orientation=list(orientation), rows=rows, columns=columns,
        pixel_spacing=list(frames[0].spacing or ()), spacing_between_slices=thickness, number_of_frames=len(frames),
        coordinate_system="PATIENT", frame_of_reference_uid=frames[0].reference or None)
    _check_tilt(where, geometry.affine, positions, min(frames[0].spacing or ()), notes)
    return frames, geometry


def _without_localizers(where: Path, frames: Sequence[Frame], notes: list[str]) -> Sequence[Frame]:
    others = [frame for frame in frames if not frame.localizer]
    if others and len(others) < len(frames):
        notes.append(f"{len(frames) - len(others)} localizer images of the series were left out")
        return others
    if not others and len({frame.orientation for frame in frames}) > 1:
        raise InputError(f"{where} holds {len(frames)} localizer images of several planes, which form no volume; give "
                         "the series that was planned on them")
    return frames


def _check_same(where: Path, frames: Sequence[Frame], what: str, key: Callable[[Frame], str],
                shown: bool = True) -> None:
    found = sorted({key(frame) for frame in frames})
    if len(found) > 1:
        those = f" ({', '.join(found[:4])}{', ...' if len(found) > 4 else ''})" if shown else ""
        raise InputError(f"{where} holds a series with {len(found)} {what}{those}, which is not one volume; put images "
                         "that belong together into a folder of their own")


def _unplaced(where: Path, frames: Sequence[Frame], notes: list[str]) -> list[Frame]:
    if len({frame.file for frame in frames}) > 1:
        lost = sum(None in (frame.position, frame.orientation, frame.spacing) for frame in frames)
        raise InputError(f"{where} holds a series of which {lost} of {len(frames)} images do not say where they lie; "
                         "give single images as files of their own")
    notes.append("it does not say where it lies in the patient" + (
        f": its {len(frames)} frames are taken in their order" if len(frames) > 1 else ""))
    return list(frames)


def _orientation(where: Path, frames: Sequence[Frame]) -> Doubles:
    """(6,) direction cosines, of the first frame."""
    all_of_them = np.array([frame.orientation for frame in frames])
    first: Doubles = all_of_them[0]
    if (odd := int((np.abs(all_of_them - first).max(axis=1) > ORIENTATION).sum())):
        raise InputError(f"{where} holds a series of mixed orientation: {odd} of {len(frames)} images lie otherwise "
                         "than the first; put images of one orientation into a folder of their own")
    row, column = first[:3], first[3:]
    if max(abs(row @ row - 1), abs(column @ column - 1), abs(row @ column)) > 2 * ORIENTATION:
        raise InputError(f"{where} holds images whose rows and columns are not at right angles; export them again")
    if min(min(frame.spacing or (0,)) for frame in frames) <= 0:
        raise InputError(f"{where} holds images whose pixel spacing is not above 0; export them again")
    return first


def _regular(where: Path, highdicom: Vendor, frames: Sequence[Frame], positions: Doubles, orientation: Doubles,
             notes: list[str]) -> tuple[float, list[int]]:
    """Millimetres between slices, and which frame is at each of their places."""
    copies = len(frames) - len(np.unique(positions.round(3), axis=0))
    if copies:
        raise InputError(f"{where} holds a series in which {copies} of {len(frames)} images lie where another does: "
                         "several times, echoes or a double export; put one image of each place into a folder of its "
                         "own")

    def places(tolerance: float, missing: bool = False) -> tuple[float | None, list[int] | None]:
        # Slices beside the line along the normal are looked for later, where the tilt is told.
        found: tuple[float | None, list[int] | None] = highdicom.spatial.get_volume_positions(
            positions.tolist(), orientation.tolist(), rtol=tolerance, perpendicular_tol=2.0,
            allow_missing_positions=missing)
        return found

    normal = np.cross(orientation[:3], orientation[3:])
    gaps = np.diff(np.sort(positions @ normal))
    spacing, at = places(REGULAR)
    if at is None:
        spacing, at = places(UNEVEN)
        if at is not None:
            notes.append(f"the distance between slices varies from {gaps.min():.3f} to {gaps.max():.3f} mm; it is "
                         f"taken as {spacing:.3f} mm")
    if at is None or spacing is None or spacing <= 0:
        _, sparse = places(REGULAR, missing=True)
        if sparse is not None and len(set(sparse)) == len(sparse):
            span = max(sparse) - min(sparse) + 1
            raise InputError(f"{where} holds a series with missing slices: {span - len(frames)} of {span} places "
                             f"between its first and last are empty, {gaps.min():.3f} mm apart{_empty_files(where)}; "
                             "export it whole")
        raise InputError(f"{where} holds a series of unequal distances between slices, {gaps.min():.3f} to "
                         f"{gaps.max():.3f} mm; export one that is spaced equally, or resample it to NIfTI")
    order = sorted(range(len(at)), key=at.__getitem__)
    return spacing, order


def _empty_files(where: Path) -> str:
    """Of a folder the files without a byte, as a part of a sentence; empty where there is none."""
    empty = sorted(file.name for file in where.iterdir() if file.is_file() and not file.stat().st_size) \
        if where.is_dir() else []
    if not empty:
        return ""
    return f"; without a byte {'is' if len(empty) == 1 else 'are'} {', '.join(empty[:4])}{', ...' * (len(empty) > 4)}"


def _check_tilt(where: Path, affine: Doubles, positions: Doubles, pixel: float, notes: list[str]) -> None:
    """InputError where slices lie beside the line through the first along the normal, as under a tilted gantry."""
    expected = affine[:3, 3] + np.arange(len(positions))[:, None] * affine[:3, 0]
    beside = np.linalg.norm(positions - expected, axis=1)
    normal = affine[:3, 0] / np.linalg.norm(affine[:3, 0])
    along = positions - positions[0]
    sideways = np.linalg.norm(along - np.outer(along @ normal, normal), axis=1)
    if sideways.max() > TILTED * pixel:
        angle = np.degrees(np.arctan2(sideways[-1], abs(along[-1] @ normal)))
        raise InputError(f"{where} holds a series whose slices are shifted against each other, by {angle:.1f} degrees "
                         "(gantry tilt); convert it with dcm2niix or dicom2nifti, which correct it, and give the NIfTI")
    if beside.max() > NOTED * pixel:
        notes.append(f"slices lie up to {beside.max():.2f} mm from where equal distances put them")

