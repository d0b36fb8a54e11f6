"""What a prediction is: mask, probability and spread at the image's own size, confidence, timing and notes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from .imaging.metrics import expected_dice

if TYPE_CHECKING:
    from .named_types import Bools, Floats

BLANK, NOISE, ABSENT = "blank", "noise", "absent"


@dataclass(frozen=True)
class Timing:
    """Seconds of one prediction; in a batch, network is the batch's time divided by its size.

    runner, precision: what ran the network. notes: as `Runner.notes`, what was not as asked or as it could be, and the
    cure.
    """

    preprocess: float
    network: float
    postprocess: float
    runner: str = ""
    precision: str = ""
    notes: tuple[str, ...] = ()

    @property
    def total(self) -> float:
        return self.preprocess + self.network + self.postprocess

    def after(self, first: Timing) -> Timing:
        """Of both, one after the other."""
        return replace(self, preprocess=first.preprocess + self.preprocess, network=first.network + self.network,
                       postprocess=first.postprocess + self.postprocess)


@dataclass(frozen=True, eq=False)
class Prediction:
    """All maps have the input image's own size (H,W).

    mask: bool, probability >= threshold. probability: float32, mean over the ensemble's members. spread: float32,
    standard deviation over the members (zero for one member). notes: what is allowed but rarely meant, of this image
    and of the task's support (`Task.notes`), each with the cure. logits: (K,h,w) float32 of each member on the
    network's grid, where they were asked for, else None. emptied: why the mask is empty whatever the network says:
    `BLANK` for an image that is all one value and `NOISE` for a slice that holds nothing else, which the network does
    not see, `ABSENT` where the target was taken to be absent; else "". share: of [0, 1] that the image took,
    below 1 for a slice that is dim beside its volume. presence: of the target, where `absent_below` asked for it and it
    is known.
    """

    mask: Bools
    probability: Floats
    spread: Floats
    timing: Timing
    notes: tuple[str, ...] = ()
    threshold: float = 0.5
    logits: Floats | None = None
    emptied: str = ""
    share: float = 1.0
    presence: float | None = None

    @cached_property
    def confidence(self) -> float:
        """From 0 to 1, how far the mask may be trusted: the Dice that the probabilities let one expect of it
        (`imaging.metrics.expected_dice`), 0 for an empty mask. Chosen by measurement, see benchmarks/NOTES.md: it
        finds bad masks, and is no calibrated Dice."""
        return expected_dice(self.probability, self.mask)

    def __repr__(self) -> str:
        height, width = self.mask.shape
        members = "" if self.logits is None else f", logits of {len(self.logits)} members"
        notes = f", {len(self.notes)} note{'s' * (len(self.notes) != 1)}" if self.notes else ""
        return (
            f"Prediction({height}x{width}, mask {self.mask.mean():.1%} of the image, confidence {self.confidence:.2f}, "
            f"{self.timing.total:.3f} s{members}{notes})"
        )

    def _repr_png_(self) -> bytes:
        """A notebook's picture: the probability in grey, the mask tinted orange with its outline."""
        from .imaging.files import png_bytes
        from .imaging.overlays import tinted

        return png_bytes(tinted(self.probability, self.mask))
