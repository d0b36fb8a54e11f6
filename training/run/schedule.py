"""Which stage, learning rate and episode seeds belong to each step of a run; it depends on counts alone, never on
time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from universeg_rt.errors import InputError
from universeg_rt.training.episodes.config import Stage
from universeg_rt.training.run.config import TrainConfig


@dataclass(frozen=True)
class Step:
    """One step of the optimiser: its number, the samples seen before it, its stage, learning rate and the seeds of this
    process's episodes, in groups that go through the network together."""

    number: int
    samples: int
    stage_index: int
    stage: Stage
    learning_rate: float
    groups: tuple[tuple[int, ...], ...]

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(seed for group in self.groups for seed in group)


def steps(
    config: TrainConfig, step: int, samples: int, rank: int = 0, world: int = 1, together: bool = False,
    finish: tuple[int, int] | None = None,
) -> Iterator[Step]:
    """The steps that follow `step` steps and `samples` samples, to the end of the last stage.

    `together`: all of a process's episodes go through the network at once, as a GPU likes it; else one by one, as a
    CPU's caches like it, each with its own support size. finish: (first, count) brings the learning rate linearly from
    what it is to zero over `count` samples after `first`, where the steps then end. Raises InputError where the
    episodes of a stage are not divisible among `world` processes.
    """
    ends, end = [], 0
    for stage in config.stages:
        end += stage.samples
        ends.append(end)
    for stage in config.stages:
        if stage.episodes % world:
            raise InputError(
                f"{stage.episodes} episodes a step are not divisible among {world} processes; give a multiple of "
                f"{world}"
            )
    if finish is not None:
        end = min(end, sum(finish))
    while samples < end:
        index = next(i for i, e in enumerate(ends) if samples < e)
        stage = config.stages[index]
        rate = stage.learning_rate
        if stage.final_learning_rate is not None:
            done = (samples - (ends[index] - stage.samples)) / stage.samples
            rate += (stage.final_learning_rate - rate) * done
        rate *= min(1.0, (step + 1) / max(1, config.warmup_steps))
        if finish is not None:
            rate *= 1.0 - (samples - finish[0]) / finish[1]
        # Every episode of a run has its own seed, and the same one however many processes share the work.
        first = (config.seed * 1_000_003 + step) * 4096 + rank
        seeds = [first + world * i for i in range(stage.episodes // world)]
        groups = (tuple(seeds),) if together else tuple((seed,) for seed in seeds)
        yield Step(step, samples, index, stage, rate, groups)
        step += 1
        samples += stage.queries * len(seeds) * world
