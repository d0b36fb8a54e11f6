"""Temporary arrays: they leave no file behind, and a full disk is a typed error before anything is written."""

from __future__ import annotations

import errno
import os
import tempfile

import numpy as np
import pytest

from universeg_rt.errors import OutputError
from universeg_rt.volumes.scratch import mapped_by_slices, present, scratch_array, slices_of


def test_an_array_is_zero_and_its_file_has_no_name(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    array = scratch_array((3, 4), np.int16)
    array[1] = 7
    assert array.sum() == 28 and not list(tmp_path.iterdir())


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="this system cannot take the room of a file before")
def test_a_full_disk_is_told_with_the_cure(monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OutputError, match="No space left on device; set TMPDIR to a folder with more room"):
        scratch_array((3, 4), np.int16)


@pytest.mark.parametrize("order", ["C", "F"])
def test_slices_are_converted_in_the_layout_of_the_original(order):
    values = np.asarray(np.arange(24).reshape(2, 3, 4), order=order)
    out = mapped_by_slices(values, np.float32, lambda part: part / 2)
    assert all(part.flags.c_contiguous or part.flags.f_contiguous for part in slices_of(values))
    assert np.array_equal(out, values / 2) and out.flags.f_contiguous == (order == "F")


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.float32])
def test_values_that_are_there_are_found(dtype):
    assert present(np.array([[7, 3], [200, 3]], dtype)).tolist() == [3, 7, 200]
