"""Draws the episodes of coming steps in other processes, so that the network does not wait for them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import replace

import torch
from torch.utils.data import DataLoader, Dataset

from universeg_rt.training.episodes.episodes import Batch, EpisodeSource
from universeg_rt.training.run.schedule import Step


class _StepData(Dataset):
    """Looks up the episodes of a Step; lets DataLoader's workers call EpisodeSource."""

    def __init__(self, source: EpisodeSource) -> None:
        self.source = source

    def __getitem__(self, step: Step) -> tuple[Step, list[Batch]]:
        return step, [self.source.batch(list(group), step.stage) for group in step.groups]


class _PackedStepData(_StepData):
    """The same for a GPU: labels as bytes, a quarter of what is copied to it. They are 0 or 1."""

    def __getitem__(self, step: Step) -> tuple[Step, list[Batch]]:
        _, batches = super().__getitem__(step)
        return step, [replace(b, target=b.target.byte(), support_labels=b.support_labels.byte()) for b in batches]


def feed(
    source: EpisodeSource, plan: Iterable[Step], workers: int = 0, ahead: int = 4, pinned: bool = False
) -> Iterator[tuple[Step, list[Batch]]]:
    """Each step of `plan` with its episodes, in order; the same ones whatever the number of `workers`.

    0 workers draw them when they are asked for, on the source's device (a GPU included). More draw on the CPU, up to
    `ahead` steps each in advance. pinned: for a GPU; they come in page-locked memory, from where copies run beside the
    host, with labels as bytes.
    """
    data = _PackedStepData(source) if pinned else _StepData(source)
    if not workers:
        yield from (data[step] for step in plan)
        return
    loader = DataLoader(
        data, batch_size=None, sampler=plan, num_workers=workers, prefetch_factor=ahead,
        worker_init_fn=_quiet_worker, multiprocessing_context="fork", pin_memory=pinned)
    yield from loader


def _quiet_worker(_: int) -> None:
    import signal

    torch.set_num_threads(1)
    os.nice(5)  # the process that keeps the network going comes first
    # The parent decides when to stop, and a worker ends when its parent does: a signal to the whole group must not end
    # it first.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
