"""Training states: damaged files, and states whose parts have odd values; what is read must also be gone on with."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from universeg_rt.training.episodes.config import DataConfig, Stage
from universeg_rt.training.run.config import NetworkConfig, TrainConfig
from universeg_rt.training.run.schedule import steps
from universeg_rt.training.run.train import STATE, Trainer

from .mutate import ODD_VALUES, changed, damaged

ODD = (*ODD_VALUES, torch.zeros(3), torch.zeros(()), torch.full(
    (1, ), torch.nan), torch.zeros(1, dtype=torch.int64), torch.eye(3).to_sparse())
CONFIG = TrainConfig(network=NetworkConfig("v1", 2), stages=(Stage(samples=48, size=16, entries=(1, 2), queries=1,
                                                                   episodes=1), ),
                     data=DataConfig(real_probability=0.0))


def cases(rng: random.Random, folder: Path) -> Iterator[tuple[str, Callable[[], object]]]:
    torch.manual_seed(0)
    trainer = Trainer(CONFIG, [], [], folder)
    (step,) = (s for s in steps(CONFIG, 0, 0) if s.number == 0)
    trainer.train_step(step, [trainer.source.batch([1], step.stage)])
    trainer.save()
    whole = (folder / STATE).read_bytes()
    state = torch.load(folder / STATE, weights_only=True)
    while True:
        if rng.random() < 0.4:
            done, data = damaged(rng, whole)
            yield f"file, {done}", lambda data=data: _resume(folder, data)
        else:
            part = rng.choice(sorted(state))
            done, value = changed(rng, state[part], ODD)
            odd = {**state, part: value}
            yield f"{part}, {done}", lambda odd=odd: _resume_odd(folder, odd)


def _resume(folder: Path, data: bytes) -> None:
    (folder / STATE).write_bytes(data)
    trainer = Trainer(CONFIG, [], [], folder)
    assert trainer.resume()
    for step in steps(CONFIG, trainer.step, trainer.samples):
        trainer.train_step(step, [trainer.source.batch([1], step.stage)])
        break
    assert all(value.isfinite().all() for value in trainer.average.values())


def _resume_odd(folder: Path, odd: dict) -> None:
    try:
        torch.save(odd, folder / "odd.pt")
    except Exception:  # what cannot be saved is no file to read
        return
    _resume(folder, (folder / "odd.pt").read_bytes())
