"""Geometry of synthetic tasks: families of label maps whose subjects vary as anatomy, cells and vessels do.

Every family is a function `(draw, grid) -> Layer`: `draw` gives the random numbers, first the ones of the task and then
those of its subjects; `grid` (N,H,W,2) holds where each subject's pixels lie, in [-1, 1] and already deformed, so
shapes are evaluated where they are needed and never resampled.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from universeg_rt.training.episodes.fields import Draw, displacement, smooth_noise, warp
from universeg_rt.training.episodes.painting import Ellipses, paint, tubes


@dataclass
class Layer:
    """Labels of N subjects: `labels` (N,H,W) int64 in 0..count, 0 is nothing; `depth` (N,H,W) in [0, 1] is 1 at the
    middle of an object and 0 at its rim; `instance` (N,H,W) int64 numbers the objects of one subject; the labels
    1..front are the family's own, the rest its background's (None: all are its own); `under` (N,H,W) int64 is the label
    that would be seen if the family's own were transparent (None: nothing, 0)."""

    labels: Tensor
    count: int
    depth: Tensor
    instance: Tensor
    front: int | None = None
    under: Tensor | None = None

    def over(self, back: Layer) -> Layer:
        """This layer in front of another, whose labels then follow this one's."""
        shifted = torch.where(back.labels > 0, back.labels + self.count, 0)
        empty = self.labels == 0
        return Layer(
            torch.where(empty, shifted, self.labels), self.count + back.count,
            torch.where(empty, back.depth, self.depth), self.instance, self.count, shifted)


def regions(draw: Draw, grid: Tensor) -> Layer:
    """Smooth noise of several scales, one map a label; the label is the largest (SynthMorph's label maps)."""
    count = draw.integer(2, 10)
    size = grid.shape[1]
    cells = [draw.log_scalar(0.08, 0.6) for _ in range(draw.integer(1, 2))]
    template = sum(smooth_noise(draw, 1, count, size, cell) for cell in cells)
    values = warp(template.expand(len(grid), -1, -1, -1), grid)
    top = values.topk(2, dim=1)
    depth = (top.values[:, 0] - top.values[:, 1]).clamp(0, 1)
    labels = top.indices[:, 0]  # one region is the background
    return Layer(labels, count - 1, depth, labels)


def anatomy(draw: Draw, grid: Tensor) -> Layer:
    """A body with organs at about the same place in every subject: ellipses with wavy outlines, later ones on top."""
    count, subjects = draw.integer(2, 7), len(grid)
    with_body = draw.chance(0.6)
    variation = draw.log_scalar(0.02, 0.25)
    reach = draw.scalar(0.2, 0.7)
    centre = draw.uniform(-reach, reach, 1, count, 2)
    radius = torch.exp(draw.uniform(math.log(0.045), math.log(0.55), 1, count))
    if with_body:
        centre[:, 0], radius[:, 0] = centre[:, 0] * 0.1, draw.scalar(0.7, 0.95)
    if count > 3 and draw.chance(0.4):  # paired organs, as lungs and kidneys are
        centre[:, -1] = centre[:, -2] * torch.tensor([-1.0, 1.0], device=grid.device)
        radius[:, -1] = radius[:, -2]
    stretch = torch.exp(draw.uniform(-0.5, 0.5, 1, count))
    angle = draw.uniform(0.0, math.pi, 1, count)
    waves = draw.normal(1, count, 4, 2) * draw.scalar(0.0, 0.15)
    centre = centre + draw.each.normal(subjects, count, 2) * variation * 0.5
    radius = radius * torch.exp(draw.each.normal(subjects, count) * variation)
    stretch = stretch * torch.exp(draw.each.normal(subjects, count) * variation * 0.7)
    angle = angle + draw.each.normal(subjects, count) * variation * 2.0
    waves = waves + draw.each.normal(subjects, count, 4, 2) * variation * 0.2
    return painted(grid, [Ellipses(centre, radius, stretch, angle, waves)],
                   torch.arange(1, count + 1, device=grid.device))


def blobs(draw: Draw, grid: Tensor) -> Layer:
    """Many objects of one to three kinds at new places in each subject, crowded or sparse (nuclei, cells, lesions)."""
    kinds = draw.integer(1, 3)
    parts, labels = [], []
    for kind in range(kinds):
        base = draw.log_scalar(0.035, 0.3)
        most = max(2, min(70, int(draw.scalar(0.1, 0.9) / (base * base) / kinds)))
        parts.append(_scatter(draw, grid, most, base))
        labels += [kind + 1] * most
    return painted(grid, parts, torch.tensor(labels, device=grid.device))


def cells(draw: Draw, grid: Tensor) -> Layer:
    """Cells with a lobed nucleus, one or a few in each subject, among other cells:
    labels 1 body, 2 nucleus, 3 others."""
    subjects = len(grid)
    few = 1 if draw.chance(0.6) else draw.integer(2, 5)
    radius0 = draw.log_scalar(0.25, 0.75) if few == 1 else draw.log_scalar(0.15, 0.35)
    share, lobes, spread = draw.scalar(0.35, 0.85), draw.integer(1, 4), draw.scalar(0.1, 0.6)
    reach = draw.scalar(0.05, 0.3) if few == 1 else 0.75
    vary = draw.scalar(0.05, 0.25)
    centre = draw.each.uniform(-reach, reach, subjects, few, 2)
    radius = radius0 * torch.exp(draw.each.normal(subjects, few) * vary)
    body = Ellipses(centre, radius, *_outline(draw, subjects, few, 0.15, 0.06))
    inner = radius * share
    offset = draw.each.normal(subjects, few * lobes, 2).clamp(-1.5, 1.5)
    room = (radius - inner * (0.9 if lobes == 1 else 0.6)).clamp_min(0.0).repeat_interleave(lobes, 1)
    lobe_centre = centre.repeat_interleave(lobes, 1) + offset * room[..., None] * spread
    lobe_radius = inner.repeat_interleave(lobes, 1) * (1.0 if lobes == 1 else draw.scalar(0.5, 0.8))
    lobe_radius = lobe_radius * torch.exp(draw.each.normal(subjects, few * lobes) * vary)
    nucleus = Ellipses(lobe_centre, lobe_radius, *_outline(draw, subjects, few * lobes, 0.25, 0.1))
    most = draw.integer(2, 14)
    others = _scatter(draw, grid, most, draw.log_scalar(0.1, 0.35))
    labels = [3] * most + [1] * few + [2] * (few * lobes)
    return painted(grid, [others, body, nucleus], torch.tensor(labels, device=grid.device))


def vessels(draw: Draw, grid: Tensor) -> Layer:
    """Branching trees, new in each subject: labels 1 (and sometimes 2, as arteries and veins are)."""
    subjects, device = len(grid), grid.device
    trees = 2 if draw.chance(0.35) else 1
    width = draw.log_scalar(0.01, 0.08)
    start_at = draw.each.uniform(-0.8, 0.8, subjects, 1, 2) if draw.chance(0.5) else None
    nearest = torch.full(grid.shape[:3], -1e3, device=device)
    labels = torch.zeros(grid.shape[:3], dtype=torch.int64, device=device)
    for tree in range(trees):
        start, stop, radius = _tree(draw, subjects, width * draw.scalar(0.7, 1.3), draw.integer(1, 4), start_at)
        level = tubes(grid, start, stop, radius)
        labels = torch.where((level > 0) & (level > nearest), tree + 1, labels)
        nearest = torch.maximum(nearest, level)
    return Layer(labels, trees, nearest.clamp(0, 1), labels)


def retina(draw: Draw, grid: Tensor) -> Layer:
    """A round field of view with a disc, from which many thin vessels spread: labels 1 vessels, 2 field, 3 disc."""
    subjects = len(grid)
    place = draw.uniform(-0.7, 0.7, 1, 2) + draw.each.normal(subjects, 2) * draw.scalar(0.02, 0.3)
    field = grid.square().sum(-1).sqrt() < draw.scalar(0.8, 1.3)
    distance = (grid - place[:, None, None, :]).square().sum(-1).sqrt() / draw.scalar(0.08, 0.25)
    start, stop, radius = _tree(draw, subjects, draw.log_scalar(0.012, 0.04), draw.integer(4, 7), place[:, None])
    level = torch.where(field, tubes(grid, start, stop, radius), -1.0)
    back = Layer(torch.where(field, torch.where(distance < 1, 2, 1), 0), 2, (1.0 - distance).clamp(0, 1), field.long())
    labels = (level > 0).long()
    return Layer(labels, 1, level.clamp(0, 1), labels).over(back)


def membranes(draw: Draw, grid: Tensor) -> Layer:
    """A mosaic of cells and the thin walls between them, new in each subject: labels 1 walls, 2 some cells."""
    subjects = len(grid)
    count = draw.integer(5, 45)
    points = draw.each.uniform(-1.1, 1.1, subjects, count, 2)
    distance = torch.cdist(grid.flatten(1, 2), points)
    near = distance.topk(2, dim=2, largest=False)
    gap = (near.values[..., 1] - near.values[..., 0]).view(grid.shape[:3])
    instance = near.indices[..., 0].view(grid.shape[:3])
    wall = draw.log_scalar(0.03, 0.15)
    special = instance < count * draw.scalar(0.15, 0.6)
    labels = torch.where(gap < wall, 1, torch.where(special, 2, 0))
    depth = torch.where(gap < wall, 1.0 - gap / wall, (gap - wall).clamp(0, 1))
    return Layer(labels, 2, depth, instance + 1)


def layers(draw: Draw, grid: Tensor) -> Layer:
    """Stacked bands across the image, as in retinal OCT and skin; the same order in every subject."""
    count, subjects = draw.integer(2, 6), len(grid)
    angle = draw.scalar(0.0, math.pi)
    height = grid[..., 0] * math.sin(angle) + grid[..., 1] * math.cos(angle)
    waves = displacement(draw.each, subjects, grid.shape[1], draw.scalar(0.0, 0.25), (0.3,))[..., 0]
    edges = draw.uniform(-0.8, 0.8, 1, count + 1).sort(dim=1).values
    edges = (edges + draw.each.normal(subjects, count + 1) * draw.scalar(0.0, 0.06)).sort(dim=1).values
    above = (height + waves)[..., None] > edges[:, None, None, :]
    labels = above.sum(-1)
    labels = torch.where(labels > count, 0, labels)
    return Layer(labels, count, torch.ones_like(height), labels)


def curves(draw: Draw, grid: Tensor) -> Layer:
    """Thin winding curves, the zero crossings of smooth noise, new in each subject: label 1."""
    size = grid.shape[1]
    cell = draw.log_scalar(0.1, 0.4)
    noise = warp(smooth_noise(draw.each, len(grid), 1, size, cell), grid)[:, 0]
    dy, dx = torch.gradient(noise, dim=(1, 2))
    slope = (dx.square() + dy.square()).sqrt() * (size / 2.0) + 0.5
    width = draw.log_scalar(0.025, 0.08)
    level = 1.0 - noise.abs() / slope / width
    labels = (level > 0).long()
    return Layer(labels, 1, level.clamp(0, 1), labels)


def _outline(draw: Draw, subjects: int, count: int, stretch: float, wave: float) -> tuple[Tensor, Tensor, Tensor]:
    return (torch.exp(draw.each.normal(subjects, count) * stretch), draw.each.uniform(0.0, math.pi, subjects, count),
            draw.each.normal(subjects, count, 4, 2) * wave)


def _scatter(draw: Draw, grid: Tensor, most: int, base: float) -> Ellipses:
    """Up to `most` ellipses of about radius `base`, fewer in some subjects."""
    subjects = len(grid)
    crowd = draw.chance(0.3)
    centre = draw.each.uniform(-1.05, 1.05, subjects, most, 2)
    if crowd:  # gathered round a few points
        seeds = draw.each.uniform(-0.8, 0.8, subjects, 3, 2)
        which = torch.randint(3, (subjects, most), generator=draw.each.generator, device=grid.device)
        centre = seeds.gather(1, which[..., None].expand(-1, -1, 2)) + draw.each.normal(subjects, most, 2) * 0.3
    radius = base * torch.exp(draw.each.normal(subjects, most) * draw.scalar(0.05, 0.35))
    stretch = torch.exp(draw.each.normal(subjects, most) * draw.scalar(0.0, 0.3))
    fewest = draw.scalar(0.3, 1.0)
    present = torch.arange(most, device=grid.device) < most * draw.each.uniform(fewest, 1.0, subjects, 1)
    return Ellipses(centre, radius, stretch, draw.each.uniform(0.0, math.pi, subjects, most), present=present)


def painted(grid: Tensor, groups: Sequence[Ellipses], labels: Tensor) -> Layer:
    """Groups of ellipses painted in order, later over earlier; labels are the objects' labels, of one group after the
    other."""
    top, depth = paint(grid, groups)
    return Layer(torch.cat([labels.new_zeros(1), labels])[top], int(labels.max()), depth, top)


def _tree(
    draw: Draw, subjects: int, width: float, roots: int, point: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Segments of a branching tree in each subject: starts and stops (N,M,2), radii (N,M).

    The roots leave from `point` (N,1,2), as from the optic disc; None: they come in from the border.
    """
    steps, step = draw.integer(7, 12), draw.scalar(0.11, 0.2)
    bend, fork, thinning = draw.scalar(0.05, 0.35), draw.scalar(0.4, 1.1), draw.scalar(0.55, 0.85)
    if point is not None:
        origin = point.expand(-1, roots, -1)
        heading = draw.each.uniform(0.0, 2 * math.pi, subjects, roots)
    else:
        side = draw.each.uniform(0.0, 2 * math.pi, subjects, roots)
        origin = torch.stack([torch.cos(side), torch.sin(side)], -1) * 1.2
        heading = side + math.pi + draw.each.normal(subjects, roots) * 0.4
    starts, stops, radii = [], [], []
    for generation in range(draw.integer(2, 3)):
        radius = width * thinning**generation
        path, headings = [origin], []
        for _ in range(steps):
            heading = heading + draw.each.normal(*heading.shape) * bend
            headings.append(heading)
            path.append(path[-1] + step * torch.stack([torch.cos(heading), torch.sin(heading)], -1))
        path, headings = torch.stack(path, 2), torch.stack(headings, 2)  # (N,branches,steps+1,2), (N,branches,steps)
        taper = torch.linspace(1.0, thinning, steps, device=draw.device)
        starts.append(path[:, :, :-1].flatten(1, 2))
        stops.append(path[:, :, 1:].flatten(1, 2))
        radii.append((radius * taper).expand(subjects, path.shape[1], -1).flatten(1))
        # Each branch sends off two more, at random points and to either side.
        where = torch.randint(1, steps, (*headings.shape[:2], 2), generator=draw.each.generator, device=draw.device)
        side = torch.where(draw.each.mask(0.5, *where.shape), 1.0, -1.0)
        heading = (headings.gather(2, where) + side * fork).flatten(1)
        origin = path.gather(2, where[..., None].expand(-1, -1, -1, 2)).flatten(1, 2)
    return torch.cat(starts, 1), torch.cat(stops, 1), torch.cat(radii, 1)
