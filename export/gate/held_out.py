"""What int8 costs on tasks it was not calibrated on: Dice against the truth, and masks against those of float32."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from universeg_rt.errors import ParityError
from universeg_rt.imaging.metrics import dice

from .episodes import CalibrationData
from .parity import Model


@dataclass(frozen=True)
class HeldOutTolerance:
    """The largest mean loss of Dice against the truth, and the largest share of pixels whose mask differs from
    float32's."""

    mean_dice_loss: float = 0.005
    flipped: float = 0.005


def check_held_out(
        models: Mapping[str, Model],
        float32: Model,
        data: CalibrationData,
        tolerance: HeldOutTolerance = HeldOutTolerance(),
        progress: Callable[[Sequence], Iterator] = iter,
) -> dict:
    """Plain values for the manifest, by model; raises ParityError with the figures where one is over tolerance."""
    rows: dict[str, list[tuple[float, float, float, float]]] = {name: [] for name in models}
    for episode in progress(data.episodes):
        inputs = (episode.support, episode.weights, episode.query)
        truth, expected = episode.target > 0.5, float32(*inputs)[:, 0] > 0
        for name, model in models.items():
            mask = model(*inputs)[:, 0] > 0
            rows[name].append((dice(expected, truth), dice(mask, truth), dice(mask, expected),
                               float((mask != expected).mean())))
    out = {}
    for name, values in rows.items():
        float32_dice, own_dice, agreement, flipped = np.array(values).T
        out[name] = {"dice_float32": float(float32_dice.mean()), "dice": float(own_dice.mean()),
                     "mean_dice_loss": float((float32_dice - own_dice).mean()),
                     "largest_dice_loss": float((float32_dice - own_dice).max()),
                     "dice_with_float32_mask": float(agreement.mean()), "flipped": float(flipped.mean())}
        if not (out[name]["mean_dice_loss"] <= tolerance.mean_dice_loss and out[name]["flipped"] <= tolerance.flipped):
            raise ParityError(
                f"int8 {name} on {len(data.episodes)} held-out tasks loses {out[name]['mean_dice_loss']:.4f} Dice "
                f"(accepted {tolerance.mean_dice_loss:g}) and flips a share of {out[name]['flipped']:.4f} pixels "
                f"(accepted {tolerance.flipped:g})")
    return {"tasks": len(data.episodes), "source": data.source, "seed": data.seed, "data_sha256": data.sha256,
            "tolerance": asdict(tolerance), "models": out}
