"""Which intensities span an image's range: all of them, a window, or those between two percentiles."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from ..errors import BlankError, InputError, NoiseError, shown
from ..named_types import Array, Doubles, Floats
from .preprocess import check_not_blank, normalise

MINMAX: Literal["minmax"] = "minmax"
LEAST_SHARE = 0.25  # of its volume's range: a slice that spans as much is stretched to [0, 1]
# A slice holds nothing but noise where it stays below this share of its volume's range, its pixels hardly depend on
# their neighbours (of independent ones the measure is 1, of tissue a few hundredths), means of 2x2 pixels do so even
# less (of independent ones 1 again, of tissue under noise or of thin lines about a half), and no pixel is so many
# standard deviations from the mean, as small bright spots are.
NOISE_SHARE, ROUGH, ROUGH_MEANS, FAR = 0.5, 0.4, 0.65, 7.0
UNITS = 200  # times as wide as the other: a window and a volume's range are hardly in the same units; a CT's range is
# a hundred times the narrowest usual window
# Centre and width in Hounsfield units, as Radiopaedia's "Windowing (CT)" lists them; of its ranges the middle.
CT_WINDOWS = {
    "abdomen": (50, 400), "bone": (400, 1800), "brain": (40, 80), "liver": (30, 150), "lung": (-600, 1500),
    "mediastinum": (50, 350), "soft-tissue": (40, 375), "spine": (50, 250), "stroke": (40, 40), "subdural": (75, 215),
    "temporal-bone": (600, 2800),
}


@dataclass(frozen=True)
class Window:
    """Intensities from low, which becomes 0, to high, which becomes 1, whatever an image spans; what lies outside
    is clipped to them. Such as a window of a CT in Hounsfield units.

    Raises InputError unless both are finite and low is below high.
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        _check_limits("the window", self.low, self.high, -math.inf, math.inf)

    def __str__(self) -> str:
        return f"window {self.low:g} to {self.high:g}"

    @classmethod
    def preset(cls, name: str) -> Window:
        """A usual window of CT by name, such as `lung` or `soft-tissue`; InputError where none has that name."""
        if not isinstance(name, str) or name not in CT_WINDOWS:
            raise InputError(f"there is no window {shown(name)}; accepted: {', '.join(CT_WINDOWS)}")
        centre, width = CT_WINDOWS[name]
        return cls(centre - width / 2, centre + width / 2)

    def clip(self, image: Array) -> Doubles:
        """(H,W) -> (H,W) float64."""
        out: Doubles = np.clip(image.astype(np.float64), self.low, self.high)
        return out

    def misses(self, low: float, high: float) -> bool:
        """Whether a volume with these intensities shows hardly anything in the window: all lie beside it, or one of
        the two is `UNITS` times as wide as the other. Never of a volume of one value."""
        if low == high:
            return False
        share = (high - low) / (self.high - self.low)
        return high <= self.low or low >= self.high or not 1 / UNITS < share < UNITS


@dataclass(frozen=True)
class Percentiles:
    """Intensities between two percentiles of each image, from 0 to 100; what lies outside is clipped to them, so that
    a few hot pixels do not set the range. Raises InputError where they are out of range or low is not below high.
    """

    low: float = 0.5
    high: float = 99.5

    def __post_init__(self) -> None:
        _check_limits("the percentiles", self.low, self.high, 0, 100)

    def __str__(self) -> str:
        return f"percentiles {self.low:g} to {self.high:g}"

    def clip(self, image: Array) -> Array:
        """(H,W) -> (H,W) of the same type."""
        if image.dtype.kind == "b":
            return image
        low, high = np.percentile(
            image, (self.low, self.high), method="nearest"
        )  # values that are there: no type changes
        out: Array = np.clip(image, low, high)
        return out


Normalisation = Window | Percentiles | Literal["minmax"]
Range = tuple[float, float]  # of a volume's intensities: the lowest and the highest but for outliers


def check_normalisation(how: object) -> Normalisation:
    """The value itself; InputError where it is none of those accepted."""
    if isinstance(how, (Window, Percentiles)):
        return how
    if isinstance(how, str) and how == MINMAX:
        return MINMAX
    raise InputError(f"normalise is {how!r}; accepted: 'minmax', Window(low, high), Percentiles(low, high)")


def check_range(values: object) -> Range | None:
    """None, or a volume's range of intensities; InputError unless it is two finite numbers, the second not below."""
    if values is None:
        return None
    try:
        low, high = map(float, values)  # type: ignore[call-overload]
    except (TypeError, ValueError):
        low, high = 1.0, 0.0
    if not -np.inf < low <= high < np.inf:
        raise InputError(f"volume_range is {shown(values)}; give the lowest and the highest intensity of the volume")
    return low, high


class Normalised(NamedTuple):
    """values: (H,W) float32 in [0, 1]. own: whether the image's own minimum and maximum, or percentiles, became 0 and
    1."""

    values: Floats
    own: bool


def normalised(image: Array, how: Normalisation, name: str, share: float = 1.0) -> Normalised:
    """An image (H,W) clipped as `how` says, then by its minimum and maximum, as the network was trained; of a Window
    the ends are 0 and 1. share: of [0, 1] that the image takes, as `share_of` gives it.

    BlankError where nothing but one value is left of the image.
    """
    check_not_blank(image, name)
    clipped = image if isinstance(how, str) else how.clip(image)
    if clipped.min() == clipped.max():
        raise BlankError(
            f"{name} is constant within {how} (its values lie from {image.min()} to {image.max()})",
            "; give a range that its values span",
        )
    if isinstance(how, Window):
        return Normalised(((clipped - how.low) / (how.high - how.low)).astype(np.float32), False)
    values = normalise(clipped)
    return Normalised(values, True) if share >= 1 else Normalised(values * np.float32(share), False)


def span_of(image: Array) -> float:
    """From its least value to its greatest."""
    return float(image.max()) - float(image.min())


def check_not_noise(image: Array, name: str, volume_range: Range | None) -> None:
    """NoiseError where a slice (H,W) of a volume of this range holds nothing but noise: it is dark, and its pixels, and
    means of 2x2 of them, do not depend on their neighbours by `_roughness`; no small spot stands out."""
    if volume_range is None or min(image.shape) < 4 or image.min() == image.max():
        return
    low, high = volume_range
    if float(image.max()) >= low + NOISE_SHARE * (high - low):
        return
    wide = image.astype(np.float64)
    if _roughness(wide) <= ROUGH or np.abs(wide - wide.mean()).max() > FAR * wide.std():
        return
    height, width = (size // 2 for size in wide.shape)
    if _roughness(wide[:2 * height, :2 * width].reshape(height, 2, width, 2).mean(axis=(1, 3))) > ROUGH_MEANS:
        raise NoiseError(f"{name} holds nothing but noise", f": it reaches {image.max():g}, in a volume of {low:g} to "
                         f"{high:g}; leave it out")


def _roughness(image: Doubles) -> float:
    """Von Neumann's ratio of an image (H,W): half the mean square of steps over the variance; 0 where it has none."""
    variance = float(image.var())
    steps = [float((np.diff(image, axis=axis)**2).mean()) for axis in (0, 1)]
    return sum(steps) / 4 / variance if variance > 0 else 0.0


def share_of(image: Array, how: Normalisation, volume_range: Range | None) -> float:
    """The share of [0, 1] that a slice (H,W) of a volume takes: all, unless it spans less than LEAST_SHARE of
    `volume_range`; then as much less of it. A Window says that itself: 1."""
    if volume_range is None or isinstance(how, Window):
        return 1.0
    low, high = volume_range
    clipped = image if isinstance(how, str) else how.clip(image)
    return min(1.0, span_of(clipped) / (LEAST_SHARE * (high - low))) if high > low else 1.0


def _check_limits(name: str, low: object, high: object, least: float, most: float) -> None:
    for value in (low, high):
        if (
            isinstance(value, bool)
            or not isinstance(value, (int, float, np.integer, np.floating))
            or not math.isfinite(value)
        ):
            raise InputError(f"{name} from {low!r} to {high!r}: give two finite numbers")
    if not least <= low < high <= most:  # type: ignore[operator]  # numbers, as checked above
        raise InputError(f"{name} from {low} to {high}: accepted are {least:g} to {most:g}, the first below the second")
