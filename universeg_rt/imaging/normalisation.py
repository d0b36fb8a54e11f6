"""Which intensities span an image's range: all of them, a window, or those between two percentiles."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ..errors import BlankError, InputError, shown
from ..named_types import Array, Doubles, Floats
from .preprocess import check_not_blank, normalise

MINMAX: Literal["minmax"] = "minmax"
# Centre and width in Hounsfield units, as Radiopaedia's "Windowing (CT)" lists them; of its ranges the middle.
CT_WINDOWS = {
    "abdomen": (50, 400), "bone": (400, 1800), "brain": (40, 80), "liver": (30, 150), "lung": (-600, 1500),
    "mediastinum": (50, 350), "soft-tissue": (40, 375), "spine": (50, 250), "stroke": (40, 40), "subdural": (75, 215),
    "temporal-bone": (600, 2800),
}


@dataclass(frozen=True)
class Window:
    """Intensities from low to high, such as a window of a CT in Hounsfield units; what lies outside is clipped to them.

    Raises InputError unless both are finite and low is below high.
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        _check_range("the window", self.low, self.high, -math.inf, math.inf)

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


@dataclass(frozen=True)
class Percentiles:
    """Intensities between two percentiles of each image, from 0 to 100; what lies outside is clipped to them, so that
    a few hot pixels do not set the range. Raises InputError where they are out of range or low is not below high.
    """

    low: float = 0.5
    high: float = 99.5

    def __post_init__(self) -> None:
        _check_range("the percentiles", self.low, self.high, 0, 100)

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


def check_normalisation(how: object) -> Normalisation:
    """The value itself; InputError where it is none of those accepted."""
    if isinstance(how, (Window, Percentiles)):
        return how
    if isinstance(how, str) and how == MINMAX:
        return MINMAX
    raise InputError(f"normalise is {how!r}; accepted: 'minmax', Window(low, high), Percentiles(low, high)")


def normalised(image: Array, how: Normalisation, name: str) -> Floats:
    """(H,W) float32 in [0, 1]: clipped as `how` says, then by minimum and maximum, which is what the network was
    trained with.

    BlankError where nothing but one value is left of the image.
    """
    check_not_blank(image, name)
    if isinstance(how, str):
        return normalise(image)
    clipped = how.clip(image)
    if clipped.min() == clipped.max():
        raise BlankError(
            f"{name} is constant within {how} (its values lie from {image.min()} to {image.max()})",
            "; give a range that its values span",
        )
    return normalise(clipped)


def _check_range(name: str, low: object, high: object, least: float, most: float) -> None:
    for value in (low, high):
        if (
            isinstance(value, bool)
            or not isinstance(value, (int, float, np.integer, np.floating))
            or not math.isfinite(value)
        ):
            raise InputError(f"{name} from {low!r} to {high!r}: give two finite numbers")
    if not least <= low < high <= most:  # type: ignore[operator]  # numbers, as checked above
        raise InputError(f"{name} from {low} to {high}: accepted are {least:g} to {most:g}, the first below the second")
