"""Ellipses, tubes and smooth noise against their plain formulas at every pixel."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from universeg_rt.training.episodes.fields import Draw, affine_grid, displacement, smooth_noise
from universeg_rt.training.episodes.painting import Ellipses, paint, tubes
from universeg_rt.training.tasks.harden import harden

SUBJECTS = 3


def grid_of(draw: Draw, size: int) -> Tensor:
    one = torch.ones(SUBJECTS)
    return affine_grid(size, one * 0.3, one * 1.1, torch.zeros(SUBJECTS, 2)) + displacement(
        draw, SUBJECTS, size, 0.2, (0.4, 0.15))


def group(draw: Draw, count: int, waves: bool, present: bool) -> Ellipses:
    return Ellipses(
        draw.uniform(-1.1, 1.1, SUBJECTS, count, 2), torch.exp(draw.uniform(-4.0, -0.2, SUBJECTS, count)),
        torch.exp(draw.normal(SUBJECTS, count) * 0.4), draw.uniform(0.0, math.pi, SUBJECTS, count),
        draw.normal(SUBJECTS, count, 4, 2) * 0.2 if waves else None,
        draw.mask(0.6, SUBJECTS, count) if present else None)


def levels(grid: Tensor, shapes: Ellipses) -> Tensor:
    """(N,K,H,W) by the formula r(θ)(1 + Σ_k (a_k cos (k+2)θ + b_k sin (k+2)θ) / √(k+1)), in float64."""
    dx, dy = (grid.double()[:, None] - shapes.centre.double()[:, :, None, None]).unbind(-1)
    radius, stretch, angle = (v.double()[:, :, None, None] for v in (shapes.radius, shapes.stretch, shapes.angle))
    x = (dx * angle.cos() + dy * angle.sin()) / (radius * stretch)
    y = (dy * angle.cos() - dx * angle.sin()) / (radius / stretch)
    outline = torch.ones_like(x)
    for k in range(0 if shapes.waves is None else shapes.waves.shape[2]):
        a, b = (shapes.waves[:, :, k, i, None, None].double() / math.sqrt(k + 1) for i in (0, 1))
        outline = outline + a * torch.cos((k + 2) * torch.atan2(y, x)) + b * torch.sin((k + 2) * torch.atan2(y, x))
    level = 1.0 - (x.square() + y.square()).sqrt() / outline.clamp_min(0.3)
    return level if shapes.present is None else torch.where(shapes.present[:, :, None, None], level, -1.0)


@pytest.mark.parametrize("size", [64, 40, 33])
@pytest.mark.parametrize("seed", range(4))
def test_later_ellipses_lie_over_earlier_ones(seed, size):
    draw = Draw(seed)
    grid = grid_of(draw, size)
    groups = [group(draw, 20, False, True), group(draw, 3, True, False), group(draw, 6, True, True)]
    top, depth = paint(grid, groups)
    every = torch.cat([levels(grid, each) for each in groups], 1)
    order = torch.arange(1, every.shape[1] + 1)[:, None, None]
    expected = torch.where(every > 0, order, 0).amax(1)
    sure = every.abs().amin(1) > 1e-5  # elsewhere rounding decides
    assert sure.float().mean() > 0.99 and expected.unique().numel() > 8
    assert torch.equal(top[sure], expected[sure])
    shown = torch.cat([torch.zeros_like(every[:, :1]), every], 1).gather(1, expected[:, None])[:, 0]
    torch.testing.assert_close(depth[sure].double(), shown[sure], rtol=0, atol=2e-5)


@pytest.mark.parametrize("size", [64, 36])
@pytest.mark.parametrize("seed", range(3))
def test_tubes_have_the_level_of_the_nearest_segment(seed, size):
    draw = Draw(seed)
    grid, start = grid_of(draw, size), draw.uniform(-1.2, 1.2, SUBJECTS, 40, 2)
    stop = start + draw.normal(SUBJECTS, 40, 2) * 0.2
    start[:, 0] = stop[:, 0]  # of no length
    radius = torch.exp(draw.uniform(-5.0, -2.0, SUBJECTS, 40))
    level = tubes(grid, start, stop, radius)
    along, points = (stop - start).double()[:, :, None, None], grid.double()[:, None]
    first = start.double()[:, :, None, None]
    t = (((points - first) * along).sum(-1) / along.square().sum(-1).clamp_min(1e-9)).clamp(0, 1)
    distance = (points - first - t[..., None] * along).norm(dim=-1)
    expected = 1.0 - (distance / radius.clamp_min(1.3 / size)[:, :, None, None]).amin(1)
    inside = expected > 1e-4
    assert 0.02 < inside.float().mean() < 0.9
    torch.testing.assert_close(level[inside].double(), expected[inside], rtol=0, atol=1e-4)
    assert (level[expected < -1e-4] < 0).all()


@pytest.mark.parametrize("cell, mode", [(0.5, "bilinear"), (0.1, "bicubic"), (0.02, "bicubic")])
def test_smooth_noise_is_torchs_interpolation_of_its_knots(cell, mode):
    knots = Draw(7).normal(2, 3, round(1 / cell) + 1, round(1 / cell) + 1)
    expected = F.interpolate(knots, size=(96, 96), mode=mode, align_corners=True)
    torch.testing.assert_close(smooth_noise(Draw(7), 2, 3, 96, cell), expected, rtol=0, atol=1e-5)


def test_a_table_made_in_inference_mode_serves_training():
    with torch.inference_mode():
        smooth_noise(Draw(0), 1, 1, 56, 0.11)
    weight = torch.ones((), requires_grad=True)
    (smooth_noise(Draw(0), 1, 1, 56, 0.11) * weight).sum().backward()
    assert weight.grad is not None


def test_harden_cuts_at_the_value_that_keeps_the_area_between_its_bounds():
    generator = torch.Generator().manual_seed(1)
    for power in range(1, 8):
        coarse = torch.rand(6, 1, 20, 20, generator=generator) ** power * (1.2 - 0.15 * power)
        coverage = F.interpolate(coarse, size=(48, 48), mode="bilinear")
        for row in coverage:
            area = max(1, int(row.sum().round()))
            cut = float(row.flatten().sort(descending=True).values[area - 1].clamp(0.2, 0.5))
            assert torch.equal(harden(row[None])[0], (row >= cut).float())
