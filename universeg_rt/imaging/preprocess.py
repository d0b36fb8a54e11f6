"""The input contract, written once for query and support: checks, per-image normalisation, and geometry there and
back."""

from __future__ import annotations

import os
from collections.abc import Sized
from dataclasses import dataclass

import numpy as np

from ..errors import BlankError, GeometryError, InputError, shown
from ..named_types import Array, Bools, Bytes, Doubles, Floats, Integers
from ..storage.reading import reason

ASPECTS = ("stretch", "pad")
MAX_PIXELS = 2**27  # of an image: what is made of it on the way takes up to 2 GB
SEEN = 1e-6  # contrast on the grid, of 1 in the image, below which only rounding is left
EXACT = 2**53  # integers up to here are exact in float64
NARROW = 2.0**-24  # a range below this share of the greatest value loses digits where the values are scaled first
MOST_VALUE = 65_535  # of a label map
SOFT, SOFT_TOP = 8, 200  # more values than this, up to this or more of 255, are a mask with soft edges, not classes


def check_image(image: Array, name: str = "image", *, blank: bool = False) -> Array:
    """Return an image as an array (H,W) of real, finite numbers that are not all equal, or raise InputError.

    blank: whether they may be all equal; where they may not, that is a BlankError. Colour (H,W,3) or (H,W,4) uint8
    becomes its luminance, as a picture read by `files.read_image`; transparency is not used.
    """
    array = _as_array(image, name)
    if is_colour(array):
        check_pixels(array.shape[:2], name)
        array = luminance(array)
    if array.ndim != 2 or 0 in array.shape:
        hint = f", or colour of uint8 (H,W,3) or (H,W,4), not {array.dtype}" if array.ndim == 3 else ""
        raise InputError(f"{name} has shape {array.shape}; expected one grey image (H,W){hint}")
    check_pixels(array.shape, name)
    if array.dtype.kind not in "biuf":
        raise InputError(f"{name} has type {array.dtype}; expected real numbers (integers or floats)")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        bad = int((~np.isfinite(array)).sum())
        raise InputError(f"{name} holds {bad} NaN or infinite values; replace them, for example by numpy.nan_to_num")
    if not blank:
        check_not_blank(array, name)
    return array


def check_not_blank(image: Array, name: str) -> None:
    """BlankError where all numbers of an image are equal."""
    if image.min() == image.max():
        raise BlankError(f"{name} is constant ({image.flat[0]})", ", there is nothing to see in it; leave it out")


def is_colour(array: Array) -> bool:
    """Whether it is a colour image (H,W,3) or (H,W,4) of uint8."""
    return array.ndim == 3 and array.shape[2] in (3, 4) and array.dtype == np.uint8 and 0 not in array.shape


def luminance(colour: Bytes) -> Bytes:
    """(H,W,3) or (H,W,4) uint8 -> (H,W) uint8, as Pillow weighs the channels (ITU-R 601-2)."""
    from PIL import Image

    return np.asarray(Image.fromarray(np.ascontiguousarray(colour[..., :3])).convert("L"))


def check_pixels(shape: tuple[int, ...], name: str) -> None:
    """Raise InputError where an image of this shape (H,W) has more than MAX_PIXELS."""
    if shape[0] * shape[1] > MAX_PIXELS:
        raise InputError(
            f"{name} is {shape[0]}x{shape[1]}; accepted: at most {MAX_PIXELS:,} pixels; make it smaller or cut it "
            "first, the network reads a small grid")


def count_of(values: object, name: str) -> int:
    """How many there are, or InputError where that cannot be told (a single number, a generator, None)."""
    if not isinstance(values, Sized):
        raise InputError(f"{name} is a {type(values).__name__}; give an array (N,H,W) or a list of arrays (H,W)")
    try:
        return len(values)
    except TypeError:  # an array of no dimensions has a length that it refuses to tell
        raise InputError(f"{name} is a single value; give an array (N,H,W) or a list of arrays (H,W)") from None


def check_label(label: Array, shape: tuple[int, int], name: str = "label") -> Bools:
    """Return a label as bool (H,W); accepts bool, {0, 1}, or {0, 255} as masks are stored in PNG. May be empty.

    Raises InputError where it is not binary or has another size than its image.
    """
    array = _as_label(label, shape, name)
    if array.dtype.kind == "b":
        return np.array(array)
    values = np.unique(array)
    if np.isin(values, (0, 1)).all() or np.isin(values, (0, 255)).all():
        marked: Bools = array != 0
        return marked
    some = ", ".join(str(v) for v in values[:6]) + (", ..." if len(values) > 6 else "")
    raise InputError(f"{name} is not binary: it holds {some}; give 0 and 1, {_label_cure(values)}")


def _as_label(label: Array, shape: tuple[int, int], name: str) -> Array:
    """A label as an array of real numbers of its image's shape, or InputError."""
    array = _as_array(label, name)
    if array.shape != tuple(shape):
        turned = array.shape == tuple(shape)[::-1]
        hint = ("; one of the two is turned on its side: a picture is turned as its own EXIF orientation says, "
                "save both upright") if turned else ""
        raise GeometryError(f"{name} has shape {array.shape}, its image {tuple(shape)}; they must be the same{hint}")
    if array.dtype.kind not in "biuf":
        raise InputError(f"{name} has type {array.dtype}; expected bool or the numbers 0 and 1")
    return array


def check_label_map(label: Array, shape: tuple[int, int], name: str = "label") -> Array:
    """Return a label of several values as uint16 (H,W), 0 for the background. May be empty.

    Raises InputError where it holds anything but integers from 0 to 65535, or has another size than its image.
    """
    array = _as_label(label, shape, name)
    if array.dtype.kind == "b":
        return array.astype(np.uint16)
    values = np.unique(array)
    odd = values[~((values >= 0) & (values <= MOST_VALUE) & (values % 1 == 0))]
    if len(odd):
        raise InputError(f"{name} holds {odd[0]}; give integers from 0 to {MOST_VALUE}, 0 for the background")
    return array.astype(np.uint16)


def values_of_classes(label: Array, name: str) -> Array:
    """The values of a label of several classes, sorted; InputError where there are so many that they look like the
    smoothed edges of a mask."""
    values = np.unique(label)
    if len(values) > SOFT and (cure := _soft_cure(values)):
        raise InputError(f"{name} holds {len(values)} values; give whole numbers of labels, or a mask, {cure}")
    return values


def _soft_cure(values: Array) -> str:
    """What to do with values, sorted, that look like smoothed edges; empty where they do not."""
    if len(values) <= SOFT or values[0] < 0:
        return ""
    half = 127 if SOFT_TOP <= values[-1] <= 255 else 0.5 if values.dtype.kind == "f" and values[-1] <= 1 else None
    return "" if half is None else (
        f"for example label > {half}: its edges look smoothed, by JPEG, resizing or as probabilities")


def _label_cure(values: Array) -> str:
    """What to do with a label that holds these values, sorted."""
    if soft := _soft_cure(values):
        return soft
    marks = values[(values != 0) & np.isfinite(values)]
    if not len(marks):
        return "0 for background and 1 for what is marked"
    return f"for example label == {marks[-1]} to mark what holds {marks[-1]}"


def _as_array(value: object, name: str) -> Array:
    if isinstance(value, (str, bytes, os.PathLike)):
        raise InputError(f"{name} is a path, {shown(value)}; read the file first, by "
                         "universeg_rt.imaging.files.read_image, or read_label for a label")
    try:
        masked = _count_masked(value)
        array = None if masked else np.asarray(value)
    except Exception as error:  # a ragged list, an object whose own conversion fails, a tensor on another device
        raise InputError(f"{name} is no array ({reason(error)}); give a NumPy array (H,W)") from None
    if array is None:
        raise InputError(
            f"{name} is a masked array with {masked} masked values, which would be read as they are; give values for "
            "them, for example by .filled(0)")
    return array


def _count_masked(value: object, depth: int = 3) -> int:
    """Masked values of an array, or of arrays or values in a list, whose masks NumPy drops."""
    if isinstance(value, np.ma.MaskedArray):
        return int(np.ma.getmaskarray(value).sum())
    if depth and isinstance(value, (list, tuple)):
        return sum(_count_masked(item, depth - 1) for item in value)
    return 0


def normalise(image: Array) -> Floats:
    """Per-image min-max to [0, 1], float32; the minimum is subtracted in float64. All-equal pixels become 0."""
    wide = _to_float64(image)
    low, high = wide.min(), wide.max()
    if high <= low:
        return np.zeros(image.shape, np.float32)
    # Scaled down first: the difference of two huge values may overflow.
    scale = max(abs(low), abs(high))
    if high / scale - low / scale < NARROW:
        wide -= low  # exact: the values are within a factor of two of each other
        wide /= high - low
        return wide.astype(np.float32)
    wide /= scale
    wide -= low / scale
    wide /= high / scale - low / scale
    return wide.astype(np.float32)


def _to_float64(image: Array) -> Doubles:
    """A copy in float64; where that would make different values equal, their exact distance from the minimum."""
    if image.dtype.kind in "iu" and image.dtype.itemsize == 8:
        low, high = int(image.min()), int(image.max())
        if max(-low, high) > EXACT:
            native = image.astype(image.dtype.newbyteorder("="), copy=False)
            distance = native.astype(np.uint64) - np.uint64(low % 2**64)  # modulo 2**64, so it never overflows
            return distance.astype(np.float64)
    if image.dtype.kind == "f" and image.dtype.itemsize > 8:
        low, high = image.min() / 2, image.max() / 2  # halved: their difference does not overflow
        if np.any(image.astype(np.float64) != image) and high > low:
            return np.asarray((image / 2 - low) / (high - low), np.float64)
    return image.astype(np.float64)


@dataclass(frozen=True)
class Placement:
    """Where an image (height, width) lies on the grid: its top-left corner and its size there, in grid pixels."""

    height: int
    width: int
    top: int
    left: int
    grid_height: int
    grid_width: int

    @classmethod
    def of(cls, shape: tuple[int, int], grid: tuple[int, int], aspect: str) -> Placement:
        """aspect `stretch` fills the grid; `pad` keeps the aspect ratio, centred, with zeros around it."""
        if not isinstance(aspect, str) or aspect not in ASPECTS:
            raise InputError(f"aspect is {aspect!r}; accepted: {', '.join(ASPECTS)}")
        if aspect == "stretch":
            return cls(*shape, 0, 0, *grid)
        scale = min(grid[0] / shape[0], grid[1] / shape[1])
        height = min(grid[0], max(1, round(shape[0] * scale)))
        width = min(grid[1], max(1, round(shape[1] * scale)))
        return cls(*shape, (grid[0] - height) // 2, (grid[1] - width) // 2, height, width)

    def image_to_grid(self, image: Array, grid: tuple[int, int]) -> Floats:
        """(H,W) -> grid, float32 in [0, 1]: antialiased bilinear, then min-max, zeros around it."""
        return self.normalised_to_grid(normalise(image), grid)

    def normalised_to_grid(self, image: Floats, grid: tuple[int, int], name: str = "image", own: bool = True) -> Floats:
        """As `image_to_grid`, of an image (H,W) that `normalise` made, or another in [0, 1], which keeps its place
        there: own as `Normalised` has it. BlankError where the grid loses its detail."""
        small = resize(image, (self.grid_height, self.grid_width))
        if small.max() - small.min() < SEEN:
            raise BlankError(f"{name} is constant on the network's grid of {grid[0]}x{grid[1]}",
                             ": its detail is finer than that; cut out a part of it")
        # Of the grid's own size it is in [0, 1] already: another normalisation would give the same numbers.
        return self._pad(small if small.shape == image.shape or not own else normalise(small), grid)

    def label_to_grid(self, label: Bools, grid: tuple[int, int]) -> Floats:
        """(H,W) bool -> grid, float32 0 or 1: nearest neighbour, zeros around it."""
        rows = nearest(self.height, self.grid_height)
        columns = nearest(self.width, self.grid_width)
        return self._pad(label[np.ix_(rows, columns)].astype(np.float32), grid)

    def back(self, values: Array) -> Floats:
        """A map on the grid -> (H,W) float32 at the image's own size, bilinear."""
        inner = values[self.top : self.top + self.grid_height, self.left : self.left + self.grid_width]
        return resize(np.ascontiguousarray(inner, np.float32), (self.height, self.width))

    def _pad(self, small: Floats, grid: tuple[int, int]) -> Floats:
        if small.shape == tuple(grid):
            return small
        out = np.zeros(grid, np.float32)
        out[self.top : self.top + self.grid_height, self.left : self.left + self.grid_width] = small
        return out


def resize(image: Floats, shape: tuple[int, int]) -> Floats:
    """float32 (H,W) -> shape, bilinear; antialiased where it shrinks."""
    if image.shape == tuple(shape):
        return image
    from PIL import Image

    out = Image.fromarray(image).resize((shape[1], shape[0]), Image.Resampling.BILINEAR)
    return np.asarray(out, dtype=np.float32)


def nearest(size: int, new: int) -> Integers:
    """For each of `new` pixels the index of the pixel of `size` whose area holds its centre."""
    return np.asarray(np.minimum(((np.arange(new) + 0.5) * size / new).astype(int), size - 1))
