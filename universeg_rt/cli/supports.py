"""What --support holds: images or volumes, with masks or with label maps of several values."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np

from ..errors import InputError, shown
from ..imaging.normalisation import Normalisation
from ..imaging.pairs import read_pairs
from ..imaging.preprocess import count_of, values_of_classes
from ..labelled import LabelledSupport
from ..named_types import Array
from ..storage.reading import is_folder
from ..support import SupportSet
from ..support_file import Entries, read_entries, unnamed
from ..supports.volumes import (
    ABSENT,
    AREA,
    SIMILAR,
    SLICES,
    By,
    SliceChoice,
    has_volumes,
    labelled_support_of_volumes,
    plane_of,
    volume_pairs,
)
from ..volumes.slicing import ACQUIRED, AXES
from ..volumes.volume import Volume
from .common import as_options, said_in_options

TAKEN = ("slices", "absent", "by")  # options that say which slices of volumes a support takes
READ = ("axis", "time", "series")  # and how volumes are read


def add_volume_options(parser: argparse._ActionsContainer) -> None:
    """Those of READ and TAKEN, for `load_support`."""
    parser.add_argument("--axis", choices=AXES,
                        help=f"across which volumes, of the support too, are sliced ({ACQUIRED})")
    parser.add_argument("--time", type=int, metavar="T", help="which volume of a NIfTI file with several, from 0")
    parser.add_argument("--series", type=int, metavar="N", help="which series of a DICOM folder with several, from 1")
    parser.add_argument("--slices", type=int, metavar="N",
                        help=f"slices with a label that a support of volumes takes, of all together ({SLICES})")
    parser.add_argument("--absent", type=int, metavar="N", help=f"slices without any ({ABSENT})")
    parser.add_argument("--by", choices=get_args(By), help="which slices: by the label's area, evenly, or those that "
                        f"are the most like the volumes to segment or to select for ({AREA})")


def add_one_label_options(parser: argparse.ArgumentParser) -> None:
    """For `load_one_label`."""
    parser.add_argument("--label", help="value or name, where labels hold several")
    add_volume_options(parser.add_argument_group("a support of volumes"))


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


def is_of_volumes(args: argparse.Namespace) -> bool:
    """Whether --support is a folder of labelled volumes, which the first bytes of its files tell."""
    return args.support is not None and is_folder(args.support) and has_volumes(args.support)


def load_support(args: argparse.Namespace, normalise: Normalisation, queries: Iterable[Volume] = (), *,
                 of_volumes: bool | None = None) -> SupportSet | LabelledSupport:
    """The support that --support names: SupportSet where its labels have two values and none is asked for by name or
    value, else LabelledSupport. queries: volumes that `--by similar` is alike to, read where it is asked for.
    of_volumes: as `is_of_volumes` says, where it was asked already. InputError as reading it raises, and for options of
    TAKEN beside pictures."""
    with said_in_options():
        labels = Labels.of(args.label)
        if is_of_volumes(args) if of_volumes is None else of_volumes:
            return _of_volumes(args, labels, normalise, queries)
        return _of_pictures(args, labels)


def _of_pictures(args: argparse.Namespace, labels: Labels) -> SupportSet | LabelledSupport:
    refuse_beside_pictures({name: getattr(args, name) for name in TAKEN})
    found = Entries(*read_pairs(args.support)) if is_folder(args.support) else read_entries(args.support)
    if found.label is not None:
        return _of_label(args.support, found, labels)
    maps, names = found.labels, found.names
    count_of(maps, "labels")
    if labels.chosen is None and (masks := as_masks(list(maps))) is not None:
        return SupportSet.from_arrays(found.images, masks, names, found.shares, looks=found.looks)
    for name, each in zip(names or map(str, range(len(maps))), maps):
        values_of_classes(each, f"support label {name}")
    return LabelledSupport.of_file(found, labels.names)


def _of_label(path: Path, found: Entries, labels: Labels) -> LabelledSupport:
    """Of a file that says which label its masks mark, under its value; InputError where another name is given to it."""
    assert found.label is not None
    value, name = found.label
    given = labels.names.get(value, name)
    if given != name and name != unnamed(value):
        raise InputError(f"--label {value}={given}: {path} marks the label {value} as {shown(name)}; give --label "
                         f"{value}, or leave it out")
    support = LabelledSupport.of_file(found, {value: given})
    support.chosen(labels.chosen)  # refuses others
    return support


def load_one_label(args: argparse.Namespace, normalise: Normalisation, queries: Iterable[Volume] = (), *,
                   read: Sequence[str] = READ) -> tuple[SupportSet, bool]:
    """As `load_support`, of one label, the one that --label says or the only one that there is; and whether entries
    without it are meant, as they are among slices of volumes and where labels are several. Prints where fewer slices
    were found than asked for. read: options that are refused beside pictures, with those of TAKEN."""
    asked, args.label = args.label, None if args.label is None else [args.label]
    of_volumes = is_of_volumes(args)
    if not of_volumes:
        refuse_beside_pictures({name: getattr(args, name) for name in (*read, *TAKEN)})
    support = load_support(args, normalise, queries, of_volumes=of_volumes)
    for note in slice_notes(args, slices_taken(args, support)) if of_volumes else ():
        print(f"note: {note}")
    if isinstance(support, SupportSet):
        return support, bool(plane_of(support.names))
    several = len(support.values) > 1
    if asked is None and several:
        known = ", ".join(f"{value} ({name})" for value, name in support.label_names.items())
        raise InputError(f"labels hold several values, {known}; say which one is meant with --label")
    chosen = Labels.of(args.label).chosen or support.values
    return support.of(chosen[0]), several or bool(plane_of(support.names))


def is_of_file(args: argparse.Namespace, support: SupportSet | LabelledSupport | None) -> bool:
    """Whether the support that was loaded is a file that says which label its masks mark, or one of several labels."""
    return isinstance(support, LabelledSupport) and not is_folder(args.support)


def refuse_beside_pictures(options: Mapping[str, object]) -> None:
    """InputError where an option is given, not None, that says how volumes are read or sliced and none are there."""
    if said := as_options(name for name, value in options.items() if value is not None):
        raise InputError(f"{said}: there are no volumes that this could be said of; leave it out")


def as_masks(labels: Sequence[Array]) -> list[Array] | None:
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


def slices_asked(args: argparse.Namespace) -> dict[str, Any]:
    """What the options of TAKEN say."""
    left_out = {"slices": SLICES, "absent": ABSENT, "by": AREA}
    return left_out | {name: value for name in TAKEN if (value := getattr(args, name)) is not None}


def slices_taken(args: argparse.Namespace, support: SupportSet | LabelledSupport) -> dict[str, Any]:
    """As `slices_asked`, with the numbers of slices that a support of volumes has. Those that lack only some of the
    labels count as without any where they are more than was asked for with one."""
    asked = slices_asked(args)
    holding = min(asked["slices"], sum(bool(label.any()) for label in support.labels))
    return asked | {"slices": holding, "absent": len(support) - holding}


def slice_notes(args: argparse.Namespace, taken: Mapping[str, Any]) -> list[str]:
    """Where fewer slices were taken, as `slices_taken` says, than asked for; none where nothing was taken."""
    said = {"slices": "slices with a label", "absent": "slices without"}
    return [f"--{name} {asked}: the volumes have {taken[name]} {what} that can be taken" for name, what in said.items()
            if name in taken and (asked := getattr(args, name)) is not None and taken[name] < asked]


def _of_volumes(args: argparse.Namespace, labels: Labels, normalise: Normalisation, queries: Iterable[Volume]
                ) -> LabelledSupport:
    """Slices of labelled volumes, with names given to values; all along the axis that queries are sliced along."""
    choice = SliceChoice(args.axis or ACQUIRED, **slices_asked(args), seed=args.seed or 0)
    support = labelled_support_of_volumes(
        volume_pairs(args.support), labels.chosen, choice, query=queries if choice.by == SIMILAR else (),
        normalise=normalise, time=args.time, series=args.series)
    names = support.label_names | {v: name for v, name in labels.names.items() if v in support.label_names}
    return replace(support, label_names=names)
