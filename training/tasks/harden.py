"""Labels that stay binary when they are resized."""

from __future__ import annotations

from torch import Tensor


def harden(coverage: Tensor) -> Tensor:
    """Labels (N,1,H,W) in {0, 1} of interpolated ones in [0, 1], cut where each keeps its area.

    A cut at a half would take thin structures away wherever they are less than a pixel wide.
    """
    flat = coverage.flatten(1)
    area = flat.sum(1).round().long().clamp(1, flat.shape[1])
    cut = flat.sort(dim=1, descending=True).values.gather(1, area[:, None] - 1).clamp(0.2, 0.5)
    return (flat >= cut).float().view(coverage.shape)
