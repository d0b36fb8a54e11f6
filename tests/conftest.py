"""Fixtures shared by all tests; material that another clone may lack is looked for and skipped with a reason."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]


def material(*parts: str) -> Path:
    """A file of the optional material folder (UNIVERSEG_MATERIAL, else `shared/` beside the clone), or skip."""
    folder = Path(os.environ.get("UNIVERSEG_MATERIAL", ROOT.parent / "shared"))
    path = folder.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"{'/'.join(parts)} is not in this clone's material folder (set UNIVERSEG_MATERIAL to point to it)")
    return path


@pytest.fixture(scope="session")
def parity_archive():
    """Weights, inputs and logits of the published v1 implementation."""
    return np.load(material("parity", "universeg_v1_parity.npz"))
