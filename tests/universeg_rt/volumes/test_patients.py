"""Nothing that says who a patient is gets into a message, a note, a log or an output that is not DICOM."""

from __future__ import annotations

import io
import logging
import warnings
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("highdicom", reason="volumes need highdicom: pip install '.[medical]'")
import pydicom
from pydicom.data import get_testdata_file

from universeg_rt.errors import UniverSegError
from universeg_rt.volumes.reading import find_volumes, read_labels, read_volume
from universeg_rt.volumes.slicing import Slices
from universeg_rt.volumes.writing import write_labels, write_map

from . import test_dicom
from .made import MARKER, named, write_series

UID = "1.2.826.0.1.3680043.8.498.987654321"


def _wrong_name(one, index):
    one[0x00080020] = pydicom.DataElement(0x00080020, "LO", MARKER)  # a date that is a name


def _odd_spacing(one, index):
    one[0x00280030] = pydicom.DataElement(0x00280030, "LO", MARKER)


def _odd_position(one, index):
    one[0x00200032] = pydicom.DataElement(0x00200032, "LO", [MARKER] * 3)


def _odd_modality(one, index):
    one.Modality = MARKER
    one.SOPClassUID = UID + ".7"


def _odd_rescale(one, index):
    one[0x00281053] = pydicom.DataElement(0x00281053, "LO", MARKER)


def _odd_photometric(one, index):
    one.PhotometricInterpretation = MARKER


def _cut(one, index):
    one.PixelData = one.PixelData[:-20]


CHANGES = [None, _wrong_name, _odd_spacing, _odd_position, _odd_modality, _odd_rescale, _odd_photometric, _cut,
           test_dicom.drop_middle, test_dicom.turn_one, test_dicom.double, test_dicom.uneven, test_dicom.larger,
           test_dicom.other_spacing, test_dicom.other_frame, test_dicom.no_place, test_dicom.skewed,
           test_dicom.little_uneven]


def _use(path, folder, said: list[str]) -> None:
    """All that is done with a series; what is told of it is appended."""
    try:
        said += map(str, find_volumes(path.parent))
        volume = read_volume(path)
        said += [*volume.notes, str(volume.window), volume.modality, repr(volume)]
        said += [str(Slices.of(volume.geometry, volume.acquired, axis)) for axis in ("axial", "acquired")]
        labels = np.ones(volume.geometry.shape, bool)
        write_labels(folder / "l.nii", labels, {1: "liver"}, volume)
        write_map(folder / "m.nii", labels, volume)
        said += [(folder / name).read_bytes().decode("latin1") for name in ("l.nii", "m.nii")]
        write_labels(folder / "l.dcm", labels, {1: "liver"}, volume)
        read = read_labels(folder / "l.dcm", volume)
        said += [*read.notes, str(read.names)]
    except UniverSegError as error:
        said.append(str(error))


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: getattr(change, "__name__", "whole"))
def test_no_identifier_is_told(tmp_path, caplog, change):
    def marked(one, index):
        named(one)
        one.SeriesInstanceUID, one.FrameOfReferenceUID, one.StudyInstanceUID = UID + ".1", UID + ".2", UID + ".3"
        one.SOPInstanceUID = one.file_meta.MediaStorageSOPInstanceUID = f"{UID}.4.{index}"
        return change(one, index) if change else None

    said: list[str] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        write_series(tmp_path / "images" / "ct", change=marked)
    caplog.clear()
    printed = io.StringIO()
    with caplog.at_level(logging.DEBUG), warnings.catch_warnings(record=True) as warned, \
            redirect_stdout(printed), redirect_stderr(printed):
        warnings.simplefilter("always")
        _use(tmp_path / "images" / "ct", tmp_path, said)
    told = "\n".join([*said, printed.getvalue(), caplog.text, *(str(one.message) for one in warned)])
    assert said and MARKER not in told and UID not in told, told


def test_the_marker_is_there_to_be_found(tmp_path):
    path = write_series(tmp_path, frames=1, change=lambda one, index: named(one))
    assert MARKER.encode() in next(path.iterdir()).read_bytes()
    assert MARKER.encode() not in Path(get_testdata_file("CT_small.dcm")).read_bytes()
