"""Random fields, warps and filters on batches of images, on any torch device; shared by synthetic tasks and
augmentation."""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor
from torch.nn import functional as F


class Draw:
    """Random numbers of one seed on one device: the same seed on the same kind of device gives the same numbers.

    `each` is a second stream, of `each_seed`, for what differs between the subjects of a task, so that the task stays
    the same, to rounding, however many subjects are drawn; without that seed it is the same stream.
    """

    def __init__(self, seed: int, device: torch.device | str = "cpu", each_seed: int | None = None) -> None:
        self.device = torch.device(device)
        self.each = self if each_seed is None else Draw(each_seed, device)
        # Scalars are drawn on the host, so that a GPU is never waited for.
        self.host = torch.Generator().manual_seed(seed)
        on_host = self.device.type == "cpu"
        self.generator = self.host if on_host else torch.Generator(self.device).manual_seed(seed)

    def scalar(self, low: float = 0.0, high: float = 1.0) -> float:
        return low + (high - low) * torch.rand((), generator=self.host).item()

    def log_scalar(self, low: float, high: float) -> float:
        """Uniform in the logarithm."""
        return math.exp(self.scalar(math.log(low), math.log(high)))

    def integer(self, low: int, high: int) -> int:
        """Uniform in low..high, both included."""
        return int(torch.randint(low, high + 1, (), generator=self.host))

    def chance(self, probability: float) -> bool:
        return self.scalar() < probability

    def choice(self, values, weights=None):
        """One of `values`, with the given relative weights."""
        values = list(values)
        if weights is None:
            return values[self.integer(0, len(values) - 1)]
        index = torch.multinomial(torch.tensor(list(weights), dtype=torch.float64), 1, generator=self.host)
        return values[int(index)]

    def uniform(self, low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(*shape, generator=self.generator, device=self.device)

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.generator, device=self.device)

    def mask(self, probability: float, *shape: int) -> Tensor:
        """Boolean, true with the given probability."""
        return self.uniform(0.0, 1.0, *shape) < probability


def smooth_noise(draw: Draw, count: int, channels: int, size: int, cell: float) -> Tensor:
    """(count,channels,size,size) of noise with unit variance at the knots,
    smooth over `cell` (a fraction of the side)."""
    knots = max(2, min(size, round(1.0 / cell) + 1))
    noise = draw.normal(count, channels, knots, knots)
    if knots >= size:
        return noise
    spread = _spread(knots, size, str(noise.device))
    return spread @ noise @ spread.T


@functools.lru_cache(256)
def _spread(knots: int, size: int, device: str) -> Tensor:
    """(size,knots): bicubic interpolation along one axis, bilinear for up to 3 knots. Two products with it are several
    times faster on a CPU than torch's interpolation in two dimensions."""
    with torch.inference_mode(False):  # a table made in inference mode could not be used in training
        unit = torch.eye(knots, device=device)[None, None]
        return F.interpolate(unit, size=(size, knots), mode="bicubic" if knots > 3 else "bilinear",
                             align_corners=True)[0, 0]


def identity_grid(size: int, device) -> Tensor:
    """(size,size,2) pixel centres as (x, y) in [-1, 1], the convention of grid_sample without aligned corners."""
    axis = (torch.arange(size, device=device, dtype=torch.float32) + 0.5) * (2.0 / size) - 1.0
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    return torch.stack([x, y], dim=-1)


def affine_grid(
    size: int, angle: Tensor, scale: Tensor, shift: Tensor, stretch: Tensor | None = None
) -> Tensor:
    """(N,size,size,2) sampling positions for angle (N) in radians, scale (N),
    shift (N,2) and stretch of x over y (N)."""
    cos, sin = torch.cos(angle), torch.sin(angle)
    stretch = torch.ones_like(scale) if stretch is None else stretch
    matrix = torch.stack([cos * scale * stretch, -sin * scale / stretch, sin * scale * stretch, cos * scale / stretch],
                         -1)
    grid = identity_grid(size, angle.device)
    return torch.einsum("hwc,ndc->nhwd", grid, matrix.view(-1, 2, 2)) + shift[:, None, None, :]


def displacement(draw: Draw, count: int, size: int, amplitude: float | Tensor, cells: tuple[float, ...]) -> Tensor:
    """(count,size,size,2) smooth random displacement; amplitude (a number or (count,)) in units of half the side."""
    total = sum(smooth_noise(draw, count, 2, size, cell) * cell for cell in cells) / sum(cells)
    amplitude = torch.as_tensor(amplitude, device=draw.device, dtype=torch.float32)
    return total.permute(0, 2, 3, 1) * amplitude.reshape(-1, 1, 1, 1)


def warp(images: Tensor, grid: Tensor, padding: str = "reflection") -> Tensor:
    """(N,C,H,W) sampled bilinearly at grid (N,h,w,2)."""
    return F.grid_sample(images, grid, mode="bilinear", padding_mode=padding, align_corners=False)


def gaussian_blur(images: Tensor, sigma: Tensor) -> Tensor:
    """(N,C,H,W) blurred with sigma (N) in pixels; a sigma of 0 leaves the image as it is."""
    radius = max(1, math.ceil(3.0 * float(sigma.max())))
    radius = min(radius, images.shape[-1] - 1)
    steps = torch.arange(-radius, radius + 1, device=images.device, dtype=images.dtype)
    kernel = torch.exp(-0.5 * (steps / sigma.clamp_min(1e-3)[:, None]) ** 2)
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(images.shape[1], 0)
    flat = images.reshape(1, -1, *images.shape[-2:])
    groups = flat.shape[1]
    flat = F.conv2d(F.pad(flat, (radius, radius, 0, 0), mode="reflect"), kernel[:, None, None, :], groups=groups)
    flat = F.conv2d(F.pad(flat, (0, 0, radius, radius), mode="reflect"), kernel[:, None, :, None], groups=groups)
    return flat.reshape(images.shape)


def min_max(images: Tensor) -> Tensor:
    """Each (C,H,W) of (N,C,H,W) shifted and scaled to [0, 1]; a constant image becomes 0."""
    low, high = images.amin((1, 2, 3), keepdim=True), images.amax((1, 2, 3), keepdim=True)
    return (images - low) / (high - low).clamp_min(1e-6)


def sobel(images: Tensor) -> Tensor:
    """(N,1,H,W) -> magnitude of the Sobel gradient, same shape."""
    kernel = torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]], device=images.device,
                          dtype=images.dtype)
    kernels = torch.stack([kernel, kernel.T])[:, None] / 8.0
    gradient = F.conv2d(F.pad(images, (1, 1, 1, 1), mode="replicate"), kernels)
    return gradient.square().sum(1, keepdim=True).add(1e-12).sqrt()
