"""When a target is taken to be absent: the rule by which an answer becomes an empty mask, on request."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from ..errors import InputError, shown
from ..imaging.embedding import NUMBERS, embed, look_of
from ..imaging.normalisation import Normalisation
from ..named_types import Array, Bools, Doubles, Floats

ABSENT_BELOW = 0.4  # of commands where the support is of volumes; benchmarks/NOTES.md has what it gives and costs
UNKNOWN_NOTE = ("absence is not judged: the support shows no image without the target; give it some with an empty "
                "label, or longer volumes")
RIDGE = 0.3  # how much the classifier is held back; from 0.1 to 1 it hardly matters
PARTS = 5  # points along a volume between which a slice's place is told
SHORTEST, LONGEST = 0.8, 1.25  # of the volumes' length: others show another part of the body, and places tell nothing


@dataclass(frozen=True, eq=False)
class Looks:
    """What tells whether an image is like those with the target or like those without: ridge regression on 1 and -1 of
    their embeddings, of slices with their places in their volumes; both kinds count alike.

    middle: of the embeddings (D,) float32, or with places (D + PARTS,). direction: where the target becomes likelier.
    Both are empty where volumes were seen and do not tell it (`UNTOLD`). plane: of the slices, as `Slices.plane`; empty
    where none is known. lengths: the shortest and the longest of their volumes, as `Slices.length`.
    """

    middle: Floats
    direction: Floats
    plane: str = ""
    lengths: tuple[float, float] = (0.0, 0.0)

    @classmethod
    def of(cls, embeddings: Floats, marked: Bools, places: Sequence[float] | Array | None = None, plane: str = "",
           lengths: tuple[float, float] = (0.0, 0.0)) -> Self | None:
        """Of embeddings (N,D) of images on LOOK, whether they hold the target (N,), and where they are slices their
        places (N,), from 0, the first of a volume, to 1, the last. None where all hold the target, or none does."""
        if marked.all() or not marked.any():
            return None
        known = embeddings if places is None else np.concatenate([embeddings, _along(places)], axis=1)
        weights = np.where(marked, 0.5 / marked.sum(), 0.5 / (~marked).sum())
        middle = weights @ known
        centred = known - middle
        weighted = centred.T * (len(known) * weights)
        held_back = RIDGE * np.eye(len(middle))  # (D,D): volumes have far more slices than an embedding has numbers
        found = np.linalg.solve(weighted @ centred + held_back, weighted @ np.where(marked, 1.0, -1.0))
        return cls(middle.astype(np.float32), found.astype(np.float32), plane, lengths)

    @classmethod
    def of_entries(cls, images: Sequence[Array], labels: Sequence[Bools], normalise: Normalisation) -> Self | None:
        """Of a support's images (H,W), none of which is blank, and labels (H,W)."""
        marked = np.array([label.any() for label in labels])
        if marked.all():
            return None
        looks = [(look, held) for image, held in zip(images, marked) if (look := look_of(image, normalise)) is not None]
        if not looks:
            return None
        return cls.of(embed(np.stack([look for look, _ in looks])), np.array([held for _, held in looks]))

    @classmethod
    def of_array(cls, values: Array, plane: str, name: str) -> Self:
        """Of `array`'s values and the plane; InputError, which names them so, where they are others."""
        placed = NUMBERS + PARTS + 1
        if values.dtype != np.float32 or values.shape not in ((2, 0), (2, NUMBERS), (2, placed)) \
                or not np.isfinite(values).all():
            raise InputError(f"{name} is {values.dtype} of shape {values.shape}; expected what SupportSet.save writes, "
                             f"finite float32 (2,{NUMBERS}) or (2,{placed})")
        if values.shape != (2, placed):
            return cls(values[0], values[1], plane)
        return cls(values[0, :-1], values[1, :-1], plane, (float(values[0, -1]), float(values[1, -1])))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Looks) and self.plane == other.plane and np.array_equal(self.array, other.array)

    def __hash__(self) -> int:
        return hash(self.array.tobytes())

    @property
    def tells(self) -> bool:
        """Whether anything is known."""
        return len(self.middle) > 0

    @property
    def of_volumes(self) -> bool:
        """Whether it knows where slices lie."""
        return len(self.middle) > NUMBERS

    @property
    def array(self) -> Floats:
        """(2,D), middle and direction; (2,D + PARTS + 1) with places, the lengths in the last column."""
        both = np.stack([self.middle, self.direction])
        return np.column_stack([both, np.array(self.lengths, np.float32)]) if self.of_volumes else both

    def misfit(self, length: float | None) -> str:
        """Why the places of slices in a volume of this length tell nothing; empty where they do, or do not count."""
        low, high = self.lengths
        if not self.of_volumes or length is not None and SHORTEST * low <= length <= LONGEST * high:
            return ""
        said = "how long it is across its slices is not known" if length is None else (
            f"it is {length:.0f} mm long across its slices")
        return f"{said}, the support's volumes {low:.0f} to {high:.0f} mm"

    def presence(self, image: Array, normalise: Normalisation, place: float | None = None) -> float:
        """From 0 to 1, of an image (H,W): 0.5 lies halfway between the two kinds, 0.88 and 0.12 where the regression
        gives 1 and -1. place: as `of` takes them; None: not known, then it does not count. 0.5 for a blank image,
        and where nothing `tells`."""
        look = look_of(image, normalise)
        if look is None or not self.tells:
            return 0.5
        seen = embed(look[None])[0]
        if place is not None and self.of_volumes:
            seen = np.concatenate([seen, _along([place])[0]])
        return float(0.5 + 0.5 * np.tanh((seen - self.middle[: len(seen)]) @ self.direction[: len(seen)]))


UNTOLD = Looks(np.zeros(0, np.float32), np.zeros(0, np.float32))


def _along(places: Sequence[float] | Array) -> Doubles:
    """(N,PARTS) of places: near each of PARTS points from 0 to 1, from 1 at the point to 0 at the next."""
    points = np.linspace(0, 1, PARTS)
    out: Doubles = np.maximum(0, 1 - np.abs(np.asarray(places, np.float64)[:, None] - points) * (PARTS - 1))
    return out


def check_places(places: Sequence[float] | Array | None, count: int) -> Sequence[float | None]:
    """Of each image where it lies in its volume, None where that is not known; InputError for anything else."""
    if places is None:
        return [None] * count
    try:
        listed = list(places)
    except TypeError:  # one number
        listed = []
    if len(listed) != count:
        raise InputError(f"places are {shown(places)}; give {count}, one for each image")
    for place in listed:
        number = isinstance(place, (int, float, np.integer, np.floating)) and not isinstance(place, bool)
        if not number or not 0 <= place <= 1:
            raise InputError(f"a place is {shown(place)}; give a number from 0, the first slice of the volume, to 1, "
                             "the last")
    return [float(place) for place in listed]


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
