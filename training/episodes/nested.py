"""Nested anatomy: many small structures at fixed places within shells, told apart by where they lie."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from universeg_rt.training.episodes.fields import Draw, identity_grid
from universeg_rt.training.episodes.painting import Ellipses
from universeg_rt.training.episodes.shapes import Layer, painted

Structure = tuple[float, float, float]  # centre (x, y) and radius, in half sides


def nested(draw: Draw, grid: Tensor) -> Layer:
    """A body in one to three shells with structures in it and in one another, 8 to 20 labels in all, some in pairs.

    The same layout in every subject with small deformations, as in a brain or a knee; most structures are small, and
    nothing makes one stand out from its surroundings (weights differ by place, not by contrast).
    """
    subjects, size = len(grid), grid.shape[1]
    grid = torch.lerp(identity_grid(size, grid.device).expand_as(grid), grid, draw.scalar(0.15, 0.6))
    structures, labels, shells = _layout(draw)
    count = len(structures)
    variation = draw.log_scalar(0.015, 0.08)
    place = torch.tensor(structures, device=grid.device)
    radius = place[None, :, 2] * torch.exp(draw.each.normal(subjects, count) * variation)
    centre = place[None, :, :2] + draw.each.normal(subjects, count, 2) * variation * 0.4 * place[None, :, 2:].sqrt()
    stretch = torch.exp(draw.normal(1, count) * 0.25 + draw.each.normal(subjects, count) * variation)
    angle = draw.uniform(0.0, math.pi, 1, count) + draw.each.normal(subjects, count) * variation * 2.0
    waves = draw.normal(1, count, 3, 2) * draw.scalar(0.0, 0.15) + draw.each.normal(subjects, count, 3, 2) * variation
    for shape in (stretch, angle, waves):  # shells are alike, and so do not cross
        shape[:, :shells] = shape[:, :1].clone()
    return painted(grid, [Ellipses(centre, radius, stretch, angle, waves)], torch.tensor(labels, device=grid.device))


def _layout(draw: Draw) -> tuple[list[Structure], list[int], int]:
    """Structures, each before what lies in it, their labels (a pair has one or two), and how many of them are
    shells."""
    wanted = draw.integer(8, 20)
    radius, structures, labels = draw.scalar(0.7, 0.97), [], []
    for shell in range(draw.integer(1, 3)):
        structures.append((draw.scalar(-0.04, 0.04), draw.scalar(-0.04, 0.04), radius))
        labels.append(shell + 1)
        radius *= draw.scalar(0.72, 0.94)
    shells = len(structures)
    while labels[-1] < wanted:
        inside = len(structures) > shells and draw.chance(0.35)
        x, y, room = structures[draw.integer(shells, len(structures) - 1) if inside else shells - 1]
        own = room * (draw.scalar(0.35, 0.7) if inside else draw.log_scalar(0.04, 0.4))
        away, where = (room - own) * math.sqrt(draw.scalar()), draw.scalar(0.0, 2.0 * math.pi)
        x, y = x + away * math.cos(where), y + away * math.sin(where)
        structures.append((x, y, own))
        labels.append(labels[-1] + 1)
        if draw.chance(0.5) and abs(x) > own:
            structures.append((-x, y, own))
            labels.append(labels[-1] + (1 if draw.chance(0.5) else 0))
    order = sorted(range(len(structures)), key=lambda i: -structures[i][2])  # what is small stays on top
    return [structures[i] for i in order], [labels[i] for i in order], shells
