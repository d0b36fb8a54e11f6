"""Everything that a training run is made of, as dataclasses that one YAML file fills and every checkpoint carries."""

from __future__ import annotations

import dataclasses
import os
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path

from universeg_rt.errors import InputError
from universeg_rt.spec import NetworkSpec
from universeg_rt.training.augment import AugmentConfig
from universeg_rt.training.synthetic import TRAINING_TASKS, SyntheticConfig
from universeg_rt.training.tasks import SPLITS

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
class Stage:
    """A part of the training: `samples` queries of `size` pixels a side, then the next stage.

    entries: smallest and largest support size; drawn uniformly in the logarithm.
    queries: that share each support set. episodes: in one step of the optimiser, on all processes together.
    learning_rate goes linearly to final_learning_rate (None: stays) over the stage. average_samples: time constant of the
    running average of the weights, in samples. target_share: episodes whose targets' mean share of the image lies outside
    are drawn anew (a few times at most), for a curriculum from large to small targets.
    """

    samples: int
    size: int = 128
    entries: tuple[int, int] = (1, 16)
    queries: int = 2
    episodes: int = 4
    learning_rate: float = 1e-3
    final_learning_rate: float | None = None
    average_samples: float = 4000.0
    target_share: tuple[float, float] = (0.0, 1.0)


@dataclass(frozen=True)
class DataConfig:
    """Where episodes come from.

    datasets: YAML files of data sets (see datasets.py), whose files lie under data_root. leave_out: names of tasks never
    to train on. splits: of the subjects trained on (the paper's two). real_probability: that an episode is of a real
    task; its data set is drawn first, by the square root of its number of subjects. crop_probability: of cutting an episode's
    images to windows of `crop_window` (smallest and largest side, 1 is the whole image), so that small structures are seen
    large. crop_alike: of a window at one place in all images; else each image's window lies near its own target.
    synthetic_tasks: how many there are; each is a seed.
    """

    datasets: tuple[str, ...] = ()
    data_root: str = ""
    leave_out: tuple[str, ...] = ()
    splits: tuple[str, ...] = ("support", "dev", "test")
    real_probability: float = 0.4
    crop_probability: float = 0.5
    crop_window: tuple[float, float] = (0.35, 1.0)
    crop_alike: float = 0.3
    synthetic_tasks: int = TRAINING_TASKS
    synthetic: SyntheticConfig = SyntheticConfig()
    augment: AugmentConfig = AugmentConfig()

    def __post_init__(self) -> None:
        for name in ("real_probability", "crop_probability", "crop_alike"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise InputError(f"{name} is {getattr(self, name)}; it must lie in [0, 1]")
        if not 0.0 < self.crop_window[0] <= self.crop_window[1] <= 1.0:
            raise InputError(f"crop_window {list(self.crop_window)}; it goes from low to high in (0, 1]")
        if not 1 <= self.synthetic_tasks <= TRAINING_TASKS:
            raise InputError(f"synthetic_tasks is {self.synthetic_tasks}; accepted: 1 to {TRAINING_TASKS}")
        if not self.splits or not set(self.splits) <= set(SPLITS):
            raise InputError(f"splits {list(self.splits)}; accepted: {', '.join(SPLITS)}")


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
    static_weight: float = 0.0      # of the static network's loss, each query the other's proxy; the rest is the exact one's
    warmup_steps: int = 100
    clip_norm: float = 1.0
    autocast: str = "none"          # none, bfloat16 or float16
    compile: bool = False
    channels_last: bool = False     # pays on GPUs; slower on CPUs (measured)
    checkpoint_samples: int = 1000
    workers: int = 0                # processes that draw episodes ahead of a GPU; 0 draws on the training device

    def __post_init__(self) -> None:
        if self.autocast not in ("none", "bfloat16", "float16"):
            raise InputError(f"autocast {self.autocast!r}; accepted: none, bfloat16, float16")
        if self.loss not in LOSSES:
            raise InputError(f"loss {self.loss!r}; accepted: {', '.join(LOSSES)}")
        if self.clip_norm <= 0.0 or min(self.workers, self.warmup_steps) < 0:
            raise InputError(f"clip_norm {self.clip_norm}, workers {self.workers}, warmup_steps {self.warmup_steps}; "
                             "clip_norm lies above 0, the counts are not negative")
        if self.checkpoint_samples < 1 or self.validation.every_samples < 1:
            raise InputError("checkpoint_samples and validation.every_samples must be at least 1")
        if not self.stages:
            raise InputError("a training run needs at least one stage")
        if not 0.0 <= self.static_weight < 1.0:
            raise InputError(f"static_weight is {self.static_weight}; it lies in [0, 1)")
        if self.static_weight and (self.network.spec().cross_activation != "none" or any(s.queries < 2 for s in self.stages)):
            raise InputError("static_weight needs 2 queries or more in every stage and a network without an activation in the "
                             f"cross convolution; {self.network.spec().cross_activation} and {[s.queries for s in self.stages]} are given")
        multiple = self.network.spec().size_multiple
        for stage in self.stages:
            low, high = stage.entries
            if not 0.0 <= stage.target_share[0] < stage.target_share[1]:
                raise InputError(f"stage target_share {list(stage.target_share)}; it goes from low to high in [0, 1]")
            if stage.size % multiple or stage.size < multiple:
                raise InputError(f"stage size {stage.size}; it must be a multiple of {multiple}")
            if not 1 <= low <= high or min(stage.queries, stage.episodes, stage.samples, stage.average_samples) < 1:
                raise InputError(f"{stage}: entries must be 1 <= low <= high, and the counts at least 1")


def read_yaml(path: Path, what: str = ""):
    """The plain values of a YAML file; InputError where it cannot be read (`what` it is, for the message) or is not YAML."""
    import yaml

    try:
        return yaml.safe_load(path.read_text())
    except OSError as error:
        raise InputError(f"cannot read {what}{path}: {error.strerror}") from None
    except yaml.YAMLError as error:
        raise InputError(f"{path} is not YAML: {' '.join(str(error).split())}") from None


def load_config(path: str | os.PathLike) -> TrainConfig:
    """Read a YAML file; data-set paths in it are relative to it, and a folder is all YAML files in it.

    Raises InputError naming the field at fault.
    """
    path = Path(path)
    config = from_dict(TrainConfig, read_yaml(path) or {}, str(path))

    def resolved(names: tuple[str, ...]) -> tuple[str, ...]:
        places = [(path.parent / name).resolve() for name in names]
        return tuple(str(file) for place in places for file in (sorted(place.glob("*.yaml")) if place.is_dir() else [place]))

    return dataclasses.replace(
        config, data=dataclasses.replace(config.data, datasets=resolved(config.data.datasets)),
        validation=dataclasses.replace(config.validation, datasets=resolved(config.validation.datasets)))


def to_dict(config) -> dict:
    """Plain values for YAML and JSON; `from_dict` reads them back."""
    def plain(value):
        if isinstance(value, dict):
            return {k: plain(v) for k, v in value.items()}
        return [plain(v) for v in value] if isinstance(value, (list, tuple)) else value
    return plain(dataclasses.asdict(config))


def override(config, values: dict, where: str):
    """A config with some fields changed, given as nested plain values; a whole list or dict replaces the one before.

    Raises InputError for unknown fields and wrong types, saying where.
    """
    hints = typing.get_type_hints(type(config))
    if not isinstance(values, dict) or not set(values) <= set(hints):
        raise InputError(f"{where}: {values!r}; expected some of the fields {', '.join(hints)}")
    changes = {}
    for name, value in values.items():
        before, inside = getattr(config, name), f"{where}: {name}"
        nested = dataclasses.is_dataclass(before) and isinstance(value, dict)
        changes[name] = override(before, value, inside) if nested else _value(hints[name], value, inside)
    return dataclasses.replace(config, **changes)


def from_dict(kind, values, where: str):
    """A dataclass from nested plain values; InputError for unknown fields and wrong types, saying where."""
    if not isinstance(values, dict):
        raise InputError(f"{where}: expected a mapping of fields for {kind.__name__}, not {values!r}")
    hints = typing.get_type_hints(kind)
    unknown = sorted(set(values) - set(hints))
    if unknown:
        raise InputError(f"{where}: unknown fields {', '.join(map(str, unknown))}; accepted: {', '.join(hints)}")
    try:
        return kind(**{name: _value(hints[name], value, f"{where}: {name}") for name, value in values.items()})
    except TypeError as error:
        raise InputError(f"{where}: {error}") from None


def _value(hint, value, where: str):
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        hint = next(a for a in arguments if a is not type(None))
        return _value(hint, value, where)
    if dataclasses.is_dataclass(hint):
        return from_dict(hint, value, where)
    if origin is tuple:
        if not isinstance(value, (list, tuple)) or (arguments[-1] is not ... and len(value) != len(arguments)):
            raise InputError(f"{where} is {value!r}; expected a list" + (
                "" if arguments[-1] is ... else f" of {len(arguments)}"))
        kinds = [arguments[0]] * len(value) if arguments[-1] is ... else arguments
        return tuple(_value(k, v, f"{where}[{i}]") for i, (k, v) in enumerate(zip(kinds, value)))
    if origin is dict:
        if not isinstance(value, dict):
            raise InputError(f"{where} is {value!r}; expected a mapping")
        return {str(k): _value(arguments[1], v, f"{where}.{k}") for k, v in value.items()}
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hint is float and isinstance(value, str):  # YAML reads 1e-3 as text
        try:
            return float(value)
        except ValueError:
            pass
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise InputError(f"{where} is {value!r}; expected {hint.__name__}")
    return value
