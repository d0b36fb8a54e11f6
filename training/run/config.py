"""Everything that a training run is made of, as dataclasses that one YAML file fills and every checkpoint carries."""

from __future__ import annotations

import dataclasses
import math
import os
import types
import typing
from dataclasses import dataclass
from pathlib import Path

from universeg_rt.training.episodes.augment import AugmentConfig
from universeg_rt.training.episodes.synthetic import TRAINING_TASKS, SyntheticConfig
from universeg_rt.training.run.bounds import check_numbers
from universeg_rt.training.tasks.tasks import SPLITS

from universeg_rt.errors import InputError, shown
from universeg_rt.spec import NetworkSpec
from universeg_rt.storage.reading import reading

LOSSES = ("dice", "dice_ce")
MAX_YAML = 1 << 17  # bytes, and values with aliases written out


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
    learning_rate goes linearly to final_learning_rate (None: stays) over the stage. average_samples: time constant of
    the running average of the weights, in samples. target_share: episodes whose targets' mean share of the image lies
    outside are drawn anew (a few times at most), for a curriculum from large to small targets.
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

    datasets: YAML files of data sets (see datasets.py), whose files lie under data_root. leave_out: names of tasks
    never to train on. splits: of the subjects trained on (the paper's two). real_probability: that an episode is of a
    real task; its data set is drawn first, by the square root of its number of subjects. crop_probability: of cutting
    an episode's images to windows of `crop_window` (smallest and largest side, 1 is the whole image), so that small
    structures are seen large. crop_alike: of a window at one place in all images; else each image's window lies near
    its own target. synthetic_tasks: how many there are; each is a seed.
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
        check_numbers(self, "data.")
        if not self.splits or not set(self.splits) <= set(SPLITS):
            raise InputError(f"splits {shown(list(self.splits))}; accepted: {', '.join(SPLITS)}")


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


def read_yaml(path: Path, what: str = "a YAML file"):
    """The plain values of a YAML file; InputError where it cannot be read as `what` it is,
    or is too large with its aliases."""
    import yaml

    with reading(what, path, cure="correct it, or write it again"):
        with open(path, "rb") as file:
            text = file.read(MAX_YAML + 1)
        if len(text) > MAX_YAML:
            raise InputError(f"{path} has more than {MAX_YAML} bytes; {what} is a text of a few pages")
        try:
            loader = yaml.SafeLoader(text)
            root = loader.get_single_node()
            if root is None:
                return None
            if _nodes(root) > MAX_YAML:
                raise InputError(f"{path} has aliases that make more than {MAX_YAML} values of it; write them out")
            return loader.construct_document(root)
        except yaml.YAMLError as error:
            raise InputError(f"{path} is not YAML: {' '.join(str(error).split())}") from None


def _nodes(root) -> int:
    """How many nodes a YAML document has with its aliases written out; infinite where one holds itself."""
    known: dict[int, float] = {}

    def count(node) -> float:
        if id(node) not in known:
            known[id(node)] = math.inf  # until it is counted: whoever asks before lies inside it
            inside = node.value if isinstance(node.value, list) else ()
            known[id(node)] = 1 + sum(
                count(n) for item in inside for n in (item if isinstance(item, tuple) else (item, )))
        return known[id(node)]

    return count(root)


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
        raise InputError(f"{where}: {shown(values)}; expected some of the fields {', '.join(hints)}")
    changes = {}
    for name, value in values.items():
        before, inside = getattr(config, name), f"{where}: {name}"
        nested = dataclasses.is_dataclass(before) and isinstance(value, dict)
        changes[name] = override(before, value, inside) if nested else _value(hints[name], value, inside)
    return dataclasses.replace(config, **changes)


def from_dict(kind, values, where: str):
    """A dataclass from nested plain values; InputError for unknown fields and wrong types, saying where."""
    if not isinstance(values, dict):
        raise InputError(f"{where}: expected a mapping of fields for {kind.__name__}, not {shown(values)}")
    hints = typing.get_type_hints(kind)
    unknown = sorted(shown(name).strip("'") for name in set(values) - set(hints))
    if unknown:
        raise InputError(f"{where}: unknown fields {', '.join(unknown[:5])}; accepted: {', '.join(hints)}")
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
            raise InputError(f"{where} is {shown(value)}; expected a list" + (
                "" if arguments[-1] is ... else f" of {len(arguments)}"))
        kinds = [arguments[0]] * len(value) if arguments[-1] is ... else arguments
        return tuple(_value(k, v, f"{where}[{i}]") for i, (k, v) in enumerate(zip(kinds, value)))
    if origin is dict:
        if not isinstance(value, dict):
            raise InputError(f"{where} is {shown(value)}; expected a mapping")
        # str() refuses huge integers
        named = [(shown(k) if isinstance(k, int) else str(k), v) for k, v in value.items()]
        return {k: _value(arguments[1], v, f"{where}.{k[:40]}") for k, v in named}
    if hint is float and isinstance(value, (int, str)) and not isinstance(value, bool):  # YAML reads 1e-3 as text
        try:
            value = float(value)
        except (ValueError, OverflowError):
            pass
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise InputError(f"{where} is {shown(value)}; expected {hint.__name__}")
    return value
