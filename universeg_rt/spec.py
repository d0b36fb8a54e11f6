"""NetworkSpec: the few facts that tell one UniverSeg network from another."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, fields

from .errors import SpecError, shown
from .storage.reading import reading, reason

CROSS_ACTIVATIONS = ("none", "leaky_relu")
DOWNSAMPLINGS = ("max_pool", "bilinear")
UPSAMPLINGS = ("bilinear",)
MAX_STAGES, MAX_FEATURES = 12, 1024  # far above any network of this kind; a mistyped one would take all memory
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
        if not 2 <= len(self.encoder_features) <= MAX_STAGES or len(self.decoder_features) != len(self.encoder_features) - 1:
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
        return 2 ** (len(self.encoder_features) - 1)

    def blocks(self) -> list["BlockSpec"]:
        """The CrossBlocks in the order in which they run."""
        enc, dec = self.encoder_features, self.decoder_features
        out = [
            BlockSpec(f"enc_blocks.{i}", 1 if i == 0 else enc[i - 1], 2 if i == 0 else enc[i - 1], features, i)
            for i, features in enumerate(enc)
        ]
        below = enc[-1]
        for i, features in enumerate(dec):
            level = len(enc) - 2 - i
            out.append(BlockSpec(f"dec_blocks.{i}", below + enc[level], below + enc[level], features, level))
            below = features
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

    def to_dict(self) -> dict:
        """Plain values for JSON; `from_dict` reads them back."""
        out = asdict(self)
        out["encoder_features"] = list(self.encoder_features)
        out["decoder_features"] = list(self.decoder_features)
        return out

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), sort_keys=True)

    @classmethod
    def from_dict(cls, values: dict) -> "NetworkSpec":
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
    def from_json(cls, text: str | bytes) -> "NetworkSpec":
        try:
            values = json.loads(text)
        except (ValueError, TypeError, RecursionError) as error:
            raise SpecError(f"network specification is not JSON: {reason(error)}") from None
        return cls.from_dict(values)

    @classmethod
    def read(cls, path: str | os.PathLike) -> "NetworkSpec":
        """From a JSON file; SpecError where it cannot be read or says no network."""
        with reading("a network specification", path, SpecError):
            with open(path, "rb") as file:
                return cls.from_json(file.read(MAX_JSON))

    @classmethod
    def preset(cls, name: str) -> "NetworkSpec":
        """`v1` (the released network) or `paper` (section 5.1); SpecError for another name."""
        _one_of("preset", name, tuple(PRESETS))
        return PRESETS[name]


@dataclass(frozen=True)
class BlockSpec:
    """One CrossBlock: its state-dict prefix, channels in and out, and its level (0 is full resolution)."""

    name: str
    query_channels: int
    support_channels: int
    features: int
    level: int

    @property
    def is_decoder(self) -> bool:
        return self.name.startswith("dec_blocks")


def _one_of(name: str, value: object, accepted: tuple[str, ...]) -> None:
    if value not in accepted:
        raise SpecError(f"{name} is {shown(value)}; accepted: {', '.join(accepted)}")


PRESETS = {
    "v1": NetworkSpec("none", (64,) * 4, (64,) * 3, "max_pool"),
    "paper": NetworkSpec("leaky_relu", (64,) * 5, (64,) * 4, "bilinear"),
}
