"""When a target is taken to be absent: the rule by which an answer becomes an empty mask, on request."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import InputError
from ..imaging.embedding import embed
from ..imaging.metrics import mean_inside
from ..named_types import Bools, Floats

ABSENT_BELOW = 0.5  # the default of commands; benchmarks/NOTES.md has what it gives and costs
UNKNOWN_NOTE = ("absence is judged by the mean probability inside the mask, which hardly tells it: no examples without "
                "the target are known here")
RIDGE = 0.1  # how much the classifier is held back; from 0.03 to 0.3 it hardly matters


@dataclass(frozen=True, eq=False)
class Looks:
    """What tells, by the look of a whole image alone, whether it is like a support's entries with the target or like
    those without: ridge regression of embeddings (D,) on 1 and -1, both kinds of entries counting alike.

    middle: of the embeddings. direction: in which the target becomes likelier.
    """

    middle: Floats
    direction: Floats

    @classmethod
    def of(cls, entries: Floats) -> Looks | None:
        """Of entries (N,2,h,w) on the grid; None where all of them hold the target, or none does."""
        marked = np.any(entries[:, 1] >= 0.5, axis=(1, 2))
        if marked.all() or not marked.any():
            return None
        looks = embed(entries[:, 0])
        weights = np.where(marked, 0.5 / marked.sum(), 0.5 / (~marked).sum())
        middle = weights @ looks
        centred = looks - middle
        held_back = RIDGE * np.diag(1 / (len(looks) * weights))
        found = np.linalg.solve(centred @ centred.T + held_back, np.where(marked, 1.0, -1.0)) @ centred
        return cls(middle.astype(np.float32), found.astype(np.float32))

    def presence(self, image: Floats) -> float:
        """From 0 to 1, of an image (h,w) on the grid: 0.5 lies halfway between the two kinds, 0.88 and 0.12 where the
        regression gives 1 and -1."""
        return float(0.5 + 0.5 * np.tanh((embed(image[None])[0] - self.middle) @ self.direction))


def presence(probability: Floats, mask: Bools, image: Floats, looks: Looks | None) -> float:
    """From 0 to 1, how far an image (h,w) on the grid, and the answer to it, speak for a target that is there.

    What the image looks like, where the support shows what absence looks like; else the mean probability inside the
    mask, which hardly tells. Both were chosen by measurement, see benchmarks/NOTES.md.
    """
    return mean_inside(probability, mask) if looks is None else looks.presence(image)


def check_absent_below(value: object) -> float | None:
    """None, or a presence from 0 to 1 below which a mask is emptied; InputError for anything else."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
        raise InputError(f"absent_below is {value!r}; give a number from 0 to 1, or None to empty no mask")
    return float(value)


def absent_note(found: float, below: float) -> str:
    """Of a mask that the rule emptied."""
    return (f"the target is taken to be absent and the mask is emptied: presence {found:.2f}, below absent_below "
            f"{below:g}")
