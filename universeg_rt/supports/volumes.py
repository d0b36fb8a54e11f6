"""A support from labelled volumes: which slices are taken, by the label's area, evenly, or by likeness to a volume."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, zip_longest
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from ..errors import InputError, shown
from ..imaging.embedding import embed
from ..imaging.normalisation import MINMAX, Normalisation
from ..imaging.pairs import paired
from ..labelled import LabelledSupport
from ..named_types import AnyPath, Doubles, Floats, Integers
from ..storage.reading import is_folder, path_of
from ..support import SupportSet
from ..volumes.reading import find_volumes, pictures_beside, volumes_below
from ..volumes.slicing import PLANES
from ..volumes.volume import Volume
from .labelled_volumes import Clear, LabelledVolume, clear_slices, lies_in_dim, looks_by_label, looks_of, read_labelled
from .select import cover

By = Literal["area", "even", "similar"]
AREA: By = "area"
EVEN: By = "even"
SIMILAR: By = "similar"
SLICES, ABSENT = 16, 2
NAMED = re.compile(rf".+ ({'|'.join(PLANES)}) \d+", re.DOTALL)  # an entry's name


@dataclass(frozen=True)
class SliceChoice:
    """Which slices of labelled volumes become entries of a support.

    axis: of the body, as `volumes.slicing.AXES`. slices: how many that hold a label, of all volumes together; each
    gives as many, as far as it has them. absent: how many more that hold none of the labels, or where these are too few
    lack one of them, so that the network knows what its absence looks like. by: `area` takes slices at equal steps of
    the label's area summed along the axis, so most where most of it lies; `even` at equal steps from its first slice to
    its last; `similar` takes those that are together the most alike to query volumes. Slices of one value are never
    taken, such as hold noise (`labelled_volumes.is_noise`) only for a label that is nowhere else.
    seed: of which slices without a label are taken. Raises InputError where a value is out of range.
    """

    axis: str = "axial"
    slices: int = SLICES
    absent: int = ABSENT
    by: By = AREA
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("slices", 1), ("absent", 0), ("seed", 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
                raise InputError(f"{name} is {shown(value)}; give an integer from {least}")
        if self.by not in get_args(By):
            raise InputError(f"by is {shown(self.by)}; accepted: {', '.join(get_args(By))}")


def has_volumes(folder: AnyPath) -> bool:
    """Whether a support folder's images/ holds volumes: then `volume_pairs` reads it, else `SupportSet.from_folder`.

    InputError where it holds pictures too.
    """
    images = path_of(folder) / "images"
    volumes = volumes_below(images) if is_folder(images) else {}
    if volumes and (pictures := pictures_beside(images, volumes)):
        first = next(iter(volumes.values()))
        raise InputError(f"{images} holds {len(volumes)} volume{'s' * (len(volumes) > 1)}, first {first.name}, "
                         f"and {len(pictures)} picture{'s' * (len(pictures) > 1)}, first {pictures[0].name}; put them "
                         "into two supports")
    return bool(volumes)


def plane_of(names: Sequence[str]) -> str:
    """The plane of the body that the entries of a support lie in, by the names that they are given here; empty where
    they are others."""
    found = {match and match[1] for match in (NAMED.fullmatch(name) for name in names)}
    return next(iter(found)) or "" if len(found) == 1 else ""


def volume_pairs(folder: AnyPath) -> dict[str, tuple[Path, Path]]:
    """Image and label paths by name of a folder with `images/` and `labels/`, which hold volumes of the same names.

    InputError where one of the two is missing, or a volume has no partner.
    """
    return paired(folder, find_volumes)


def support_of_volumes(
    pairs: Mapping[str, tuple[AnyPath, AnyPath]], label: int | str, choice: SliceChoice = SliceChoice(), *,
    query: Volume | Iterable[Volume] = (), normalise: Normalisation = MINMAX, time: int | None = None,
    series: str | int | None = None,
) -> SupportSet:
    """The support of one label, by value or name; else as `labelled_support_of_volumes`."""
    found = labelled_support_of_volumes(pairs, [label], choice, query=query, normalise=normalise, time=time,
                                        series=series)
    return found.of(found.values[0])


def labelled_support_of_volumes(
    pairs: Mapping[str, tuple[AnyPath, AnyPath]], labels: Sequence[int | str] | None = None,
    choice: SliceChoice = SliceChoice(), *, query: Volume | Iterable[Volume] = (),
    normalise: Normalisation = MINMAX, time: int | None = None, series: str | int | None = None,
) -> LabelledSupport:
    """Slices of labelled volumes; entries are named after volume, plane and slice (`p1 axial 87`).

    pairs: by name the paths of image and label, as `volume_pairs` gives them. labels: by value or name; None for all,
    then two values in all files together are a mask, the lower is the background. Labels of several files are one where
    they have one name. Every label is in at least one slice. Its `shares` say which slices stay dim; none do where a
    label lies in dim slices. Its `looks` are of slices of the whole volumes. query: the volume that `similar` is alike
    to, or several. normalise: as the support will be prepared; what it leaves blank is not taken. time, series: as
    `read_volume`, of the files that have several. Raises GeometryError for a label that does not lie on its volume,
    InputError for one that is in no slice or in no volume, more labels than slices hold, volumes acquired in different
    planes, and what cannot be read.
    """
    if not pairs:
        raise InputError("no volumes are given; give at least one with its labels")
    asked = []
    if choice.by == SIMILAR:
        asked = looks_of([query] if isinstance(query, Volume) else query, choice.axis, normalise)
    found, names = read_labelled(pairs, choice.axis, any_two=labels is None, time=time, series=series)
    _check_planes(found)
    _check_values(labels, found)
    wanted = _wanted(labels, names)
    clear = clear_slices(found, wanted, normalise)
    taken = _holding(found, clear, wanted, names, choice, asked, normalise)
    taken += _absent(found, wanted, taken, choice, normalise)
    images, maps, entries, shares = [], [], [], []
    for place, index in sorted(taken):
        each = found[place]
        images.append(each.slices.take(each.volume.values, index))
        cut = each.cut(index)
        maps.append(np.where(np.isin(cut, list(wanted)), cut, 0))
        entries.append(f"{each.name} {each.slices.plane or each.slices.axis} {index}")
        shares.append(each.share(index, normalise))
    given = None if lies_in_dim(found, clear, wanted, normalise) else shares
    return LabelledSupport.from_arrays(images, maps, entries, given, label_names={v: names[v] for v in wanted},
                                       looks=looks_by_label(found, wanted, normalise))


def _check_planes(found: Sequence[LabelledVolume]) -> None:
    """InputError where volumes were acquired in different planes."""
    planes = {each.slices.plane: each.name for each in reversed(found) if each.slices.plane}
    if len(planes) > 1:
        said = " and ".join(f"{name} {plane}" for plane, name in sorted(planes.items()))
        raise InputError(f"volumes of the support were acquired in different planes, {said}; say which plane with the "
                         "axis: axial, coronal or sagittal")


def _check_values(labels: Sequence[int | str] | None, found: Sequence[LabelledVolume]) -> None:
    """InputError where a label is asked for by a value that has several names in the files."""
    for label in labels or ():
        owners = {each.labels.names[value]: each.name for each in reversed(found) for value in each.labels.names
                  if label in (value, str(value)) and each.numbers.get(value)}
        if len(owners) > 1:
            said = " and ".join(f"{shown(name)} in {owner}" for name, owner in sorted(owners.items()))
            raise InputError(f"label {shown(label)} is {said}; give the name of the label")


def _wanted(labels: Sequence[int | str] | None, names: dict[int, str]) -> list[int]:
    """Values of the labels asked for, in their order."""
    if not names:
        raise InputError("the label volumes are empty: no voxel holds a label; give others")
    if labels is None:
        return sorted(names)
    known = ", ".join(f"{value} ({name})" for value, name in sorted(names.items()))
    out: list[int] = []
    for label in labels:
        value = next((v for v, name in names.items() if label in (v, str(v), name)), None)
        if value is None or isinstance(label, bool):
            raise InputError(f"label {shown(label)} is in no slice of the volumes; they hold {known}")
        out.append(value)
    if not out or len(set(out)) < len(out):
        raise InputError(f"labels is {shown(labels)}; give each label once, at least one")
    return out


Taken = list[tuple[int, int]]  # place of the volume, index of the slice


def _holding(found: Sequence[LabelledVolume], clear: Sequence[Clear], wanted: Sequence[int], names: Mapping[int, str],
             choice: SliceChoice, asked: Sequence[Floats], normalise: Normalisation) -> Taken:
    """Slices that hold a label; each label at least once. clear: as `clear_slices` gives it; a slice of noise is taken
    only for a label that is nowhere else. asked: as `looks_of` gives it; empty where slices are not taken by likeness.
    """
    weights = [each.weights(wanted) for each in found]
    alone = [value for value in wanted if not any(each.areas[value][held.clear].any() for each, held
                                                  in zip(found, clear) if value in each.areas)]
    seen = [sorted([*held.clear, *(i for i in held.noise if any(each.areas[v][i] for v in alone if v in each.areas))])
            for each, held in zip(found, clear)]
    if not any(seen):
        raise InputError(f"no slice along {choice.axis} holds a label and more than one value of intensity; look at "
                         "the image volumes and the window")
    if lost := [value for value in wanted if not any(found[place].areas[value][seen[place]].any() for place
                                                     in range(len(found)) if value in found[place].areas)]:
        named = ", ".join(f"{value} ({names[value]})" for value in lost)
        raise InputError(f"no slice along {choice.axis} with more than one value of intensity holds the label {named}; "
                         "leave it out, or look at the image volumes and the window")
    whole: Taken = [(place, i) for place, indices in enumerate(seen) for i in indices]
    first = _each_label_once(found, wanted, whole)
    if len(first) > choice.slices:
        first = _together(found, wanted, whole)
    if len(first) > choice.slices:
        raise InputError(f"slices is {choice.slices}, but {len(wanted)} labels need at least {len(first)} slices; give "
                         "more slices, or fewer labels")
    if asked:
        return _alike(found, whole, asked, choice, normalise, first)
    taken = set(first)
    for place, count in enumerate(_shared_out(choice.slices - len(first), [len(indices) for indices in seen])):
        left = [i for i in seen[place] if (place, i) not in taken]
        mass = weights[place][left] if choice.by == AREA else np.ones(len(left))
        taken.update((place, left[i]) for i in _at_equal_steps(mass, count))
    return sorted(taken)


def _each_label_once(found: Sequence[LabelledVolume], wanted: Sequence[int], whole: Taken) -> Taken:
    """Where there are several labels, of each the slice with the most of it, unless one of another's holds it."""
    out: Taken = []
    if len(wanted) == 1:
        return out
    for value in wanted:
        areas = {(p, i): int(found[p].areas[value][i]) for p, i in whole if value in found[p].areas}
        if areas and max(areas.values()) and not any(areas.get(each) for each in out):
            out.append(max(areas, key=lambda each: areas[each]))
    return out


def _together(found: Sequence[LabelledVolume], wanted: Sequence[int], whole: Taken) -> Taken:
    """Few slices that hold all labels: again and again the one with the most labels that none holds yet."""
    held = {(p, i): {v for v in wanted if v in found[p].areas and found[p].areas[v][i]} for p, i in whole}
    out, left = [], set(wanted)
    while left:
        out.append(max(whole, key=lambda each: len(held[each] & left)))
        left -= held[out[-1]]
    return out


def _at_equal_steps(mass: Doubles, count: int) -> list[int]:
    """Up to `count` different places at equal steps of the mass summed along them, from half a step on."""
    if not len(mass) or not count:
        return []
    count = min(count, len(mass))
    summed = np.cumsum(mass) / mass.sum()
    taken: list[int] = []
    for share in (np.arange(count) + 0.5) / count:
        place = int(np.searchsorted(summed, share))
        free = np.setdiff1d(np.arange(len(mass)), taken)
        taken.append(int(free[np.abs(free - place).argmin()]))
    return sorted(taken)


def _shared_out(total: int, available: Sequence[int]) -> list[int]:
    """As equal numbers as there are available, `total` together."""
    out = [0] * len(available)
    while sum(out) < total and any(given < most for given, most in zip(out, available)):
        least = min((given, place) for place, (given, most) in enumerate(zip(out, available)) if given < most)
        out[least[1]] += 1
    return out


def _alike(found: Sequence[LabelledVolume], whole: Taken, asked: Sequence[Floats], choice: SliceChoice,
           normalise: Normalisation, first: Taken) -> Taken:
    """Slices that are together the most alike to those of the queries."""
    offered = [look for place, i in whole if (look := found[place].look(i, normalise)) is not None]
    likeness = embed(np.stack(asked)) @ embed(np.stack(offered)).T
    return sorted(whole[i] for i in cover(likeness, choice.slices, [whole.index(each) for each in first]))


def _absent(found: Sequence[LabelledVolume], wanted: Sequence[int], held: Taken, choice: SliceChoice,
            normalise: Normalisation) -> Taken:
    """Slices without labels, drawn by the seed, of each volume in turn; where too few, such as lack one, not `held`."""
    rng = np.random.default_rng(choice.seed)
    areas = [np.stack([each.areas.get(value, np.zeros(len(each.slices))) for value in wanted]) for each in found]

    def usable(place: int, order: Integers) -> Iterator[tuple[int, int]]:
        each = found[place]
        for i in map(int, order):
            if (place, i) not in held and each.look(i, normalise) is not None and not each.is_noise(i):
                yield place, i

    taken: Taken = []
    for lacks in (np.all, np.any):
        orders = [rng.permutation(np.flatnonzero(lacks(area == 0, axis=0))) for area in areas]
        turns = zip_longest(*(usable(place, order) for place, order in enumerate(orders)))
        drawn = (each for turn in turns for each in turn if each is not None and each not in taken)
        taken += list(islice(drawn, choice.absent - len(taken)))
    return taken
