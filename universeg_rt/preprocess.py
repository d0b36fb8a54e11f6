"""The input contract, written once for query and support: checks, per-image normalisation, and geometry there and back."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .errors import InputError

ASPECTS = ("stretch", "pad")


def check_image(image: np.ndarray, name: str = "image") -> np.ndarray:
    """Return an image as an array (H,W) of real, finite numbers that are not all equal, or raise InputError."""
    array = np.asarray(image)
    if array.ndim != 2 or 0 in array.shape:
        hint = "; convert colour to grey first, give one channel" if array.ndim == 3 else ""
        raise InputError(f"{name} has shape {array.shape}; expected one grey image (H,W){hint}")
    if array.dtype.kind not in "biuf":
        raise InputError(f"{name} has type {array.dtype}; expected real numbers (integers or floats)")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        bad = int((~np.isfinite(array)).sum())
        raise InputError(f"{name} holds {bad} NaN or infinite values; replace them, for example by numpy.nan_to_num")
    if array.min() == array.max():
        raise InputError(f"{name} is constant ({array.flat[0]}), there is nothing to see in it; leave it out")
    return array


def check_label(label: np.ndarray, shape: tuple[int, int], name: str = "label") -> np.ndarray:
    """Return a label as bool (H,W); accepts bool, {0, 1}, or {0, 255} as masks are stored in PNG. May be empty.

    Raises InputError where it is not binary or has another size than its image.
    """
    array = np.asarray(label)
    if array.shape != tuple(shape):
        raise InputError(f"{name} has shape {array.shape}, its image {tuple(shape)}; they must be the same")
    if array.dtype.kind not in "biuf":
        raise InputError(f"{name} has type {array.dtype}; expected bool or the numbers 0 and 1")
    if array.dtype.kind == "b":
        return array.copy()
    values = np.unique(array)
    if np.isin(values, (0, 1)).all() or np.isin(values, (0, 255)).all():
        return array != 0
    shown = ", ".join(str(v) for v in values[:6]) + (", ..." if len(values) > 6 else "")
    raise InputError(f"{name} is not binary: it holds {shown}; give 0 and 1, for example label == {values[-1]}")


def normalise(image: np.ndarray) -> np.ndarray:
    """Per-image min-max to [0, 1], float32; the minimum is subtracted in float64. All-equal pixels become 0."""
    wide = image.astype(np.float64)
    low, high = wide.min(), wide.max()
    if high <= low:
        return np.zeros(image.shape, np.float32)
    # Scaled down first: the difference of two huge values may overflow.
    scale = max(abs(low), abs(high))
    return ((wide / scale - low / scale) / (high / scale - low / scale)).astype(np.float32)


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
    def of(cls, shape: tuple[int, int], grid: tuple[int, int], aspect: str) -> "Placement":
        """aspect `stretch` fills the grid; `pad` keeps the aspect ratio, centred, with zeros around it."""
        if aspect not in ASPECTS:
            raise InputError(f"aspect is {aspect!r}; accepted: {', '.join(ASPECTS)}")
        if aspect == "stretch":
            return cls(*shape, 0, 0, *grid)
        scale = min(grid[0] / shape[0], grid[1] / shape[1])
        height = min(grid[0], max(1, round(shape[0] * scale)))
        width = min(grid[1], max(1, round(shape[1] * scale)))
        return cls(*shape, (grid[0] - height) // 2, (grid[1] - width) // 2, height, width)

    def image_to_grid(self, image: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
        """(H,W) -> grid, float32 in [0, 1]: antialiased bilinear, then min-max, zeros around it."""
        small = resize(normalise(image), (self.grid_height, self.grid_width))
        return self._pad(normalise(small), grid)

    def label_to_grid(self, label: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
        """(H,W) bool -> grid, float32 0 or 1: nearest neighbour, zeros around it."""
        rows = _nearest(self.height, self.grid_height)
        columns = _nearest(self.width, self.grid_width)
        return self._pad(label[np.ix_(rows, columns)].astype(np.float32), grid)

    def back(self, values: np.ndarray) -> np.ndarray:
        """A map on the grid -> (H,W) float32 at the image's own size, bilinear."""
        inner = values[self.top : self.top + self.grid_height, self.left : self.left + self.grid_width]
        return resize(np.ascontiguousarray(inner, np.float32), (self.height, self.width))

    def _pad(self, small: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
        if small.shape == tuple(grid):
            return small
        out = np.zeros(grid, np.float32)
        out[self.top : self.top + self.grid_height, self.left : self.left + self.grid_width] = small
        return out


def resize(image: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """float32 (H,W) -> shape, bilinear; antialiased where it shrinks."""
    if image.shape == tuple(shape):
        return image
    from PIL import Image

    out = Image.fromarray(image).resize((shape[1], shape[0]), Image.Resampling.BILINEAR)
    return np.asarray(out, dtype=np.float32)


def _nearest(size: int, new: int) -> np.ndarray:
    """For each of `new` pixels the index of the pixel of `size` whose area holds its centre."""
    return np.minimum(((np.arange(new) + 0.5) * size / new).astype(int), size - 1)
