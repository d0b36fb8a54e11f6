"""Memory that volumes take: it does not grow with them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from . import made

pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="this system does not say it")

CODE = """
import sys
from pathlib import Path
import numpy as np, nibabel, highdicom, pydicom.pixels  # now: what they take does not count
from universeg_rt.volumes.reading import read_labels, read_volume
from universeg_rt.volumes.scratch import scratch_array
from universeg_rt.volumes.slicing import Slices
from universeg_rt.volumes.writing import write_labels, write_map

def anonymous():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1024

folder, most = Path(sys.argv[1]), 0
for path in map(Path, sys.argv[2:]):
    small = anonymous()
    volume = read_volume(path)
    slices = Slices.of(volume.geometry, volume.acquired, "axial")
    labels, scores = (scratch_array(volume.geometry.shape, kind, "F") for kind in (np.uint8, np.float32))
    for index in range(len(slices)):
        grey = slices.take(volume.values, index)
        slices.put(labels, index, grey > 0)
        slices.put(scores, index, grey)
        most = max(most, anonymous() - small)
    write_labels(folder / "l.nii.gz", labels, {1: "x"}, volume)
    most = max(most, anonymous() - small)
    write_map(folder / "m.nii", scores, volume)
    most = max(most, anonymous() - small)
    read_labels(folder / "l.nii.gz", volume)
    most = max(most, anonymous() - small)
print(most)
"""


def test_reading_slicing_and_writing_take_no_memory_that_grows(tmp_path):
    import nibabel
    import numpy as np

    values = np.zeros((128, 128, 512), np.int16)  # 16 MB, as labels 8 MB, as scores 32 MB
    values[30:90, 30:90] = 7
    path = made.write_nifti(tmp_path / "v.nii.gz", values, np.eye(4))
    scaled = nibabel.Nifti1Image(values, np.eye(4))
    scaled.header.set_slope_inter(0.5, 3)
    nibabel.save(scaled, tmp_path / "s.nii.gz")
    series = made.write_series(tmp_path / "ct", frames=32, size=(512, 512), values=np.zeros((32, 512, 512)))
    done = subprocess.run([sys.executable, "-c", CODE, tmp_path, path, tmp_path / "s.nii.gz", series], check=True,
                          capture_output=True, text=True)
    assert float(done.stdout) < 7  # megabytes, of which allocators and headers take some
