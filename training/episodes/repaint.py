"""Real label maps with random appearance (after SynthSeg): the anatomy is real, its intensities are drawn."""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from torch import Tensor

from universeg_rt.training.episodes.appearance import Appearance, subject_images
from universeg_rt.training.episodes.fields import Draw, gaussian_blur
from universeg_rt.training.episodes.shapes import Layer
from universeg_rt.training.tasks.tasks import Task


class Structures:
    """Which other tasks of a data set label the same images."""

    def __init__(self, tasks: list[Task]) -> None:
        self._places: list[list[bytes]] = [[_key(task, i) for i in range(len(task))] for task in tasks]
        self._entries: dict[bytes, dict[int, int]] = {}
        for index, keys in enumerate(self._places):
            for entry, key in enumerate(keys):
                self._entries.setdefault(key, {})[index] = entry

    def others(self, index: int, chosen: Tensor) -> dict[int, list[int | None]]:
        """For each other task with a label for any of the chosen entries of task `index`: where it has them."""
        found = [self._entries[self._places[index][entry]] for entry in chosen.tolist()]
        names = sorted({other for places in found for other in places} - {index})
        return {other: [places.get(other) for places in found] for other in names}


def repainted(draw: Draw, images: Tensor, labels: Tensor, others: list[Tensor], appearance: Appearance) -> Tensor:
    """Images (N,1,H,W) in [0, 1] as of another modality, with the same anatomy.

    images, labels: (N,1,H,W) as they are. others: labels (N,H,W) bool of other structures of the same images. What no
    label marks is parted by a few levels of the image itself, the same in all subjects.
    """
    smooth = gaussian_blur(images, draw.uniform(0.5, 0.5 + 0.02 * images.shape[-1], 1).expand(len(images)))
    levels = draw.uniform(0.04, 0.9, draw.integer(2, 7)).sort().values
    parts = torch.bucketize(smooth[:, 0].contiguous(), levels)
    for number, other in enumerate(others):
        parts = torch.where(other, len(levels) + 1 + number, parts)
    target = labels[:, 0] > 0.5
    count = len(levels) + len(others) + 1
    parts = torch.where(target, count, parts)
    layer = Layer(parts, count, torch.zeros_like(smooth[:, 0]), parts)
    return subject_images(draw, layer, "nested", target, appearance)


def _key(task: Task, entry: int) -> bytes:
    """Equal for the same image in tasks of one data set."""
    image = np.ascontiguousarray(task.images[entry])
    return hashlib.sha256(f"{task.dataset or task.name} {image.shape} ".encode() + image.tobytes()).digest()
