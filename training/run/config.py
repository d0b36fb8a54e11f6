"""Everything that a training run is made of, as dataclasses that one YAML file fills and every checkpoint carries."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path

from universeg_rt.errors import InputError, shown
from universeg_rt.spec import NetworkSpec
from universeg_rt.storage.reading import reading
from universeg_rt.training.episodes.config import DataConfig, Stage
from universeg_rt.training.settings.bounds import check_numbers
from universeg_rt.training.settings.values import from_dict, read_yaml
from universeg_rt.training.tasks.tasks import SPLITS

LOSSES = ("dice", "dice_ce")


@dataclass(frozen=True)
class NetworkConfig:
    """A preset of NetworkSpec, or the same with another number of features in every stage."""

    preset: str = "v1"
    features: int | None = None

    def spec(self) -> NetworkSpec:
        spec = NetworkSpec.preset(self.preset)
        if self.features is None:
            return spec
        return dataclasses.replace(
            spec, encoder_features=(self.features,) * len(spec.encoder_features),
            decoder_features=(self.features,) * len(spec.decoder_features))


@dataclass(frozen=True)
class ValidationConfig:
    """Mean Dice over tasks left out of training, for choosing among checkpoints; never trained on."""

    datasets: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    split: str = "dev"
    entries: int = 16
    queries: int = 12
    every_samples: int = 2000


@dataclass(frozen=True)
class TrainConfig:
    """One training run. Counts are in samples (queries), not in time, so a run may be paused and moved."""

    network: NetworkConfig = NetworkConfig()
    stages: tuple[Stage, ...] = (Stage(samples=20_000, size=64, entries=(1, 8)),)
    data: DataConfig = DataConfig()
    validation: ValidationConfig = ValidationConfig()
    seed: int = 0
    loss: str = "dice"              # dice, or dice_ce: soft Dice plus binary cross-entropy
    # of the static network's loss, each query the other's proxy; the rest is the exact one's
    static_weight: float = 0.0
    warmup_steps: int = 100
    clip_norm: float = 1.0
    autocast: str = "none"          # none, bfloat16 or float16
    compile: bool = False
    channels_last: bool = False     # pays on GPUs; slower on CPUs (measured)
    checkpoint_samples: int = 1000
    workers: int = 0                # processes that draw episodes ahead of a GPU; 0 draws on the training device

    def __post_init__(self) -> None:
        if self.autocast not in ("none", "bfloat16", "float16"):
            raise InputError(f"autocast {shown(self.autocast)}; accepted: none, bfloat16, float16")
        if self.loss not in LOSSES:
            raise InputError(f"loss {shown(self.loss)}; accepted: {', '.join(LOSSES)}")
        check_numbers(self)
        if self.validation.split not in SPLITS:
            raise InputError(f"validation.split {shown(self.validation.split)}; accepted: {', '.join(SPLITS)}")
        if not self.stages:
            raise InputError("a training run needs at least one stage")
        if self.static_weight and (self.network.spec().cross_activation != "none" or any(s.queries < 2
                                                                                         for s in self.stages)):
            raise InputError(
                "static_weight needs 2 queries or more in every stage and a network without an activation in the "
                f"cross convolution; {self.network.spec().cross_activation} and {[s.queries for s in self.stages]} are "
                "given"
            )
        multiple = self.network.spec().size_multiple
        for stage in self.stages:
            if stage.target_share[0] == stage.target_share[1]:
                raise InputError(f"stage target_share {list(stage.target_share)}; it goes from low to high in [0, 1]")
            if stage.size % multiple:
                raise InputError(f"stage size {stage.size}; it must be a multiple of {multiple}")


def load_config(path: str | os.PathLike) -> TrainConfig:
    """Read a YAML file; data-set paths in it are relative to it, and a folder is all YAML files in it.

    Raises InputError naming the field at fault.
    """
    path = Path(path)
    values = read_yaml(path)
    config = from_dict(TrainConfig, {} if values is None else values, str(path))

    def resolved(names: tuple[str, ...]) -> tuple[str, ...]:
        with reading("a training configuration", path, cure="correct the names of its data sets"):
            places = [(path.parent / name).resolve() for name in names]
            return tuple(
                str(file) for place in places for file in (sorted(place.glob("*.yaml")) if place.is_dir() else [place]))

    return dataclasses.replace(
        config, data=dataclasses.replace(config.data, datasets=resolved(config.data.datasets)),
        validation=dataclasses.replace(config.validation, datasets=resolved(config.validation.datasets)))
