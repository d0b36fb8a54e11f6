"""What --support holds: images or volumes, with masks or with label maps of several values."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, get_args

import numpy as np

from ..entries import read_entries
from ..errors import InputError, TruthError
from ..imaging.normalisation import Normalisation
from ..imaging.pairs import read_pairs
from ..imaging.preprocess import check_label, count_of, values_of_classes
from ..labelled import LabelledSupport
from ..named_types import Array
from ..storage.reading import is_folder
from ..support import SupportSet
from ..supports.volumes import (
    ABSENT,
    AREA,
    SIMILAR,
    SLICES,
    By,
    SliceChoice,
    has_volumes,
    labelled_support_of_volumes,
    volume_pairs,
)
from ..volumes.slicing import ACQUIRED
from ..volumes.volume import Volume
from .common import as_options, said_in_options

TAKEN = ("slices", "absent", "by")  # options that say which slices of volumes a support takes


def add_slice_options(parser: argparse._ActionsContainer) -> None:
    """--slices, --absent and --by, for `load_support`."""
    parser.add_argument("--slices", type=int, metavar="N",
                        help=f"slices with a label that a support of volumes takes, of all together ({SLICES})")
    parser.add_argument("--absent", type=int, metavar="N", help=f"slices without any ({ABSENT})")
    parser.add_argument("--by", choices=get_args(By), help="which slices: by the label's area, evenly, or those that "
                        f"are the most like the volumes to segment or to select for ({AREA})")


@dataclass(frozen=True)
class Labels:
    """Which labels are asked for: by value or name, None for all; and names given to values."""

    chosen: tuple[str | int, ...] | None
    names: dict[int, str]

    @classmethod
    def of(cls, texts: Sequence[str] | None) -> Labels:
        """Of `--label`: `2`, `liver`, or `2=liver`. InputError where a name is given to what is no value."""
        chosen: list[str | int] = []
        names: dict[int, str] = {}
        for text in texts or ():
            value, equals, name = text.partition("=")
            if not equals:
                chosen.append(text)
            elif not value.isdecimal() or int(value) == 0 or not name.strip():
                raise InputError(f"--label {text}: give VALUE=NAME, where the value is a whole number from 1")
            else:
                names[int(value)] = name.strip()
                chosen.append(int(value))
        return cls(tuple(chosen) if chosen else None, names)


def load_support(args: argparse.Namespace, normalise: Normalisation, queries: Iterable[Volume] = ()
                 ) -> SupportSet | LabelledSupport:
    """The support that --support names: SupportSet where its labels have two values and none is asked for by name or
    value, else LabelledSupport. queries: volumes that `--by similar` is alike to, read where it is asked for.
    InputError as reading it raises, and for options of TAKEN beside pictures."""
    with said_in_options():
        return _support(args, Labels.of(args.label), normalise, queries)


def _support(args: argparse.Namespace, labels: Labels, normalise: Normalisation, queries: Iterable[Volume]
             ) -> SupportSet | LabelledSupport:
    folder = is_folder(args.support)
    if folder and has_volumes(args.support):
        return _of_volumes(args, labels, normalise, queries)
    refuse_beside_pictures({name: getattr(args, name) for name in TAKEN})
    images, maps, names, shares = (*read_pairs(args.support), None) if folder else read_entries(args.support)
    count_of(maps, "labels")
    if labels.chosen is None and (masks := _masks(list(maps))) is not None:
        return SupportSet.from_arrays(images, masks, names, shares)
    for name, each in zip(names or map(str, range(len(maps))), maps):
        values_of_classes(each, f"support label {name}")
    return LabelledSupport.from_arrays(images, maps, names, shares, label_names=labels.names)


def refuse_beside_pictures(options: Mapping[str, object]) -> None:
    """InputError where an option is given, not None, that says how volumes are read or sliced and none are there."""
    if said := as_options(name for name, value in options.items() if value is not None):
        raise InputError(f"{said}: there are no volumes that this could be said of; leave it out")


def _masks(labels: Sequence[Array]) -> list[Array] | None:
    """Labels with two values in all of them together as bool, the lower is the background; None where there are others.

    Those that `check_label` takes by itself are left to it.
    """
    found: set[float] = set()
    for label in labels:
        found.update(np.unique(label).tolist())
        if len(found) > 2:
            return None
    if found <= {0, 1} or found <= {0, 255} or len(found) < 2:
        return list(labels)
    return [np.asarray(label == max(found)) for label in labels]


def true_masks(label: Array, values: dict[str, int], shape: tuple[int, int], name: str, asked: bool
               ) -> dict[str, Array]:
    """The true mask (H,W) bool of each label by its name. asked: as `true_values` takes it; of a support that is a mask
    any two values are one."""
    if len(values) == 1 and not asked and label.shape == shape and (masks := _masks([label])) is not None:
        return {next(iter(values)): check_label(masks[0], shape, name)}
    if label.shape != shape:
        check_label(label, shape, name)  # says so
    there = {value: "" for value in np.unique(label).tolist() if value != 0}
    return {key: np.isin(label, own) for key, own in true_values(there, values, asked).items()}


def true_values(there: Mapping[int, str], values: Mapping[str, int], asked: bool) -> dict[str, list[int]]:
    """Of each label by its name the values that it has in a truth, none where the truth lacks it.

    there: of the truth's values the names, "" where it has none. values: of the labels by name. asked: whether they
    were asked for by --label; a single one that was not is all that the support marks, and so is what a truth of two
    values marks. Otherwise a label has its name, else its value; 1 and 255 are both the value of a mask. Raises
    TruthError where the support is a mask without a name, or of 255, and the truth holds several others.
    """
    if len(values) == 1:
        (name, value), = values.items()
        if len(there) == 1 and (not asked or {value, *there} <= {1, 255}):
            return {name: list(there)}
        if len(there) > 1 and not asked and (not name or value == 255 and value not in there):
            raise TruthError(f"it holds the labels {', '.join(map(str, sorted(there)))}, and the support is a mask "
                             "that does not say which of them it marks; give a truth of that label alone")
    named = {name: [each for each, own in there.items() if own and own == name] for name in values}
    taken = {each for own in named.values() for each in own}
    return {name: named[name] or [each for each in there if each == value and each not in taken]
            for name, value in values.items()}


def slices_taken(args: argparse.Namespace) -> dict[str, Any]:
    """What the options of TAKEN say, where the support is of volumes; nothing where it is not."""
    if not (is_folder(args.support) and has_volumes(args.support)):
        return {}
    left_out = {"slices": SLICES, "absent": ABSENT, "by": AREA}
    return left_out | {name: value for name in TAKEN if (value := getattr(args, name)) is not None}


def _of_volumes(args: argparse.Namespace, labels: Labels, normalise: Normalisation, queries: Iterable[Volume]
                ) -> LabelledSupport:
    """Slices of labelled volumes, with names given to values; all along the axis that queries are sliced along."""
    choice = SliceChoice(args.axis or ACQUIRED, **slices_taken(args), seed=args.seed or 0)
    support = labelled_support_of_volumes(
        volume_pairs(args.support), labels.chosen, choice, query=queries if choice.by == SIMILAR else (),
        normalise=normalise, time=args.time, series=args.series)
    names = support.label_names | {v: name for v, name in labels.names.items() if v in support.label_names}
    return replace(support, label_names=names)
