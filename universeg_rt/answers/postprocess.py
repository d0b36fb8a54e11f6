"""Steps that clean masks up, each by its name and all off by default: components, holes, size, smoothing."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from ..errors import InputError, RunnerError, shown
from ..install import install_hint
from ..named_types import Array, Bools, Floats, Vendor

NAMES = ("smooth", "largest-component", "fill-holes", "minimum-size")
ACCEPTED = (
    "largest-component, largest-component-3d, fill-holes, fill-holes-3d, minimum-size=50, minimum-size=50mm, "
    "minimum-size-3d=50, minimum-size-3d=50mm, smooth=1"
)
MOST_SMOOTHING = 100.0  # slices
UNIT = re.compile(r"[0-9.]+ *([^\W\d_].*)", re.DOTALL)  # a number with something behind it


@dataclass(frozen=True)
class Step:
    """One step, as text such as `largest-component` or `minimum-size=50mm`; `str(step)` gives it back.

    name: `largest-component` keeps the largest connected part (4 neighbours in a slice, 6 in a volume);
    `fill-holes` fills background that the mask encloses; `minimum-size` removes parts smaller than `value`, in pixels
    (voxels), or with `mm` in mm2 (mm3); `smooth` is a Gaussian over neighbouring slices of probabilities, before they
    are cut, of a standard deviation of `value` slices. volume: over the stack (`-3d`) rather than slice by slice.
    """

    name: str
    value: float | None = None
    volume: bool = False
    millimetres: bool = False

    def __str__(self) -> str:
        said = self.name + "-3d" * (self.volume and self.name != "smooth")
        return said if self.value is None else f"{said}={self.value:g}{'mm' * self.millimetres}"


def parse_steps(texts: str | Iterable[str]) -> tuple[Step, ...]:
    """Steps of texts such as `["largest-component-3d", "minimum-size=50"]`, or of one text with commas between them;
    they are taken in that order, `smooth` first wherever it stands. Raises InputError for a step that is unknown, is
    given twice, or lacks its number."""
    if isinstance(texts, str):
        texts = [text for text in texts.split(",") if text.strip()]
    steps = [_parse(text) for text in texts]
    for i, step in enumerate(steps):
        if any(step.name == other.name and step.volume == other.volume for other in steps[:i]):
            raise InputError(f"the step {step} is given twice; give it once")
    return tuple(sorted(steps, key=lambda step: step.name != "smooth"))


def _parse(text: str) -> Step:
    if not isinstance(text, str):
        raise InputError(f"a step is {shown(text)}; accepted: {ACCEPTED}")
    given, equals, number = text.strip().partition("=")
    volume = given.endswith("-3d")
    name = given.removesuffix("-3d")
    if name not in NAMES or volume and name == "smooth":
        raise InputError(f"the step {shown(text)} is unknown; accepted: {ACCEPTED}")
    if name in ("largest-component", "fill-holes"):
        if equals:
            raise InputError(f"the step {shown(text)} takes no number; accepted: {ACCEPTED}")
        return Step(name, None, volume)
    millimetres = name == "minimum-size" and number.endswith("mm")
    try:
        value = float(number.removesuffix("mm") if millimetres else number)
    except ValueError:
        value = math.nan
        if unit := UNIT.fullmatch(number.strip()):
            known = "pixels, or mm" if name == "minimum-size" else "slices"
            raise InputError(f"the unit {shown(unit[1])} of the step {shown(text)} is unknown; it is in {known}; "
                             f"accepted: {ACCEPTED}") from None
    if not 0 < value < math.inf or name == "smooth" and value > MOST_SMOOTHING:
        most = f" up to {MOST_SMOOTHING:g} slices" if name == "smooth" else ""
        raise InputError(f"the step {shown(text)} lacks its number, above 0{most}; accepted: {ACCEPTED}")
    return Step(name, value, volume or name == "smooth", millimetres)


def smoothed(probability: Floats, steps: Iterable[Step], axis: int = 0) -> Floats:
    """Probabilities of a stack (N,H,W), slices along `axis`, as the step `smooth` has them; unchanged without it. A
    slice at the end has its own values as further neighbours. InputError where it is no stack."""
    for step in steps:
        if step.name == "smooth":
            if probability.ndim != 3:
                raise InputError(f"smooth is over the slices of a volume, and this is {probability.shape}")
            out: Floats = np.asarray(
                _ndimage().gaussian_filter1d(probability, step.value, axis=axis, mode="nearest"), np.float32)
            probability = out
    return probability


def cleaned(mask: Bools, steps: Iterable[Step], *, spacing: tuple[float, ...] | None = None, axis: int = 0) -> Bools:
    """A mask (H,W) or a stack of them (N,H,W), slices along `axis`, after the steps in their order, as a new array.

    `smooth` is left to `smoothed`. spacing: millimetres between pixels along each array axis, which sizes in
    millimetres need. Raises InputError where a step needs a stack or a spacing that is not there, RunnerError where
    SciPy is missing.
    """
    array: Array = np.asarray(mask)
    if array.dtype != bool or array.ndim not in (2, 3):
        raise InputError(f"the mask has shape {array.shape} and type {array.dtype}; expected bool (H,W) or (N,H,W)")
    if spacing is not None and (len(spacing) != array.ndim or not all(0 < s < math.inf for s in spacing)):
        raise InputError(f"spacing is {spacing}; give {array.ndim} lengths in mm, one for each axis of the mask")
    out: Bools = array.copy()
    for step in steps:
        if step.name == "smooth":
            continue
        if step.volume:
            if array.ndim != 3:
                raise InputError(f"the step {step} is of a volume, and the mask is one slice {array.shape}; "
                                 f"take {step.name}")
            _apply(step, out, _size(step, spacing))
            continue
        flat = spacing if spacing is None or array.ndim == 2 else tuple(np.delete(spacing, axis))
        least = _size(step, flat)
        for part in (out[None] if array.ndim == 2 else np.moveaxis(out, axis, 0)):
            if part.any():
                _apply(step, part, least)
    return out


def _size(step: Step, spacing: tuple[float, ...] | None) -> float:
    """The least number of pixels or voxels that the step keeps."""
    if step.value is None or not step.millimetres:
        return step.value or 0.0
    if spacing is None:
        raise InputError(f"the step {step} needs a spacing, and this image has none; give the size in pixels, such as "
                         "minimum-size=50")
    return step.value / math.prod(spacing)


def _apply(step: Step, mask: Bools, least: float) -> None:
    """In place, with neighbours that share an edge of pixels or a face of voxels."""
    ndimage = _ndimage()
    if step.name == "fill-holes":
        mask |= ndimage.binary_fill_holes(mask)
        return
    parts, count = ndimage.label(mask)
    if not count:
        return
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    if step.name == "largest-component":
        mask &= parts == sizes.argmax()
    else:
        mask &= (sizes >= least * (1 - 1e-9))[parts]


def _ndimage() -> Vendor:
    try:
        from scipy import ndimage  # type: ignore[import-untyped]  # it comes without types
    except ModuleNotFoundError:
        raise RunnerError(
            f"cleaning masks up needs SciPy, which is missing; {install_hint('medical')}", short="SciPy is missing"
        ) from None
    return ndimage
