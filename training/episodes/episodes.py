"""Episodes of Algorithm 1: a task, some queries and a support set without them, augmented, all from one seed."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from universeg_rt.errors import InputError
from universeg_rt.training.episodes.augment import augment_episode, warp_pair
from universeg_rt.training.episodes.config import DataConfig, Stage
from universeg_rt.training.episodes.fields import Draw, affine_grid, min_max
from universeg_rt.training.episodes.repaint import Structures, repainted
from universeg_rt.training.episodes.synthetic import synthetic_subjects
from universeg_rt.training.tasks.tasks import Task

ATTEMPTS = 12  # at an episode with a target of the size that a stage asks for
TINY = (0.0003, 0.01)  # of the image: targets that are asked for by `tiny_probability`
STRIDE = 0x9E3779B1  # between their seeds; a CPU generator of torch reads the lowest 32 bits of a seed


@dataclass
class Batch:
    """T episodes of one shape: query and target (T,Q,1,H,W), support images and labels (T,S,1,H,W); their seeds."""

    query: Tensor
    target: Tensor
    support_images: Tensor
    support_labels: Tensor
    seeds: list[int]

    def to(self, device: torch.device) -> Batch:
        """The same on another device."""
        tensors = (self.query, self.target, self.support_images, self.support_labels)
        return Batch(*(x.to(device, non_blocking=True) for x in tensors), self.seeds)

    def pin_memory(self) -> Batch:
        """The same in page-locked memory; torch's DataLoader asks for it by this name."""
        tensors = (self.query, self.target, self.support_images, self.support_labels)
        return Batch(*(x.pin_memory() for x in tensors), self.seeds)


class EpisodeSource:
    """Draws episodes; `tasks` are the real ones, already cut to the subjects that may be trained on."""

    def __init__(self, config: DataConfig, tasks: list[Task], device: torch.device | str = "cpu") -> None:
        self.config, self.device = config, torch.device(device)
        self.tasks = [task for task in tasks if task.name not in config.leave_out]
        if config.real_probability > 0 and not self.tasks:
            raise InputError(
                f"real_probability is {config.real_probability}, but no real task is left to train on; give datasets "
                "and data_root, or set it to 0")
        self.by_dataset: dict[str, list[int]] = {}
        for index, task in enumerate(self.tasks):
            self.by_dataset.setdefault(task.dataset or task.name, []).append(index)
        self.subjects = {name: len(np.unique(np.concatenate([self.tasks[i].subjects for i in indices])))
                         for name, indices in self.by_dataset.items()}
        self.arrays = [(torch.from_numpy(t.images).to(self.device), torch.from_numpy(t.labels).to(self.device))
                       for t in self.tasks]
        self.structures = Structures(self.tasks) if config.repaint_probability > 0 else None

    def batch(self, seeds: list[int], stage: Stage) -> Batch:
        """One episode a seed, all with the support size that the first seed draws."""
        low, high = stage.entries
        entries = min(high, int(math.exp(Draw(seeds[0]).scalar(math.log(low), math.log(high + 1)))))
        episodes = [self._within(seed, stage, entries) for seed in seeds]
        images = torch.stack([e[0] for e in episodes])
        labels = torch.stack([e[1] for e in episodes])
        queries = stage.queries
        return Batch(images[:, :queries], labels[:, :queries], images[:, queries:], labels[:, queries:], seeds)

    def _within(self, seed: int, stage: Stage, entries: int) -> tuple[Tensor, Tensor]:
        """The seed's episode; where its targets' share of the image is not the stage's, or not tiny where that is
        drawn, that of a seed derived from it."""
        low, high = TINY if Draw(seed + 0x7177).chance(self.config.tiny_probability) else stage.target_share
        for attempt in range(1 if (low, high) == (0.0, 1.0) else ATTEMPTS):
            images, labels = self.episode(seed + attempt * STRIDE, stage.size, stage.queries, entries)
            if low <= float(labels.mean()) <= high:
                break
        return images, labels

    def episode(self, seed: int, size: int, queries: int, entries: int) -> tuple[Tensor, Tensor]:
        """Images and labels (Q+S,1,H,W) of one task, the queries first."""
        draw = Draw(seed + 0x5EED, self.device)
        absent = draw.chance(self.config.absent_probability)
        if draw.chance(self.config.real_probability):
            images, labels = self._real(draw, queries, entries)
            if absent:
                images[:1], labels[:1] = _without_target(draw, images[:1], labels[:1])
        else:
            task = draw.integer(0, self.config.synthetic_tasks - 1)
            images, labels = synthetic_subjects(
                task, queries + entries, size, self.config.synthetic, self.device, seed, int(absent))
        images, labels = self._resized(draw, images, labels, size)
        return augment_episode(draw, images, labels, self.config.augment)

    def _real(self, draw: Draw, queries: int, entries: int) -> tuple[Tensor, Tensor]:
        names = sorted(self.by_dataset)
        index = draw.choice(self.by_dataset[draw.choice(names, [math.sqrt(self.subjects[name]) for name in names])])
        task, (images, labels) = self.tasks[index], self.arrays[index]
        chosen = self._entries(draw, task, queries, entries)
        images, labels = min_max(images[chosen][:, None].float() / 255.0), labels[chosen][:, None].float()
        if self.structures is not None and draw.chance(self.config.repaint_probability):
            others = [torch.stack([torch.zeros_like(labels[0, 0], dtype=torch.bool) if place is None
                                   else self.arrays[other][1][place] > 0 for place in places])
                      for other, places in self.structures.others(index, chosen).items()]
            images = repainted(draw, images, labels, others, self.config.synthetic.appearance)
        return images, labels

    @staticmethod
    def _entries(draw: Draw, task: Task, queries: int, entries: int) -> Tensor:
        """Indices of the queries, then of a support set that shares no subject with them (drawn with replacement)."""
        names = np.unique(task.subjects)
        order = torch.randperm(len(names), generator=draw.host).numpy()
        held = names[order[: max(1, min(queries, len(names) // 2))]]
        is_query = np.isin(task.subjects, held)
        pick = [np.flatnonzero(is_query), np.flatnonzero(~is_query)]
        chosen = []
        for pool, count in zip(pick, (queries, entries)):
            repeats = torch.cat([torch.randperm(len(pool), generator=draw.host) for _ in range(-(-count // len(pool)))])
            chosen.append(pool[repeats[:count].numpy()])
        return torch.from_numpy(np.concatenate(chosen))

    def _resized(self, draw: Draw, images: Tensor, labels: Tensor, size: int) -> tuple[Tensor, Tensor]:
        """Whole images brought to `size`, or windows of them:
        one place in all images, or near a pixel of each one's target."""
        count, source, device = len(images), images.shape[-1], images.device
        cropped = draw.chance(self.config.crop_probability)
        if not cropped and source == size:
            return images, labels
        window = 1.0
        centre = torch.zeros(count, 2, device=device)
        if cropped:
            window = draw.scalar(*self.config.crop_window)
            flat = labels.flatten(1) + 1e-6
            pixel = torch.multinomial(flat, 1, generator=draw.generator)[:, 0]
            aim = torch.stack([pixel % source, pixel // source], 1).float() / source * 2.0 - 1.0
            alike = draw.chance(self.config.crop_alike)
            jitter = draw.uniform(-0.5, 0.5, count, 2) * window
            centre = (aim + jitter).clamp(window - 1.0, 1.0 - window)
            if alike and _within(aim[1:], centre[:1], window).any():  # some other image must show the target
                centre = centre[:1].expand(count, 2)
        shrink = source * window / size
        if shrink >= 1.5:  # averages, so that nothing is skipped when sampling
            steps = 2 ** int(math.log2(shrink / 1.5) + 1)
            images, labels = (torch.nn.functional.avg_pool2d(x, steps) for x in (images, labels))
        one = torch.ones(count, device=device)
        images, labels = warp_pair(images, labels, affine_grid(size, one * 0.0, one * window, centre))
        return (min_max(images), labels) if cropped else (images, labels)


def _without_target(draw: Draw, image: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
    """A window (1,1,H,W) of an image that shows nothing of its target, enlarged; the image itself where none is found
    in a few tries."""
    size = image.shape[-1]
    for _ in range(ATTEMPTS):
        window = draw.scalar(0.35, 0.7)
        centre = draw.uniform(window - 1.0, 1.0 - window, 1, 2)
        one = torch.ones(1, device=image.device)
        part, marked = warp_pair(image, label, affine_grid(size, one * 0.0, one * window, centre))
        if not marked.any() and float(part.std()) > 0.02:
            return min_max(part), marked
    return image, label


def _within(points: Tensor, centre: Tensor, window: float) -> Tensor:
    """(N,) bool: which points (N,2) lie in the window (side 2·window, as all in [-1, 1]) round centre (1,2)."""
    return ((points - centre).abs() < window).all(1)
