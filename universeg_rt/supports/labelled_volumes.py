"""Volumes with their labels, as a support takes slices of them: labels of several files under common values."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from typing import NamedTuple

import numpy as np

from ..answers.absence import UNTOLD, Looks
from ..errors import InputError, NoiseError, shown
from ..imaging.embedding import embed, look_of
from ..imaging.normalisation import Normalisation, Range, check_not_noise, share_of
from ..named_types import AnyPath, Array, Doubles, Floats, Integers
from ..volumes.reading import label_values, read_chosen, read_labels
from ..volumes.slicing import Slices, intensity_range
from ..volumes.volume import LabelVolume, Volume

SEEN = 64  # slices of a volume, evenly, that tell what a label's absence looks like; and of those that hold labels
DIM_AREA = 0.02  # of a label in dim slices: if more, nothing is dimmed; as much costs a volume a hundredth of Dice


@dataclass(frozen=True, eq=False)
class LabelledVolume:
    """A volume with its labels, and of each slice the area of each label: areas by value (slices,) pixels.

    numbers: of the file's values the common ones, which areas and `cut` have. limits: of the volume's intensities.
    """

    name: str
    volume: Volume
    labels: LabelVolume
    slices: Slices
    areas: dict[int, Integers]
    numbers: dict[int, int] = field(default_factory=dict)
    limits: Range = (0.0, 0.0)

    @classmethod
    def read(cls, name: str, volume: Volume, labels: LabelVolume, axis: str) -> LabelledVolume:
        """areas by the file's own values."""
        slices = Slices.of(volume.geometry, volume.acquired, axis)
        counts = [np.unique(part, return_counts=True) for part in slices.view(labels.values)]
        areas = {value: np.zeros(len(slices), np.int64) for value in labels.names}
        for index, (values, sizes) in enumerate(counts):
            for value, size in zip(values.tolist(), sizes.tolist()):
                if value in areas:
                    areas[value][index] = size
        held = {value: area for value, area in areas.items() if area.any()}
        return cls(name, volume, labels, slices, held, limits=intensity_range(volume.values))

    def renumbered(self, values: Mapping[str, int]) -> LabelledVolume:
        """With common values, by the labels' names; labels of one name are one."""
        numbers = {own: values[self.labels.names[own]] for own in self.areas}
        areas: dict[int, Integers] = {}
        for own, value in numbers.items():
            areas[value] = areas.get(value, 0) + self.areas[own]
        return replace(self, areas=areas, numbers=numbers)

    def cut(self, index: int) -> Array:
        """The label map of a slice (H,W), of common values."""
        own = self.slices.take(self.labels.values, index)
        out = np.zeros(own.shape, np.int64)
        for value, number in self.numbers.items():
            out[own == value] = number
        return out

    def look(self, index: int, normalise: Normalisation) -> Floats | None:
        """A slice, as `look_of`."""
        return look_of(self.slices.take(self.volume.values, index), normalise)

    def is_noise(self, index: int) -> bool:
        """Of a slice, as `is_noise`."""
        return is_noise(self.slices.take(self.volume.values, index), self.limits)

    def share(self, index: int, normalise: Normalisation) -> float:
        """Of [0, 1] that a slice takes, as `share_of`."""
        return share_of(self.slices.take(self.volume.values, index), normalise, self.limits)

    def weights(self, wanted: Sequence[int]) -> Doubles:
        """(slices,) of the labels' areas, each as a share of its own, so that a small label counts as a large one."""
        out = np.zeros(len(self.slices))
        for value in wanted:
            if value in self.areas:
                out += self.areas[value] / self.areas[value].sum()
        return out


def looks_of(queries: Iterable[Volume], axis: str, normalise: Normalisation) -> list[Floats]:
    """Slices of query volumes as `look_of` has them. InputError where there are none that hold something."""
    found = [[look_of(image, normalise) for image in query_slices(query, axis)] for query in queries]
    if not found:
        raise InputError("slices by similarity need a query; give a volume that they are to be like")
    if not (out := [look for looks in found for look in looks if look is not None]):
        raise InputError("every slice of the query is blank or nearly so; there is nothing to be like")
    return out


def query_slices(query: Volume, axis: str) -> Iterator[Array]:
    """Slices (H,W) of a volume that hold more than one value, and more than noise."""
    cut, limits = Slices.of(query.geometry, query.acquired, axis), intensity_range(query.values)
    for image in (cut.take(query.values, i) for i in range(len(cut))):
        if image.min() < image.max() and not is_noise(image, limits):
            yield image


def is_noise(image: Array, limits: Range) -> bool:
    """Whether a slice of a volume of this range holds nothing but noise, as `check_not_noise` tells it."""
    try:
        check_not_noise(image, "slice", limits)
    except NoiseError:
        return True
    return False


class Clear(NamedTuple):
    """Of a volume the slices that hold a label and more than one value, by index: those with more than noise, and those
    with noise alone."""

    clear: list[int]
    noise: list[int]


def clear_slices(found: Sequence[LabelledVolume], wanted: Sequence[int], normalise: Normalisation) -> list[Clear]:
    """Of each volume; each slice that holds one of the labels is looked at once."""
    out = []
    for each in found:
        held = Clear([], [])
        for i in map(int, np.flatnonzero(each.weights(wanted))):
            if each.look(i, normalise) is not None:
                (held.noise if each.is_noise(i) else held.clear).append(i)
        out.append(held)
    return out


def lies_in_dim(found: Sequence[LabelledVolume], clear: Sequence[Clear], wanted: Sequence[int],
                normalise: Normalisation) -> bool:
    """Whether more than DIM_AREA of a label's area is in dim slices that are not noise. Dimmed, they would be lost: the
    network was trained on images that span [0, 1]."""
    whole, dim = dict.fromkeys(wanted, 0), dict.fromkeys(wanted, 0)
    for each, held in zip(found, clear):
        areas = {value: each.areas[value] for value in wanted if value in each.areas}
        for i in held.clear:
            is_dim = each.share(i, normalise) < 1
            for value, area in areas.items():
                whole[value] += int(area[i])
                dim[value] += int(area[i]) * is_dim
    return any(dim[value] > DIM_AREA * whole[value] for value in wanted)


def looks_by_label(found: Sequence[LabelledVolume], wanted: Sequence[int], normalise: Normalisation
                   ) -> dict[int, Looks]:
    """Of each label what tells its absence, by slices of each volume that holds it, which hold more than noise. Another
    volume may lack it because nobody marked it. UNTOLD for labels that all of these slices hold."""
    seen = []
    for each in found:
        held = np.flatnonzero(each.weights(wanted))
        taken = np.union1d(_evenly(np.arange(len(each.slices))), _evenly(held)).tolist()
        looks = {i: look for i in taken if (look := each.look(i, normalise)) is not None and not each.is_noise(i)}
        if looks:
            seen.append((each, list(looks), embed(np.stack(list(looks.values())))))
    out = {}
    for value in wanted:
        having = [one for one in seen if value in one[0].areas]
        placed = [one for one in having if one[0].slices.places(one[1])]
        having = placed or having  # one that does not say which end is which takes nothing from the others
        if not having:
            out[value] = UNTOLD
            continue
        marked = np.concatenate([each.areas[value][at] > 0 for each, at, _ in having])
        places = np.concatenate([each.slices.places(at) or [] for each, at, _ in having]) if placed else None
        lengths = [each.slices.length or 0.0 for each, *_ in having]
        out[value] = Looks.of(np.concatenate([known for *_, known in having]), marked, places,
                              having[0][0].slices.plane, (min(lengths), max(lengths))) or UNTOLD
    return out


def _evenly(indices: Integers) -> Integers:
    """Up to SEEN of them."""
    out: Integers = indices[np.unique(np.linspace(0, len(indices) - 1, min(SEEN, len(indices))).round().astype(int))]
    return out


def read_labelled(
    pairs: Mapping[str, tuple[AnyPath, AnyPath]], axis: str, *, any_two: bool = False, time: int | None = None,
    series: str | int | None = None,
) -> tuple[list[LabelledVolume], dict[int, str]]:
    """Volumes, and the names of their labels by common values.

    any_two: whether two values in all label files together are a mask, the lower is the background. time, series: of
    the images that have several. InputError as reading them raises, and where a value without a name has several names
    in other files.
    """
    mask = _any_two([label for _, label in pairs.values()]) if any_two else None
    found = []
    for name, (image, label) in pairs.items():
        volume = read_chosen(image, time, series)
        found.append(LabelledVolume.read(name, volume, read_labels(label, volume, mask=mask), axis))
    found = _named(found)
    values = _common_values(found)
    return [each.renumbered(values) for each in found], {value: name for name, value in values.items()}


def _any_two(paths: Sequence[AnyPath]) -> tuple[float, float] | None:
    """The two values in all label files together, where they are not 0 and a label's value already."""
    there: set[float] = set()
    for path in paths:
        values = label_values(path)
        if values is None:
            return None
        there |= values
        if len(there) > 2 or len(there) == 2 and min(there) == 0 and max(there) % 1 == 0:
            return None
    return (min(there), max(there)) if len(there) == 2 else None


def _named(found: Sequence[LabelledVolume]) -> list[LabelledVolume]:
    """Values without a name in a file get the one that other files give the same value."""
    given: dict[int, dict[str, str]] = {}
    for each in reversed(found):
        for value in each.areas:
            if not _is_unnamed(each, value):
                given.setdefault(value, {})[each.labels.names[value]] = each.name
    out = []
    for each in found:
        names = dict(each.labels.names)
        for value in each.areas:
            known = given.get(value, {})
            if not _is_unnamed(each, value) or not known:
                continue
            if len(known) > 1:
                said = " and ".join(f"{shown(name)} in {owner}" for name, owner in sorted(known.items()))
                raise InputError(f"the labels of {each.name} have no names, and {value} is {said}; give names to "
                                 "the labels of all files, or of none")
            names[value] = next(iter(known))
        out.append(replace(each, labels=replace(each.labels, names=names)))
    return out


def _is_unnamed(each: LabelledVolume, value: int) -> bool:
    return each.labels.names[value] == f"label {value}"


def _common_values(found: Sequence[LabelledVolume]) -> dict[str, int]:
    """A value for each name: its own where no earlier file gives that one to another name, else one of no file."""
    values: dict[str, int] = {}
    own = [(each.labels.names[value], value) for each in found for value in sorted(each.areas)]
    used = {value for _, value in own}
    for name, value in own:
        if name not in values and value not in values.values():
            values[name] = value
    for name, _ in own:
        if name not in values:
            values[name] = next(free for free in count(1) if free not in used | {*values.values()})
    return dict(sorted(values.items(), key=lambda each: each[1]))
