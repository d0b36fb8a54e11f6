"""What synthetic label maps look like: intensities and textures of the labels, then what a scanner adds."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from universeg_rt.training.episodes.families import FINE, THIN
from universeg_rt.training.episodes.fields import Draw, gaussian_blur, identity_grid, min_max, smooth_noise
from universeg_rt.training.episodes.shapes import Layer


@dataclass(frozen=True)
class Appearance:
    """Largest strengths; each task draws its own up to these."""

    noise: float = 0.15    # standard deviation, image in [0, 1]
    texture: float = 0.2   # standard deviation inside a label
    blur: float = 1.2      # sigma, pixels at 64x64
    bias: float = 0.5      # log amplitude of the bias field
    faint: float = 0.35    # probability that what is in front is only a little darker or brighter than what is behind
    fundus: float = 0.7    # probability that a retina is lit as in a photograph: dark around, uneven, a bright disc
    textured: float = 0.05  # probability that labels have one intensity and differ in texture alone (not thin families)


def subject_images(draw: Draw, layer: Layer, family: str, target: Tensor, config: Appearance) -> Tensor:
    """(N,1,H,W) in [0, 1] of the subjects whose labels are `layer`; `target` (N,H,W) bool is what must be visible."""
    if family not in THIN and draw.chance(config.textured):
        return _scanned(draw, _textures_alone(draw, layer)[:, None], config, 0.5)
    faint = family in FINE and draw.chance(0.85 if family == "retina" else config.faint)
    fundus = family == "retina" and draw.chance(config.fundus)
    image, relief = _intensities(draw, layer, family, target, config, faint, fundus)
    image = image + _texture(draw, layer, config, relief, faint)
    if fundus:
        image = image + _illumination(draw, layer)
    return _scanned(draw, image[:, None], config, relief)


def _textures_alone(draw: Draw, layer: Layer) -> Tensor:
    """(N,H,W) about 0.5: every label has the same mean and noise of its own grain and strength."""
    image = torch.full(layer.labels.shape, 0.5, device=layer.labels.device)
    for label in range(layer.count + 1):
        field = smooth_noise(draw.each, len(image), 1, image.shape[-1], draw.log_scalar(0.01, 0.25))[:, 0]
        image = image + field * draw.scalar(0.02, 0.3) * (layer.labels == label)
    return image


def _illumination(draw: Draw, layer: Layer) -> Tensor:
    """(N,H,W) to add within the field of view: light that falls unevenly, and less of it toward the rim."""
    subjects, size = len(layer.labels), layer.labels.shape[-1]
    uneven = smooth_noise(draw.each, subjects, 1, size, draw.scalar(0.25, 0.9))[:, 0] * draw.scalar(0.0, 0.12)
    falloff = identity_grid(size, uneven.device).square().sum(-1) * draw.scalar(0.0, 0.15)
    return (uneven - falloff) * (layer.labels > 0)


def _per_pixel(values: Tensor, index: Tensor) -> Tensor:
    """values (N or 1,K) looked up at index (N,H,W)."""
    return values.expand(len(index), -1).gather(1, index.flatten(1)).view(index.shape)


def _intensities(
    draw: Draw, layer: Layer, family: str, target: Tensor, config: Appearance, faint: bool,
    fundus: bool,
) -> tuple[Tensor, float]:
    """Intensities (N,H,W) by label, much the same in all subjects of a task,
    and how much noise they can bear (0..1)."""
    subjects, count = len(target), layer.count + 1
    mean = draw.uniform(0.0, 1.0, 1, count)
    if draw.chance(0.4):  # few levels: some labels look alike and differ in place only
        levels = draw.integer(2, 4)
        mean = (mean * levels).floor() / max(levels - 1, 1)
    if fundus:  # the disc takes up the range, and leaves the vessels little of it
        mean[:, 0] = draw.scalar(0.0, 0.05)
        mean[:, 2], mean[:, 3] = draw.scalar(0.25, 0.6), draw.scalar(0.65, 1.1)
    mean = mean + draw.each.normal(subjects, count) * draw.scalar(0.0, 0.12)
    if faint:  # as vessels in a fundus are
        own = (layer.labels > 0) & (layer.labels <= (layer.front or layer.count))
        behind = torch.zeros_like(layer.labels) if layer.under is None else layer.under
        image = _per_pixel(mean, torch.where(own, behind, layer.labels))
        contrast = draw.log_scalar(0.04 if fundus else 0.07, 0.4) * (1.0 if draw.chance(0.5) else -1.0)
        each = contrast * torch.exp(draw.normal(1, count) * 0.4) * torch.exp(draw.each.normal(subjects, 1) * 0.2)
        return image + own * _per_pixel(each, layer.labels), min(1.0, 0.5 * abs(contrast) / max(config.noise, 1e-6))
    image = _per_pixel(mean, layer.labels)
    if family in FINE:  # a small target must differ from the rest, or nothing could find it
        contrast = image[target].mean() - image[~target].mean()
        wanted = draw.scalar(0.15, 0.6) * (1.0 if draw.chance(0.5) else -1.0)
        image = image + target * torch.where(contrast.abs() < 0.15, wanted - contrast, 0.0)
    return image, 1.0


def _texture(draw: Draw, layer: Layer, config: Appearance, relief: float, faint: bool) -> Tensor:
    """(N,H,W) to add: each object a little different, shading from rim to middle, textures by label."""
    subjects, count, size = len(layer.labels), layer.count + 1, layer.labels.shape[-1]
    jitter = draw.each.normal(subjects, int(layer.instance.max()) + 1) * draw.scalar(0.0, 0.04 if faint else 0.12)
    out = _per_pixel(jitter, layer.instance) * (layer.labels > 0)
    shade = draw.normal(1, count) * draw.scalar(0.0, 0.05 if faint else 0.3)
    out = out + _per_pixel(shade, layer.labels) * layer.depth
    for _ in range(draw.integer(0, 2)):
        field = smooth_noise(draw.each, subjects, 1, size, draw.log_scalar(0.015, 0.2))[:, 0]
        strength = draw.uniform(0.0, 1.0, 1, count) * draw.scalar(0.0, config.texture) * relief
        out = out + field * _per_pixel(strength, layer.labels)
    return out


def _scanned(draw: Draw, image: Tensor, config: Appearance, relief: float) -> Tensor:
    """Blur, bias field, gamma and grain, different in each subject; (N,1,H,W) in [0, 1]."""
    subjects, size = len(image), image.shape[-1]
    if draw.chance(0.7):
        # What is faint does not bear much blur: a pixel's width of it would vanish.
        most = draw.scalar(0.0, config.blur) * (0.4 + 0.6 * relief) * (size / 64.0)
        sigma = draw.each.uniform(0.0, max(most, 1e-3), subjects)
        image = gaussian_blur(image, sigma)
    if draw.chance(0.5):
        field = smooth_noise(draw.each, subjects, 1, size, draw.scalar(0.3, 0.9))
        image = image * torch.exp(field * draw.scalar(0.0, config.bias))
    image = min_max(image).pow(torch.exp(draw.each.normal(subjects, 1, 1, 1) * draw.scalar(0.0, 0.3)))
    noise = draw.each.uniform(0.0, draw.scalar(0.0, config.noise * relief) + 1e-6, subjects, 1, 1, 1)
    grain = smooth_noise(draw.each, subjects, 1, size, draw.choice((0.5, 1.0, 2.0, 3.0)) / size)
    return min_max(image + noise * grain * (image + 0.1 if draw.chance(0.3) else 1.0)).to(torch.float32)
