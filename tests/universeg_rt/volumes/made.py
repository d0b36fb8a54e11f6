"""Volumes that the tests make: NIfTI files of any affine, and DICOM series of any orientation."""

from __future__ import annotations

from itertools import permutations, product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import strategies as st

pytest.importorskip("nibabel", reason="volumes need nibabel: pip install '.[medical]'")
pytest.importorskip("highdicom", reason="volumes need highdicom: pip install '.[medical]'")
import nibabel
import pydicom
from pydicom.data import get_testdata_file

SHAPE = (4, 5, 6)
MARKER = "Zyxwvut"  # stands for whatever says who a patient is
SIGNED_PERMUTATIONS = [np.eye(3)[list(order)] * np.array(signs)[:, None]
                       for order in permutations(range(3)) for signs in product((1, -1), repeat=3)]


def rotation(quaternion) -> np.ndarray:
    return nibabel.quaternions.quat2mat(np.array(quaternion) / np.linalg.norm(quaternion))


def affine_of(turn: np.ndarray, zooms=(0.7, 1.3, 2.9), origin=(-31.0, 17.5, 8.25)) -> np.ndarray:
    out = np.eye(4)
    out[:3, :3], out[:3, 3] = turn * np.array(zooms), origin
    return out


def _number(low: float, high: float) -> st.SearchStrategy[float]:
    return st.floats(low, high)


quaternions = st.tuples(*[_number(-1, 1)] * 4).filter(lambda q: np.linalg.norm(q) > 0.1)
small_quaternions = st.tuples(st.just(1.0), *[_number(-0.15, 0.15)] * 3)  # rotations of up to 30 degrees
zooms = st.tuples(*[_number(0.25, 6)] * 3)
shears = st.tuples(*[_number(-0.3, 0.3)] * 3)
orientations = st.sampled_from(SIGNED_PERMUTATIONS)


def write_nifti(path: Path, values: np.ndarray, affine: np.ndarray, **header) -> Path:
    image = nibabel.Nifti1Image(values, affine, dtype=values.dtype)
    for name, value in header.items():
        image.header[name] = value
    nibabel.save(image, path)
    return path


def write_series(folder: Path, *, frames: int = 4, size=(5, 6), turn=np.eye(3), pixel=(1.25, 0.5), step: float = 2.0,
                 values: np.ndarray | None = None, change=None) -> Path:
    """A CT series whose rows run along turn[:, 1] and columns along turn[:, 0] (LPS), slices along turn[:, 2].

    change(dataset, index) may alter each image; where it returns False the image is left out. File names say nothing of
    the order.
    """
    folder.mkdir(parents=True, exist_ok=True)
    values = np.arange(frames * size[0] * size[1]).reshape(frames, *size) if values is None else values
    uids = [pydicom.uid.generate_uid() for _ in range(3)]
    for index in range(frames):
        one = pydicom.dcmread(get_testdata_file("CT_small.dcm"))
        one.SeriesInstanceUID, one.FrameOfReferenceUID, one.StudyInstanceUID = uids
        one.SOPInstanceUID = one.file_meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid()
        one.Rows, one.Columns = size
        one.PixelData = values[index].astype("<i2").tobytes()
        one.ImageOrientationPatient = [_ds(v) for v in (*turn[:, 0], *turn[:, 1])]
        position = np.array([-20.0, 30.0, 40.0]) + index * step * turn[:, 2]
        one.ImagePositionPatient = [_ds(v) for v in position]
        one.PixelSpacing = list(pixel)
        one.SliceThickness, one.InstanceNumber = step, index + 1
        one.RescaleIntercept, one.RescaleSlope = 0, 1
        for name in ("SpacingBetweenSlices", "DataSetTrailingPadding"):
            if name in one:
                delattr(one, name)
        if change is None or change(one, index) is not False:
            one.save_as(folder / f"{(index * 7 + 3) % 11}-{index}.dcm")
    return folder


def _ds(value: float) -> str:
    return pydicom.valuerep.format_number_as_ds(float(value))


def named(dataset) -> None:
    """Put the marker wherever a header says who the patient is."""
    for keyword in ("PatientName", "PatientID", "PatientComments", "OtherPatientIDs", "AccessionNumber", "StudyID",
                    "InstitutionName", "ReferringPhysicianName", "SeriesDescription", "StudyDescription",
                    "ProtocolName", "ImageComments", "OperatorsName"):
        setattr(dataset, keyword, MARKER[:16])
