"""Training configurations: YAML files with odd values, damaged text, and the constructors that every config ends in."""

from __future__ import annotations

import dataclasses
import itertools
import math
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import yaml

from universeg_rt.training.episodes.config import Stage
from universeg_rt.training.episodes.episodes import EpisodeSource
from universeg_rt.training.run.config import TrainConfig, load_config
from universeg_rt.training.run.schedule import steps
from universeg_rt.training.settings.values import from_dict, override, to_dict

from .mutate import changed, damaged, dumped


def cases(rng: random.Random, folder: Path) -> Iterator[tuple[str, Callable[[], object]]]:
    plain = to_dict(TrainConfig())
    shipped = [p.read_text() for p in sorted((Path(__file__).parents[2] / "training" / "configs").glob("*.yaml"))]
    bases = [plain, *(yaml.safe_load(text) for text in shipped)]
    while True:
        kind = rng.choice(("yaml", "yaml", "dict", "override", "text"))
        if kind == "text":
            done, data = damaged(rng, rng.choice(shipped).encode())
            yield f"text, {done}", lambda data=data: _read(folder, data)
            continue
        done, values = changed(rng, rng.choice(bases))
        if kind == "yaml":
            yield f"yaml, {done}", lambda values=values: _read(folder, dumped(values))
        elif kind == "dict":
            yield f"dict, {done}", lambda values=values: _sound(from_dict(TrainConfig, values, "here"))
        else:
            yield f"override, {done}", lambda values=values: _sound(override(TrainConfig(), values, "here"))


def _read(folder: Path, data: bytes) -> None:
    (folder / "config.yaml").write_bytes(data)
    _sound(load_config(folder / "config.yaml"))


def _sound(config: TrainConfig) -> None:
    """What is accepted can be trained with: a learning rate for its first step, and an episode, here a small one."""
    (step,) = itertools.islice(steps(config, 0, 0), 1)
    assert math.isfinite(step.learning_rate) and step.learning_rate > 0, step.learning_rate
    data = dataclasses.replace(config.data, real_probability=0.0)
    for seed in step.seeds[:2]:
        batch = EpisodeSource(data, []).batch([seed], Stage(samples=1, size=32, entries=(1, 2), queries=1))
        assert batch.query.isfinite().all() and batch.support_images.isfinite().all()
