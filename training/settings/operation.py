"""An operation of the augmentation as the settings state it."""

from __future__ import annotations

from dataclasses import dataclass

from universeg_rt.errors import InputError

Range = tuple[float, float]


@dataclass(frozen=True)
class Operation:
    """An operation done with `probability` and a strength drawn uniformly from `range` (its unit is the
    operation's)."""

    probability: float
    range: Range = (0.0, 0.0)

    def __post_init__(self) -> None:
        if not 0.0 <= self.probability <= 1.0 or self.range[0] > self.range[1]:
            raise InputError(f"{self}: the probability lies in [0, 1] and the range goes from low to high")
