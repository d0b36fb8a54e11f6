"""Made-up volumes for the measurements of quality."""

from __future__ import annotations

import numpy as np
import pytest


@pytest.fixture
def balls(tmp_path):
    """Five subjects' volumes (24,20,8): a ball of label 1 around a core of label 2, none of them at the ends."""
    nibabel = pytest.importorskip("nibabel", reason="volumes are NIfTI: pip install '.[medical]'")
    rng = np.random.default_rng(0)
    for part in ("images", "labels"):
        (tmp_path / "balls" / part).mkdir(parents=True)
    for n in range(5):
        place = np.moveaxis(np.indices((24, 20, 8)), 0, -1) - (12, 10 + n % 2, 4)
        distance = np.hypot(*np.moveaxis(place[..., :2], -1, 0)) + 2 * abs(place[..., 2])
        labels = np.where(distance < 3, 2, np.where(distance < 7, 1, 0)).astype(np.uint8)
        tissue = 100 + 8 * np.arange(24)[:, None, None]  # brighter to one side, for noise alone is no slice
        values = (tissue + 40 * labels + rng.normal(0, 5, labels.shape)).astype(np.int16)
        for part, each in (("images", values), ("labels", labels)):
            nibabel.save(nibabel.Nifti1Image(each, np.diag((1, 1, 3, 1))), tmp_path / "balls" / part / f"p{n}.nii.gz")
    return tmp_path / "balls"
