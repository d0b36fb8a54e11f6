"""Which volumes lie in a folder."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

pytest.importorskip("highdicom", reason="volumes need highdicom: pip install '.[medical]'")
from pydicom.data import get_testdata_file

from universeg_rt.errors import InputError
from universeg_rt.volumes.reading import find_volumes, is_volume

from . import made
from .made import write_series
from .test_dicom import dirtests, extra


def test_volumes_of_a_folder_are_found_by_name(tmp_path):
    write_series(tmp_path / "p1" / "ct")
    shutil.copy(get_testdata_file("MR_small.dcm"), tmp_path / "slice.dcm")
    shutil.copy(get_testdata_file("rtplan.dcm"), tmp_path / "p1" / "plan.dcm")
    shutil.copy(dirtests("77654033/CR1/6154"), tmp_path / "p1" / "chest.dcm")
    shutil.copy(extra("emri_small.dcm"), tmp_path / "p1" / "enhanced.dcm")
    made.write_nifti(tmp_path / "p2.v1.nii.gz", np.zeros((2, 3, 4), np.uint8), np.eye(4))
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "notes.txt").write_text("x")
    assert find_volumes(tmp_path) == {
        "p1/chest": tmp_path / "p1" / "chest.dcm", "p1/ct": tmp_path / "p1" / "ct",
        "p1/enhanced": tmp_path / "p1" / "enhanced.dcm", "p2.v1": tmp_path / "p2.v1.nii.gz", tmp_path.name: tmp_path
    }
    assert is_volume(tmp_path / "p1" / "ct") and is_volume(tmp_path / "p2.v1.nii.gz")
    assert not is_volume(tmp_path / "notes.txt") and not is_volume(tmp_path / ".hidden")
    with pytest.raises(InputError, match="holds no volumes"):
        find_volumes(tmp_path / ".hidden")
    (tmp_path / "p1" / "ct.nii").write_bytes(b"")
    with pytest.raises(InputError, match="have the same name"):
        find_volumes(tmp_path)
