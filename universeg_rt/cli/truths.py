"""What --truth holds, and which of its values are those of the labels that were segmented."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import InputError, TruthError, UniverSegError
from ..imaging.files import SUFFIXES, add_named, read_label
from ..imaging.pairs import LABELS, part_of
from ..imaging.preprocess import check_label
from ..named_types import Array
from ..storage.reading import is_folder
from ..volumes.reading import ACCEPTED, is_volume, label_values, pictures_beside, stem_of, volumes_below
from ..volumes.segmentation import segment_names
from .results import HOLD
from .supports import as_masks

MASK: frozenset[float | str] = frozenset({1, 255})  # the values that stand for what a mask marks


def find_truths(folder: Path) -> dict[str, Path]:
    """All true masks below a folder, or below its `labels/` beside `images/`, by their path there without the ending;
    InputError where there are none."""
    if not is_folder(folder):
        raise InputError(f"{folder} is not a folder")
    folder = part_of(folder, LABELS)
    found = volumes_below(folder)
    for file in pictures_beside(folder, found):
        add_named(found, stem_of(file.relative_to(folder)), file)
    if not found:
        raise InputError(f"{folder} holds no masks; accepted: {', '.join(SUFFIXES)}, {ACCEPTED}")
    return found


@dataclass(frozen=True)
class Truths:
    """How truths are read. asked: whether the label is known by its value, of --label or of the support's file; one
    that is not is all that the support marks. several: whether the truths of the run, together, mark more than one
    thing; None where one truth alone decides."""

    asked: bool
    several: bool | None = None

    @classmethod
    def of(cls, truths: Iterable[Path], labels: int, asked: bool, of_file: bool) -> Truths:
        """Of the truths of a run. labels: how many are segmented; truths are looked into where it is one. asked:
        whether --label was given. of_file: whether the support is a file that says which label it marks: that is as
        good as asked, but for truths that are all masks."""
        if asked or labels != 1:
            return cls(asked)
        there: set[float | str] = set()
        marked: set[float | str] = set()
        for path in truths:
            values = _values(path)
            there |= values
            marked = there - {0}
            if len(marked) > 1 and not marked <= MASK and (len(there) > 2 or of_file):
                return cls(of_file, True)
        return cls(of_file and not marked <= MASK, False)

    @property
    def hold(self) -> dict[str, str]:
        """For a row of the report: what the truths of the run together mark, where that decides."""
        return {} if self.several is None else {HOLD: "several labels" if self.several else "one label"}

    def masks(self, label: Array, values: Mapping[str, int], shape: tuple[int, int], name: str) -> dict[str, Array]:
        """The true mask (H,W) bool of each label by its name, of a picture; of a support that is a mask any two values
        are one. Raises InputError where the sizes differ, TruthError as `values_of`."""
        alone = len(values) == 1 and not self.asked and not self.several
        if alone and label.shape == shape and (found := as_masks([label])) is not None:
            return {next(iter(values)): check_label(found[0], shape, name)}
        if label.shape != shape:
            check_label(label, shape, name)  # says so
        there = {value: "" for value in np.unique(label).tolist() if value != 0}
        return {key: np.isin(label, own) for key, own in self.values_of(there, values).items()}

    def values_of(self, there: Mapping[int, str], values: Mapping[str, int]) -> dict[str, list[int]]:
        """Of each label by its name the values that it has in a truth, none where the truth lacks it.

        there: of the truth's values the names, "" where it has none. values: of the labels by name. A single label
        that was not asked for is what a truth of two values marks, unless others of the run hold more. Otherwise a
        label has its name, else its value; 1 and 255 are both the value of a mask. Raises TruthError where the support
        is a mask without a name, or of 255, and the truth, or others of the run, hold several labels.
        """
        if len(values) == 1:
            (name, value), = values.items()
            if len(there) == 1 and ({value, *there} <= MASK if self.asked else not self.several):
                return {name: list(there)}
            unknown = not self.asked and (not name or value == 255 and value not in there)
            if unknown and (len(there) > 1 or there and self.several):
                held = ", ".join(map(str, sorted(there)))
                raise TruthError(
                    f"it holds the label{'s' * (len(there) > 1)} {held}"
                    + (", others of this run further ones" if len(there) == 1 else "")
                    + ", and the support is a mask that does not say which of them it marks; give truths of that label "
                    "alone")
        named = {name: [each for each, own in there.items() if own and own == name] for name in values}
        taken = {each for own in named.values() for each in own}
        return {name: named[name] or [each for each in there if each == value and each not in taken]
                for name, value in values.items()}


def _values(path: Path) -> set[float | str]:
    """Of a truth all values, or three of them; of a Segmentation the names of its segments. Empty where it cannot be
    read, which the row of its image says."""
    try:
        if not is_volume(path):
            return set(np.unique(read_label(path)).tolist())
        values = label_values(path)
        return {*segment_names(path)} if values is None else {*values}
    except UniverSegError:
        return set()
