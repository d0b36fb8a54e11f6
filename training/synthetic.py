"""Synthetic segmentation tasks, each made wholly from a seed (paper section 4, after SynthMorph's random label maps).

A task is a family of shapes, perhaps over a coarser background, the intensities and textures of its labels, and what of
it is the target; its subjects differ in deformation, intensities, blur, bias field and noise. Tasks are drawn as they are
needed: a thousand of them or a million cost no disk.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from universeg_rt.errors import InputError
from universeg_rt.training import shapes
from universeg_rt.training.fields import (
    Draw, affine_grid, displacement, gaussian_blur, min_max, smooth_noise)

SMALLEST_TARGET = 0.004  # of the image, on average over subjects


@dataclass(frozen=True)
class SyntheticConfig:
    """Relative weights of the families (see shapes.py) and the largest variation between subjects of a task."""

    families: dict[str, float] = field(default_factory=lambda: {
        "regions": 1.0, "anatomy": 2.0, "blobs": 2.0, "cells": 2.0, "vessels": 3.0, "membranes": 0.6, "curves": 0.4,
        "layers": 0.5})
    background_probability: float = 0.5  # a coarse family behind a fine one
    deformation: float = 0.25            # largest elastic amplitude, in half sides
    rotation: float = 0.5                # largest standard deviation of the subjects' rotation, radians
    noise: float = 0.15                  # largest standard deviation of the noise, image in [0, 1]
    blur: float = 1.2                    # largest sigma, pixels at 64x64
    bias: float = 0.5                    # largest log amplitude of the bias field

    def __post_init__(self) -> None:
        unknown = sorted(set(self.families) - set(shapes.COARSE) - set(shapes.FINE))
        if unknown or not any(weight > 0 for weight in self.families.values()):
            raise InputError(
                f"synthetic families {unknown or self.families}: accepted are {sorted({*shapes.COARSE, *shapes.FINE})}, "
                "at least one with a weight above 0")


def synthetic_subjects(
    seed: int, subjects: int, size: int, config: SyntheticConfig = SyntheticConfig(), device: torch.device | str = "cpu"
) -> tuple[Tensor, Tensor]:
    """`subjects` images of the task `seed` and their labels: (N,1,size,size) float32 in [0, 1] and in {0, 1}.

    The same arguments on the same kind of device give the same values; another device draws other subjects.
    """
    for attempt in range(8):
        draw = Draw(seed * 8 + attempt, device)
        layer, family = _label_map(draw, subjects, size, config)
        target = _target(draw, layer)
        if target is not None:
            return _image(draw, layer, family, target, size, config), target[:, None].float()
    # Eight poor draws in a row: an ellipse always gives a target.
    layer = shapes.anatomy(Draw(seed, device), _grid(Draw(seed, device), subjects, size, config))
    target = layer.labels > 0
    return _image(Draw(seed, device), layer, "anatomy", target, size, config), target[:, None].float()


def _grid(draw: Draw, subjects: int, size: int, config: SyntheticConfig) -> Tensor:
    """Positions (N,size,size,2) of the subjects' pixels: a rotation, a scale, a shift and an elastic deformation each."""
    rotation, spread, shift = draw.scalar(0, config.rotation), draw.scalar(0, 0.2), draw.scalar(0, 0.15)
    grid = affine_grid(
        size, draw.normal(subjects) * rotation, torch.exp(draw.normal(subjects) * spread),
        draw.normal(subjects, 2) * shift, torch.exp(draw.normal(subjects) * spread * 0.5))
    amplitude = draw.scalar(0.0, config.deformation)
    return grid + displacement(draw, subjects, size, amplitude, (0.5, draw.scalar(0.12, 0.3)))


def _label_map(draw: Draw, subjects: int, size: int, config: SyntheticConfig) -> tuple[shapes.Layer, str]:
    families = {**shapes.COARSE, **shapes.FINE}
    names = sorted(config.families)  # the order in which a file lists them decides nothing
    name = draw.choice(names, [config.families[n] for n in names])
    front = families[name](draw, _grid(draw, subjects, size, config))
    if name in ("regions", "layers") or not draw.chance(config.background_probability):
        return front, name
    # The background's labels follow the front's, so that the target is chosen among the front's first.
    back = shapes.COARSE[draw.choice(shapes.COARSE)](draw, _grid(draw, subjects, size, config))
    empty = front.labels == 0
    labels = torch.where(empty, torch.where(back.labels > 0, back.labels + front.count, 0), front.labels)
    depth = torch.where(empty, back.depth, front.depth)
    return shapes.Layer(labels, front.count + back.count, depth, front.instance, front.count), name


def _target(draw: Draw, layer: shapes.Layer) -> Tensor | None:
    """(N,H,W) bool: one label or a union of some, present in nearly every subject; None where none is."""
    choices = (layer.front or layer.count) if draw.chance(0.9) else layer.count
    for _ in range(4):
        chosen = torch.zeros(layer.count + 1, dtype=torch.bool)
        chosen[draw.integer(1, choices)] = True
        if draw.chance(0.25):
            chosen |= torch.rand(layer.count + 1, generator=draw.host) < 0.4
            chosen[0] = False
        target = chosen.to(layer.labels.device)[layer.labels]
        share = target.flatten(1).float().mean(1)
        present = (share > SMALLEST_TARGET / 4).float().mean()
        if SMALLEST_TARGET < float(share.mean()) < 0.75 and float(present) > 0.8:
            return target
    return None


def _image(
    draw: Draw, layer: shapes.Layer, family: str, target: Tensor, size: int, config: SyntheticConfig
) -> Tensor:
    """(N,1,H,W) in [0, 1]: intensities of the labels, shading and texture inside them, then what a scanner adds."""
    subjects, count, device = len(target), layer.count + 1, draw.device
    # Intensity of each label, much the same in all subjects of a task; some labels look alike and differ in place only.
    mean = draw.uniform(0.0, 1.0, 1, count)
    if draw.chance(0.4):
        levels = draw.integer(2, 4)
        mean = (mean * levels).floor() / max(levels - 1, 1)
    mean = mean + draw.normal(subjects, count) * draw.scalar(0.0, 0.12)
    image = mean.gather(1, layer.labels.flatten(1)).view(target.shape)
    # Small targets must differ from their neighbourhood, or nothing could find them.
    inside = image[target].mean() if bool(target.any()) else image.mean()
    contrast = inside - image[~target].mean() if bool((~target).any()) else inside
    if family in shapes.FINE:
        wanted = draw.scalar(0.15, 0.6) * (1.0 if draw.chance(0.5) else -1.0)
        image = image + target * torch.where(contrast.abs() < 0.15, wanted - contrast, 0.0)

    objects = int(layer.instance.max()) + 1
    jitter = draw.normal(subjects, objects) * draw.scalar(0.0, 0.12)
    image = image + jitter.gather(1, layer.instance.flatten(1)).view(target.shape) * (layer.labels > 0)
    shade = (draw.normal(1, count) * draw.scalar(0.0, 0.3)).expand(subjects, -1)
    image = image + shade.gather(1, layer.labels.flatten(1)).view(target.shape) * layer.depth
    for _ in range(draw.integer(0, 2)):
        texture = smooth_noise(draw, subjects, 1, size, draw.log_scalar(0.015, 0.2))[:, 0]
        strength = (draw.uniform(0.0, 1.0, 1, count) * draw.scalar(0.0, 0.2)).expand(subjects, -1)
        image = image + texture * strength.gather(1, layer.labels.flatten(1)).view(target.shape)

    image = image[:, None]
    if draw.chance(0.7):
        scale = size / 64.0
        image = gaussian_blur(image, draw.uniform(0.0, max(draw.scalar(0.0, config.blur), 1e-3), subjects) * scale)
    if draw.chance(0.5):
        field = smooth_noise(draw, subjects, 1, size, draw.scalar(0.3, 0.9))
        image = image * torch.exp(field * draw.scalar(0.0, config.bias))
    image = min_max(image)
    image = image.pow(torch.exp(draw.normal(subjects, 1, 1, 1) * draw.scalar(0.0, 0.3)))
    noise = draw.uniform(0.0, draw.scalar(0.0, config.noise) + 1e-6, subjects, 1, 1, 1)
    grain = smooth_noise(draw, subjects, 1, size, draw.choice((0.5, 1.0, 2.0, 3.0)) / size)
    image = image + noise * grain * (image + 0.1 if draw.chance(0.3) else 1.0)
    return min_max(image).to(torch.float32)
