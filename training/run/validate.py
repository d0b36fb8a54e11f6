"""Mean Dice on tasks never trained on, for choosing among checkpoints while training."""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from universeg_rt.training.network.reference import UniverSeg
from universeg_rt.training.tasks.harden import harden
from universeg_rt.training.tasks.score import query_dice
from universeg_rt.training.tasks.tasks import Task


@torch.inference_mode()
def task_dice(
    model: UniverSeg, task: Task, size: int, entries: int, queries: int, split: str = "dev",
    device: torch.device | str = "cpu",
) -> float:
    """Mean Dice of up to `queries` images of `split`, each with its own random support of the support split.

    Images and labels are brought to `size`; the same arguments choose the same queries and supports.
    """
    support, query = task.split("support"), task.split(split)
    seed = int.from_bytes(hashlib.sha256(task.name.encode()).digest()[:4], "little")
    random = np.random.default_rng(seed)
    chosen = random.permutation(len(query))[:queries]
    support_images, support_labels = resize(support, size, device)
    query_images, query_labels = resize(query.select(chosen), size, device)
    scores = []
    for image, label in zip(query_images, query_labels):
        picks = torch.from_numpy(random.choice(len(support), entries, replace=len(support) < entries)).to(device)
        logits = model(image[None], support_images[picks][None], support_labels[picks][None])
        scores.append(query_dice(torch.sigmoid(logits[0].float()).cpu().numpy(), label[0].cpu().numpy()))
    return float(np.mean(scores))


def resize(task: Task, size: int, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
    """Images (N,1,size,size) in [0, 1], each scaled to its own range, and labels in {0, 1}."""
    images = torch.from_numpy(task.images).to(device)[:, None].float()
    labels = torch.from_numpy(task.labels).to(device)[:, None].float()
    if images.shape[-1] != size:
        images = F.interpolate(images, size=(size, size), mode="bilinear", antialias=True, align_corners=False)
        labels = harden(F.interpolate(labels, size=(size, size), mode="bilinear", antialias=True, align_corners=False))
    low, high = images.amin((1, 2, 3), keepdim=True), images.amax((1, 2, 3), keepdim=True)
    return (images - low) / (high - low).clamp_min(1e-6), labels
