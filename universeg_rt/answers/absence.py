"""When a target is taken to be absent: the rule by which an answer becomes an empty mask, on request."""

from __future__ import annotations

from ..errors import InputError
from ..imaging.metrics import mean_inside
from ..named_types import Bools, Floats

ABSENT_BELOW = 0.6  # the default of commands; benchmarks/NOTES.md has what it gives and costs


def presence(probability: Floats, mask: Bools) -> float:
    """From 0 to 1, how far an answer speaks for a target that is there: the mean probability inside its mask. Chosen by
    measurement among seven rules, see benchmarks/NOTES.md: it costs the least, and none is good."""
    return mean_inside(probability, mask)


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
