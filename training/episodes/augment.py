"""In-task and task augmentation (paper section 3.2 and Algorithm 1) of whole episodes, batched, on any torch device.

Plain torch rather than kornia: all geometry of an image is composed into one resampling, every number comes from the
episode's seed, and it saves a dependency. The paper names its operations; the ranges below are ours.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from universeg_rt.training.episodes.fields import Draw, affine_grid, displacement, gaussian_blur, min_max, sobel, warp
from universeg_rt.training.settings.operation import Operation, Range
from universeg_rt.training.tasks.harden import harden


@dataclass(frozen=True)
class InTaskConfig:
    """Aug_t: drawn anew for the query and for each support entry."""

    affine: Operation = Operation(0.5, (-25.0, 25.0))     # rotation, degrees; with scale and shift below
    scale: Range = (0.85, 1.15)
    shift: Range = (-0.1, 0.1)                            # of the side
    elastic: Operation = Operation(0.3, (0.02, 0.12))     # amplitude, of half the side
    brightness: Operation = Operation(0.3, (-0.1, 0.1))   # added, image in [0, 1]
    contrast: Operation = Operation(0.3, (0.6, 1.5))      # factor about the mean
    gamma: Operation = Operation(0.2, (0.6, 1.6))
    blur: Operation = Operation(0.2, (0.1, 1.1))          # sigma, pixels
    noise: Operation = Operation(0.25, (0.0, 0.08))       # standard deviation
    sharpness: Operation = Operation(0.2, (0.5, 3.0))     # times what a blur takes away


@dataclass(frozen=True)
class TaskConfig:
    """Aug_T: drawn once for an episode and done alike to its query and all its support."""

    flip_horizontal: Operation = Operation(0.5)
    flip_vertical: Operation = Operation(0.5)
    rotate90: Operation = Operation(0.5)
    affine: Operation = Operation(0.25, (-45.0, 45.0))
    scale: Range = (0.8, 1.25)
    invert: Operation = Operation(0.5)
    gamma: Operation = Operation(0.25, (0.4, 2.5))
    contrast: Operation = Operation(0.35, (0.2, 1.0))         # share of [0, 1] that is left, at a random level
    blur: Operation = Operation(0.1, (0.3, 1.5))
    noise: Operation = Operation(0.1, (0.01, 0.08))
    sobel_image: Operation = Operation(0.05)
    local_contrast: Operation = Operation(0.05, (1.5, 8.0))   # sigma in pixels of the local mean that is taken away
    label_edge: Operation = Operation(0.05, (1.0, 2.0))       # thickness, pixels
    label_dilate: Operation = Operation(0.05, (1.0, 2.0))     # pixels
    label_erode: Operation = Operation(0.03, (1.0, 1.0))
    label_complement: Operation = Operation(0.03)


@dataclass(frozen=True)
class AugmentConfig:
    in_task: InTaskConfig = InTaskConfig()
    task: TaskConfig = TaskConfig()
    use_in_task: bool = True
    use_task: bool = True


def augment_episode(draw: Draw, images: Tensor, labels: Tensor, config: AugmentConfig) -> tuple[Tensor, Tensor]:
    """Images (N,1,H,W) in [0, 1] and labels (N,1,H,W) in {0, 1} of one task, query and support alike -> the same."""
    if config.use_in_task:
        images, labels = augment_in_task(draw, images, labels, config.in_task)
    if config.use_task:
        images, labels = augment_task(draw, images, labels, config.task)
    return images, labels


def augment_in_task(draw: Draw, images: Tensor, labels: Tensor, config: InTaskConfig) -> tuple[Tensor, Tensor]:
    """Each image in its own way; shapes as in `augment_episode`."""
    count, size = images.shape[0], images.shape[-1]
    moved, bent = draw.mask(config.affine.probability, count), draw.mask(config.elastic.probability, count)
    if bool((moved | bent).any()):
        on = moved.float()
        angle = draw.uniform(*config.affine.range, count) * (math.pi / 180.0) * on
        scale = torch.where(moved, draw.uniform(*config.scale, count), 1.0)
        shift = draw.uniform(*config.shift, count, 2) * 2.0 * on[:, None]
        amplitude = draw.uniform(*config.elastic.range, count) * bent
        grid = affine_grid(size, angle, scale, shift) + displacement(draw, count, size, amplitude, (0.4, 0.2))
        images, labels = warp_pair(images, labels, grid)

    def per_image(operation: Operation, neutral: float) -> Tensor:
        value = draw.uniform(*operation.range, count)
        return torch.where(draw.mask(operation.probability, count), value, neutral)[:, None, None, None]

    mean = images.mean((2, 3), keepdim=True)
    images = (images - mean) * per_image(config.contrast, 1.0) + mean + per_image(config.brightness, 0.0)
    images = images.clamp(0.0, 1.0).pow(per_image(config.gamma, 1.0))
    sigma, sharpen = per_image(config.blur, 0.0), per_image(config.sharpness, 0.0)
    if bool((sharpen > 0).any()):
        images = images + sharpen * (images - gaussian_blur(images, torch.ones(count, device=images.device)))
    if bool((sigma > 0).any()):
        images = gaussian_blur(images, sigma.flatten())
    images = images + per_image(config.noise, 0.0) * draw.normal(*images.shape)
    return images.clamp(0.0, 1.0), labels


def augment_task(draw: Draw, images: Tensor, labels: Tensor, config: TaskConfig) -> tuple[Tensor, Tensor]:
    """All images in the same way; shapes as in `augment_episode`."""
    count, size = images.shape[0], images.shape[-1]

    def wanted(operation: Operation) -> bool:
        return draw.chance(operation.probability)

    if wanted(config.affine):
        ones = torch.ones(count, device=images.device)
        angle = ones * draw.scalar(*config.affine.range) * (math.pi / 180.0)
        grid = affine_grid(size, angle, ones * draw.scalar(*config.scale), torch.zeros(count, 2, device=images.device))
        images, labels = warp_pair(images, labels, grid)
    if wanted(config.flip_horizontal):
        images, labels = images.flip(3), labels.flip(3)
    if wanted(config.flip_vertical):
        images, labels = images.flip(2), labels.flip(2)
    if wanted(config.rotate90):
        turns = draw.integer(1, 3)
        images, labels = images.rot90(turns, (2, 3)), labels.rot90(turns, (2, 3))

    if wanted(config.sobel_image):
        images = min_max(sobel(images))
    if wanted(config.local_contrast):
        images = local_contrast(images, draw.log_scalar(*config.local_contrast.range))
    if wanted(config.gamma):
        low, high = config.gamma.range
        images = images.pow(draw.log_scalar(low, high))
    if wanted(config.invert):
        images = 1.0 - images
    if wanted(config.blur):
        images = gaussian_blur(images, torch.full((count,), draw.scalar(*config.blur.range), device=images.device))
    if wanted(config.noise):  # before the contrast, so that it covers no more at a low one
        images = (images + draw.scalar(*config.noise.range) * draw.normal(*images.shape)).clamp(0.0, 1.0)
    if wanted(config.contrast):
        share = draw.log_scalar(*config.contrast.range)
        images = images * share + draw.scalar() * (1.0 - share)

    if wanted(config.label_edge):
        labels = _kept(labels, edge(labels, draw.integer(*map(int, config.label_edge.range))))
    if wanted(config.label_dilate):
        labels = dilate(labels, draw.integer(*map(int, config.label_dilate.range)))
    if wanted(config.label_erode):
        labels = _kept(labels, erode(labels, draw.integer(*map(int, config.label_erode.range))))
    if wanted(config.label_complement):
        labels = 1.0 - labels
    return images.contiguous(), labels.contiguous()


def local_contrast(images: Tensor, sigma: float) -> Tensor:
    """(N,1,H,W) in [0, 1] less its local mean over `sigma` pixels, three standard deviations spread over [0, 1]."""
    detail = images - gaussian_blur(images, torch.full((len(images),), sigma, device=images.device))
    return (0.5 + detail / (6.0 * detail.std(dim=(1, 2, 3), keepdim=True).clamp_min(1e-4))).clamp(0.0, 1.0)


def warp_pair(images: Tensor, labels: Tensor, grid: Tensor) -> tuple[Tensor, Tensor]:
    """Images and labels (N,1,H,W) sampled at grid (N,h,w,2) in one pass; each label keeps its area."""
    both = warp(torch.cat([images, labels], 1), grid)
    return both[:, :1], harden(both[:, 1:])


def dilate(labels: Tensor, radius: int) -> Tensor:
    """(N,1,H,W) in {0, 1} grown by `radius` pixels in every direction."""
    return F.max_pool2d(labels, 2 * radius + 1, 1, radius)


def erode(labels: Tensor, radius: int) -> Tensor:
    """(N,1,H,W) in {0, 1} shrunk by `radius` pixels; the image's border does not eat into it."""
    return 1.0 - dilate(1.0 - labels, radius)


def edge(labels: Tensor, thickness: int) -> Tensor:
    """The inner rim of (N,1,H,W) in {0, 1}, `thickness` pixels wide."""
    return labels - erode(labels, thickness)


def _kept(before: Tensor, after: Tensor) -> Tensor:
    """`after`, unless it would leave some label empty that was not."""
    lost = ((after.sum((1, 2, 3)) == 0) & (before.sum((1, 2, 3)) > 0)).any()
    return torch.where(lost, before, after)
