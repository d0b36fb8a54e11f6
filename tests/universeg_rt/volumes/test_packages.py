"""Volumes need packages of an extra: importing the SDK loads none of them, and a missing one is named with the cure."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("highdicom", reason="volumes need highdicom: pip install '.[medical]'")
from pydicom.data import get_testdata_file

from .made import write_nifti

LATER = ("nibabel", "pydicom", "highdicom", "scipy", "jinja2", "PIL")
MISSING = """
import sys
sys.modules[{package!r}] = None  # importing it raises ModuleNotFoundError
from universeg_rt.errors import InputError
from universeg_rt.volumes.reading import read_volume
try:
    read_volume({path!r})
except InputError as error:
    print(error)
"""


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout


def test_reading_and_writing_import_their_packages_when_they_are_used():
    modules = "import universeg_rt, universeg_rt.volumes.reading, universeg_rt.volumes.slicing"
    code = f"import sys; {modules}, universeg_rt.volumes.writing; print([m for m in {LATER!r} if m in sys.modules])"
    assert run(code).strip() == "[]"


@pytest.mark.parametrize("package", ["nibabel", "pydicom", "highdicom"])
def test_a_missing_package_is_named_with_the_cure(tmp_path, package):
    path = get_testdata_file("CT_small.dcm")
    if package == "nibabel":
        path = write_nifti(tmp_path / "v.nii", np.zeros((2, 3, 4), np.uint8), np.eye(4))
    said = run(MISSING.format(package=package, path=str(path))).strip()
    assert said.endswith(f"needs the package {package}, which is missing; run pip install '.[medical]' in a clone of "
                         "the project")
