"""Fixtures of the training tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def training_folder():
    """The folder `training/` of this clone."""
    return ROOT / "training"


@pytest.fixture(scope="session")
def data_folder():
    """Real tasks, in the optional material folder (UNIVERSEG_MATERIAL, else `shared/` beside the clone)."""
    folder = Path(os.environ.get("UNIVERSEG_MATERIAL", ROOT.parent / "shared")) / "data"
    if not folder.is_dir():
        pytest.skip("data is not in this clone's material folder (set UNIVERSEG_MATERIAL to point to it)")
    return folder


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Small tensors: more threads would only wait for each other, badly so on a busy machine."""
    try:
        import torch
    except ImportError:
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
