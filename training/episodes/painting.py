"""Ellipses and tubes on deformed grids, evaluated only in the blocks of pixels that they may reach."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

SIDE = 8  # of a block, in pixels


@dataclass(frozen=True)
class Ellipses:
    """K ellipses in each of N subjects: centre (N,K,2), radius and stretch of x over y (N,K), angle (N,K) in radians,
    outlines r(θ)(1 + Σ_k waves_k) of waves (N,K,W,2), and which of them are there (N,K) bool (None: all)."""

    centre: Tensor
    radius: Tensor
    stretch: Tensor
    angle: Tensor
    waves: Tensor | None = None
    present: Tensor | None = None

    def reach(self) -> Tensor:
        """(N,K): no point inside lies farther from the centre."""
        reach = self.radius * torch.maximum(self.stretch, 1.0 / self.stretch)
        if self.waves is not None:
            roots = torch.arange(1.0, self.waves.shape[2] + 1.0, device=reach.device).sqrt()
            reach = reach * (1.0 + (self.waves.square().sum(3).sqrt() / roots).sum(2))
        return reach if self.present is None else torch.where(self.present, reach, -math.inf)

    def level(self, at: tuple[Tensor, Tensor], points: Tensor) -> Tensor:
        """(M,P), positive inside and 1 at the centre, of the ellipses at subjects and numbers `at` (M), at points
        (M,P,2)."""
        offset = points - self.centre[at][:, None]
        radius, stretch, angle = self.radius[at][:, None], self.stretch[at][:, None], self.angle[at][:, None]
        cos, sin = torch.cos(angle), torch.sin(angle)
        x = (offset[..., 0] * cos + offset[..., 1] * sin) / (radius * stretch)
        y = (offset[..., 1] * cos - offset[..., 0] * sin) / (radius / stretch)
        distance = (x.square() + y.square() + 1e-9).sqrt()
        if self.waves is None:
            return 1.0 - distance
        theta, waves = torch.atan2(y, x), self.waves[at]
        outline = torch.ones_like(distance)
        for k in range(waves.shape[1]):
            wave = waves[:, k, :, None] / math.sqrt(k + 1.0)
            outline = outline + wave[:, 0] * torch.cos((k + 2) * theta) + wave[:, 1] * torch.sin((k + 2) * theta)
        return 1.0 - distance / outline.clamp_min(0.3)


class Blocks:
    """The pixels of grid (N,H,W,2) in square blocks, the last ones filled up by their border: positions (N·B,P,2), each
    block's centre (N,B,2), and how far its pixels lie from that (N,B)."""

    def __init__(self, grid: Tensor) -> None:
        self.size = grid.shape[1:3]
        margins = [-side % SIDE for side in self.size]
        grid = F.pad(grid.movedim(3, 1), (0, margins[1], 0, margins[0]), mode="replicate").movedim(1, 3)
        subjects, height, width = self.shape = grid.shape[:3]
        tiles = grid.reshape(subjects, height // SIDE, SIDE, width // SIDE, SIDE, 2)
        tiles = tiles.transpose(2, 3).reshape(subjects, -1, SIDE**2, 2)
        self.positions = tiles.flatten(0, 1)
        self.centre = (tiles.amin(2) + tiles.amax(2)) / 2
        self.reach = (tiles - self.centre[:, :, None]).square().sum(3).amax(2).sqrt()

    def full(self, value: float | int) -> Tensor:
        """(N·B,P) of one value."""
        return torch.full(self.positions.shape[:2], value, device=self.positions.device)

    def pairs(self, near: Tensor) -> tuple[tuple[Tensor, Tensor], Tensor]:
        """near (N,K,B) bool -> subjects and numbers of shapes (M), and the rows (M) of their blocks among the N·B."""
        subject, shape, block = near.nonzero(as_tuple=True)
        return (subject, shape), subject * near.shape[2] + block

    def image(self, values: Tensor) -> Tensor:
        """(N·B,P) -> (N,H,W)."""
        subjects, height, width = self.shape
        tiles = values.view(subjects, height // SIDE, width // SIDE, SIDE, SIDE)
        return tiles.transpose(2, 3).reshape(subjects, height, width)[:, : self.size[0], : self.size[1]]


def paint(grid: Tensor, groups: Sequence[Ellipses]) -> tuple[Tensor, Tensor]:
    """Which ellipse is seen at each pixel of grid (N,H,W,2), later over earlier, and its level there.

    (N,H,W) int64, numbered from 1 through all groups, 0 where there is none; (N,H,W) in [0, 1].
    """
    blocks, before = Blocks(grid), 0
    top, depth = blocks.full(0), blocks.full(0.0)
    for group in groups:
        away = torch.cdist(group.centre, blocks.centre, compute_mode="donot_use_mm_for_euclid_dist")
        at, rows = blocks.pairs(away < group.reach()[:, :, None] + blocks.reach[:, None])
        level = group.level(at, blocks.positions[rows])
        number = torch.where(level > 0, at[1][:, None] + (before + 1), 0)
        rows = rows[:, None].expand_as(level)
        top.scatter_reduce_(0, rows, number, "amax")
        seen = torch.where((number > 0) & (number == top.gather(0, rows)), level, -1.0)
        shown = torch.full_like(depth, -1.0).scatter_reduce_(0, rows, seen, "amax")
        depth = torch.where(top > before, shown, depth)
        before += group.radius.shape[1]
    return blocks.image(top), blocks.image(depth).clamp(0, 1)


def tubes(grid: Tensor, start: Tensor, stop: Tensor, radius: Tensor) -> Tensor:
    """Level (N,H,W) of tubes along segments (N,M,2) of radius (N,M): 1 on the centre lines, 0 at the walls, negative
    outside."""
    # 0.65 pixels: thinner, a tube falls into dots that nothing could find
    radius, blocks = radius.clamp_min(1.3 / grid.shape[1]), Blocks(grid)
    along = stop - start
    scale = 1.0 / along.square().sum(2).clamp_min(1e-9)

    def squared(x: Tensor, y: Tensor, values: Sequence[Tensor]) -> Tensor:
        """Of the distance from (x, y) to segments, whose values are x, y, dx, dy and scale."""
        ax, ay, dx, dy, inverse = values
        px, py = x - ax, y - ay
        t = (px * dx).addcmul_(py, dy).mul_(inverse).clamp_(0, 1)
        return px.addcmul_(t, dx, value=-1).square_().add_(py.addcmul_(t, dy, value=-1).square_())

    values = (*start.unbind(2), *along.unbind(2), scale)
    away = squared(*(v[:, None] for v in blocks.centre.unbind(2)), [v[:, :, None] for v in values])
    at, rows = blocks.pairs(away < (radius[:, :, None] + blocks.reach[:, None]).square())
    points = blocks.positions[rows]
    near = squared(points[..., 0], points[..., 1], [v[at][:, None] for v in values])
    near = near.mul_(1.0 / radius.square()[at][:, None])
    level = blocks.full(1e6).scatter_reduce_(0, rows[:, None].expand_as(near), near, "amin")
    return 1.0 - (blocks.image(level) + 1e-12).sqrt()
