"""Validation while training makes masks as the SDK does."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs torch: pip install '.[train]'")
from universeg_rt.training.run.validate import task_dice
from universeg_rt.training.tasks.tasks import Task

pytestmark = pytest.mark.torch


def test_a_probability_of_a_half_is_foreground():
    labels = np.zeros((10, 8, 8), np.uint8)
    labels[:, :4] = 1
    task = Task("halves", 200 * labels, labels, np.array([f"s{i}" for i in range(10)]))

    def undecided(query, images, masks):
        return torch.zeros_like(query)

    assert task_dice(undecided, task, 8, 1, 2) == pytest.approx(2 / 3)  # everything is marked, half of it is right
