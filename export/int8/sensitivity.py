"""Which blocks bear int8: those that do not stay in float, found on the calibration's own episodes and on synthetic
tasks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from ..emit import emit_whole
from ..emit.quantise import Quantisation
from ..folds.folded import FoldedNetwork
from ..gate.episodes import CalibrationData, Episode
from ..precisions import whole_model
from .calibration import SYNTHETIC, calibrate, synthetic_episodes

EPISODES = 8  # of the calibration's, at most, and as many synthetic ones where it is of other images
MARGIN = 0.8  # of the share of flipped pixels that the export's gate accepts on other tasks


def int8_plan(
    network: FoldedNetwork, data: CalibrationData, grid: tuple[int, int], flipped: float,
    progress: Callable[[Sequence], Iterator] = iter,
) -> tuple[Quantisation, tuple[str, ...]]:
    """How a network is exported in int8: the calibrated quantisation, and the labels of the blocks that it leaves in
    float.

    flipped: the share of pixels that the held-out gate accepts. That gate judges on synthetic tasks whatever the
    calibration is from, so blocks are judged on some of them too: those with which the data's own numbering begins.
    """
    judged = data.episodes[:EPISODES]
    if data.source != SYNTHETIC:
        judged += synthetic_episodes(grid, data.seed, EPISODES).episodes
    return spare_blocks(network, calibrate(network, data, progress), judged, MARGIN * flipped)


def spare_blocks(
    network: FoldedNetwork, quantisation: Quantisation, episodes: Sequence[Episode], limit: float
) -> tuple[Quantisation, tuple[str, ...]]:
    """The quantisation with as few blocks left in float as keep the masks, and these blocks' labels.

    One block after the other goes back to float, each time the one without which the fewest pixels flip, until a share
    of at most `limit` differs from float32's mask. Costs a run of the network an episode and block each time.
    """
    expected = _masks(network, None, episodes)

    def flipped(plan: Quantisation) -> float:
        return float(np.mean([(a != b).mean() for a, b in zip(_masks(network, plan, episodes), expected)]))

    spared: tuple[str, ...] = ()
    share = flipped(quantisation)
    while share > limit and quantisation.inputs:
        plans = {label: quantisation.without(label) for label in quantisation.blocks}
        shares = {label: flipped(plan) for label, plan in plans.items()}
        label = min(shares, key=shares.__getitem__)
        quantisation, share, spared = plans[label], shares[label], (*spared, label)
    return quantisation, spared


def _masks(network: FoldedNetwork, quantisation: Quantisation | None, episodes: Sequence[Episode]) -> list[np.ndarray]:
    model = whole_model(emit_whole(network, {}, "0", np.float32, quantisation).SerializeToString())
    return [model(e.support, e.weights, e.query) > 0 for e in episodes]
