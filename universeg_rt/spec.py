"""NetworkSpec: the few facts that tell one UniverSeg network from another."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from .errors import SpecError, shown
from .storage.reading import reading, reason

if TYPE_CHECKING:
    from .named_types import AnyPath

Value = TypeVar("Value")
CROSS_ACTIVATIONS = ("none", "leaky_relu")
DOWNSAMPLINGS = ("max_pool", "bilinear")
UPSAMPLINGS = ("bilinear",)
MAX_STAGES, MAX_FEATURES = 12, 1024  # far above any network of this kind; a mistyped one would take all memory
HALVED, SAME, DOUBLED = "halved", "same", "doubled"  # how a map is resized between two blocks
QUERY_CHANNELS, SUPPORT_CHANNELS = 1, 2  # of the first block: the query's image; an entry's image and label
MAX_JSON = 1 << 16  # bytes of a file, of which a specification takes some hundred


@dataclass(frozen=True)
class NetworkSpec:
    """What a UniverSeg network is (paper section 3.1, Fig. 3), weights aside.

    cross_activation: the activation inside the CrossBlock between the cross convolution and the two convolutions that
        read it. `leaky_relu` is the paper's Eq. 2; `none` is what the released v1 weights were trained with.
    encoder_features, decoder_features: output channels of each stage, first to last; a decoder has one stage less.
    downsample: `max_pool` is 2x2 with stride 2; `bilinear` is bilinear interpolation at half the size with half-pixel
        centres, which is the mean of each 2x2 square.
    upsample: `bilinear` doubles the size with aligned corners.
    negative_slope: of every LeakyReLU.
    """

    cross_activation: str
    encoder_features: tuple[int, ...]
    decoder_features: tuple[int, ...]
    downsample: str
    upsample: str = "bilinear"
    negative_slope: float = 0.01

    def __post_init__(self) -> None:
        for name in ("encoder_features", "decoder_features"):
            try:
                features = tuple(getattr(self, name))
            except TypeError:
                raise SpecError(f"{name} is {shown(getattr(self, name))}; give one integer a stage") from None
            if any(isinstance(f, bool) or not isinstance(f, int) or not 1 <= f <= MAX_FEATURES for f in features):
                raise SpecError(f"{name} is {shown(features)}; each stage needs a positive integer number of features, "
                                f"at most {MAX_FEATURES}")
            object.__setattr__(self, name, features)
        _one_of("cross_activation", self.cross_activation, CROSS_ACTIVATIONS)
        _one_of("downsample", self.downsample, DOWNSAMPLINGS)
        _one_of("upsample", self.upsample, UPSAMPLINGS)
        encoders, decoders = len(self.encoder_features), len(self.decoder_features)
        if not 2 <= encoders <= MAX_STAGES or decoders != encoders - 1:
            raise SpecError(
                f"{len(self.encoder_features)} encoder and {len(self.decoder_features)} decoder stages; a network "
                f"has 2 to {MAX_STAGES} encoder stages and exactly one decoder stage less"
            )
        if isinstance(self.negative_slope, bool) or not isinstance(self.negative_slope, (int, float)) \
                or not 0.0 < self.negative_slope < 1.0:
            raise SpecError(f"negative_slope is {shown(self.negative_slope)}; it must lie between 0 and 1")

    @property
    def size_multiple(self) -> int:
        """Image height and width must be multiples of this (8 for v1, 16 for the paper's network)."""
        return 1 << len(self.encoder_features) - 1

    def topology(self) -> list[tuple[str, int, tuple[Edge, ...]]]:
        """Name, level and sources of each block, in the order in which they run: the one statement from which `blocks`,
        and with it every form of the network, follows."""
        encoders = len(self.encoder_features)
        out: list[tuple[str, int, tuple[Edge, ...]]] = [
            (f"enc_blocks.{i}", i, (Edge(i - 1, HALVED),) if i else ()) for i in range(encoders)]
        for i in range(len(self.decoder_features)):
            skip = encoders - 2 - i  # an encoder block's position is its level
            out.append((f"dec_blocks.{i}", skip, (Edge(encoders + i - 1, DOUBLED), Edge(skip, SAME))))
        return out

    def blocks(self) -> list[BlockSpec]:
        """The CrossBlocks in the order in which they run, each with what it reads and who reads it."""
        features, places, out = self.encoder_features + self.decoder_features, self.topology(), []
        for i, (name, level, sources) in enumerate(places):
            read = sum(features[edge.block] for edge in sources)
            readers = tuple(
                Edge(j, edge.resize) for j, (*_, edges) in enumerate(places) for edge in edges if edge.block == i)
            out.append(
                BlockSpec(name, read or QUERY_CHANNELS, read or SUPPORT_CHANNELS, features[i], level, i, sources,
                          readers))
        return out

    def weight_shapes(self) -> dict[str, tuple[int, ...]]:
        """Every key of the state dict with its shape; the keys are those of the published v1 weights."""
        shapes: dict[str, tuple[int, ...]] = {}
        for b in self.blocks():
            shapes[f"{b.name}.cross.cross_conv.weight"] = (b.features, b.query_channels + b.support_channels, 3, 3)
            shapes[f"{b.name}.cross.cross_conv.bias"] = (b.features,)
            for branch in ("target", "support"):
                shapes[f"{b.name}.{branch}.vmapped.conv.weight"] = (b.features, b.features, 3, 3)
                shapes[f"{b.name}.{branch}.vmapped.conv.bias"] = (b.features,)
        shapes["out_conv.conv.weight"] = (1, self.decoder_features[-1], 1, 1)
        shapes["out_conv.conv.bias"] = (1,)
        return shapes

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; `from_dict` reads them back."""
        out = asdict(self)
        out["encoder_features"] = list(self.encoder_features)
        out["decoder_features"] = list(self.decoder_features)
        return out

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), sort_keys=True)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> NetworkSpec:
        """Raises SpecError where a field is missing or unknown, or a value is out of range."""
        if not isinstance(values, dict):
            raise SpecError(f"a network specification is a mapping of fields, not {type(values).__name__}")
        known = {f.name for f in fields(cls)}
        unknown = sorted(map(shown, set(values) - known))
        missing = sorted(known - set(values) - {"upsample", "negative_slope"})
        if unknown or missing:
            raise SpecError(f"network specification: unknown fields {', '.join(unknown[:5]) or 'none'}, missing fields "
                            f"{', '.join(missing) or 'none'}")
        return cls(**values)

    @classmethod
    def from_json(cls, text: str | bytes) -> NetworkSpec:
        try:
            values = json.loads(text)
        except (ValueError, TypeError, RecursionError) as error:
            raise SpecError(f"network specification is not JSON: {reason(error)}") from None
        return cls.from_dict(values)

    @classmethod
    def read(cls, path: AnyPath) -> NetworkSpec:
        """From a JSON file; SpecError where it cannot be read or says no network."""
        with reading("a network specification", path, SpecError):
            with open(path, "rb") as file:
                return cls.from_json(file.read(MAX_JSON))

    @classmethod
    def preset(cls, name: str) -> NetworkSpec:
        """`v1` (the released network) or `paper` (section 5.1); SpecError for another name."""
        _one_of("preset", name, tuple(PRESETS))
        return PRESETS[name]


@dataclass(frozen=True)
class Edge:
    """A map that passes between two blocks: the other block's position, and how the map is resized on its way."""

    block: int
    resize: str  # HALVED, SAME or DOUBLED


@dataclass(frozen=True)
class BlockSpec:
    """One CrossBlock and its place in the network.

    name: its prefix in the state dict. query_channels, support_channels: that it reads; features: that it gives.
    level: 0 is full resolution, each further one half of it. index: its position in the order of work.
    sources: the blocks whose outputs it reads, in the order of its input channels, for the query and for every support
    entry alike; none for the first block, which reads the images. readers: the blocks that read its outputs.
    """

    name: str
    query_channels: int
    support_channels: int
    features: int
    level: int
    index: int
    sources: tuple[Edge, ...]
    readers: tuple[Edge, ...]

    @property
    def label(self) -> str:
        """`enc_blocks.0` -> `enc0`, by which graphs name its parts."""
        return self.name.replace("_blocks.", "")

    @property
    def is_decoder(self) -> bool:
        """Whether it reads a doubled map."""
        return any(edge.resize == DOUBLED for edge in self.sources)

    @property
    def is_first(self) -> bool:
        return not self.sources

    @property
    def is_last(self) -> bool:
        """Whether nothing but the head reads it; the head reads the query alone, so nothing reads its entries."""
        return not self.readers

    @property
    def is_halved(self) -> bool:
        """Whether a block reads its output at half the size."""
        return any(edge.resize == HALVED for edge in self.readers)

    @property
    def full_readers(self) -> tuple[int, ...]:
        """Positions of the blocks that read its output before any halving."""
        return tuple(edge.block for edge in self.readers if edge.resize != HALVED)


class Flow(Generic[Value]):
    """The outputs of blocks while a network runs: each is kept until its last reader has read it."""

    def __init__(self, blocks: Sequence[BlockSpec]) -> None:
        self._blocks = blocks
        self._kept: dict[int, Value] = {}

    def read(self, block: BlockSpec) -> list[tuple[Value, str]]:
        """What the block reads, in the order of its input channels, each with how it is to be resized."""
        out = [(self._kept[edge.block], edge.resize) for edge in block.sources]
        for edge in block.sources:
            if max(reader.block for reader in self._blocks[edge.block].readers) == block.index:
                del self._kept[edge.block]
        return out

    def keep(self, block: BlockSpec, value: Value) -> None:
        if block.readers:
            self._kept[block.index] = value


def _one_of(name: str, value: object, accepted: tuple[str, ...]) -> None:
    if value not in accepted:
        raise SpecError(f"{name} is {shown(value)}; accepted: {', '.join(accepted)}")


PRESETS = {
    "v1": NetworkSpec("none", (64,) * 4, (64,) * 3, "max_pool"),
    "paper": NetworkSpec("leaky_relu", (64,) * 5, (64,) * 4, "bilinear"),
}
