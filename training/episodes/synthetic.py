"""Synthetic segmentation tasks, each made wholly from a seed (paper section 4, after SynthMorph's random label maps).

A task is a family of shapes, perhaps over a coarser background, the intensities and textures of its labels, and what of
it is the target; its subjects differ in deformation, intensities, blur, bias field and noise. Tasks are drawn as they
are needed: a thousand of them or a million cost no disk.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from universeg_rt.errors import InputError
from universeg_rt.training.episodes.appearance import Appearance, subject_images
from universeg_rt.training.episodes.families import COARSE, FAMILIES, FULL
from universeg_rt.training.episodes.fields import Draw, affine_grid, displacement
from universeg_rt.training.episodes.shapes import Layer

SMALLEST_TARGET = 0.002  # of the image, on average over subjects
SMALLEST_NESTED = 0.0008  # where place tells a target, a dozen pixels will do


@dataclass(frozen=True)
class SyntheticConfig:
    """Relative weights of the families (see families.py) and the largest variation between subjects of a task."""

    families: dict[str, float] = field(default_factory=lambda: {
        "regions": 1.0, "anatomy": 2.0, "blobs": 2.0, "cells": 2.0, "vessels": 2.0, "retina": 2.0,
        "membranes": 0.6, "curves": 0.4, "layers": 0.5})
    background_probability: float = 0.5  # a coarse family behind a fine one
    deformation: float = 0.25            # largest elastic amplitude, in half sides
    rotation: float = 0.5                # largest standard deviation of the subjects' rotation, radians
    appearance: Appearance = Appearance()

    def __post_init__(self) -> None:
        unknown = sorted(set(self.families) - set(FAMILIES))
        if unknown or not any(weight > 0 for weight in self.families.values()):
            raise InputError(
                f"synthetic families {unknown or self.families}: accepted are {sorted(FAMILIES)}, "
                "at least one with a weight above 0")


def synthetic_subjects(
    seed: int,
    subjects: int,
    size: int,
    config: SyntheticConfig = SyntheticConfig(),
    device: torch.device | str = "cpu",
    subject_seed: int = 0,
    absent: int = 0,
) -> tuple[Tensor, Tensor]:
    """`subjects` images of the task `seed` and their labels: (N,1,size,size) float32 in [0, 1] and in {0, 1}.

    Another `subject_seed` gives other subjects of the same task. The same arguments on the same kind of device give the
    same values. A draw whose target is missing in these subjects is made anew, which is then another task. absent: so
    many subjects, the first ones, lack the target: what lies behind it is seen, and the label is empty.
    """
    for attempt in range(8):
        draw = Draw(seed * 8 + attempt, device, subject_seed)
        layer, family = _label_map(draw, subjects, size, config)
        target = _target(draw, layer, SMALLEST_NESTED if family == "nested" else SMALLEST_TARGET)
        if target is not None:
            break
    else:  # eight poor draws in a row: an ellipse always gives a target
        draw, family = Draw(seed, device, subject_seed), "anatomy"
        layer = FAMILIES[family](draw, _grid(draw, subjects, size, config))
        target = layer.labels > 0
    if absent:
        behind = torch.zeros_like(layer.labels) if layer.under is None else layer.under
        layer.labels[:absent] = torch.where(target, behind, layer.labels)[:absent]
        target[:absent] = False
    return subject_images(draw, layer, family, target, config.appearance), target[:, None].float()


def _grid(draw: Draw, subjects: int, size: int, config: SyntheticConfig) -> Tensor:
    """Positions (N,size,size,2) of the subjects' pixels:
    a rotation, a scale, a shift and an elastic deformation each."""
    rotation, spread, shift = draw.scalar(0, config.rotation), draw.scalar(0, 0.2), draw.scalar(0, 0.15)
    grid = affine_grid(
        size, draw.each.normal(subjects) * rotation, torch.exp(draw.each.normal(subjects) * spread),
        draw.each.normal(subjects, 2) * shift, torch.exp(draw.each.normal(subjects) * spread * 0.5))
    amplitude = draw.scalar(0.0, config.deformation)
    return grid + displacement(draw.each, subjects, size, amplitude, (0.5, draw.scalar(0.12, 0.3)))


def _label_map(draw: Draw, subjects: int, size: int, config: SyntheticConfig) -> tuple[Layer, str]:
    names = sorted(config.families)  # the order in which a file lists them decides nothing
    name = draw.choice(names, [config.families[n] for n in names])
    front = FAMILIES[name](draw, _grid(draw, subjects, size, config))
    if name in FULL or not draw.chance(config.background_probability):
        return front, name
    back = COARSE[draw.choice(COARSE)](draw, _grid(draw, subjects, size, config))
    return front.over(back), name


def _target(draw: Draw, layer: Layer, smallest: float) -> Tensor | None:
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
        present = (share > smallest / 4).float().mean()
        if smallest < float(share.mean()) < 0.75 and float(present) > 0.8:
            return target
    return None
