"""Labels that stay binary when they are resized."""

from __future__ import annotations

import torch
from torch import Tensor


def harden(coverage: Tensor) -> Tensor:
    """Labels (N,1,H,W) in {0, 1} of interpolated ones in [0, 1], cut where each keeps its area.

    A cut at a half would take thin structures away wherever they are less than a pixel wide.
    """
    flat = coverage.flatten(1)
    area = flat.sum(1).round().long().clamp(1, flat.shape[1])
    # The cut is the area's last value in falling order, kept within these bounds, so only what lies between is sorted.
    low, high = 0.2, 0.5
    surely = (flat >= high).sum(1)
    between = torch.where(flat < high, flat, 0.0)
    wanted = (area - surely).clamp_min(0)
    most = int(wanted.max()) if len(wanted) else 0
    cut = torch.full_like(flat[:, :1], high)
    if most:
        last = between.topk(most, dim=1).values.gather(1, wanted.clamp_min(1)[:, None] - 1)
        cut = torch.where(wanted[:, None] > 0, last.clamp_min(low), cut)
    return (flat >= cut).float().view(coverage.shape)
