"""SupportSet: the labelled examples that define a task, checked once, with a hash, saved and loaded as one file."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from .answers.absence import Looks
from .entries import Shares, add_to_hash, add_volumes_to_hash, check_shares, checked_entries
from .errors import InputError
from .imaging.normalisation import MINMAX, Normalisation, Window, normalised
from .imaging.pairs import read_pairs
from .imaging.preprocess import Placement, check_label, count_of
from .named_types import AnyPath, Array, Bools, Floats, Integers
from .notes import fingerprint, label_notes, range_note, window_note
from .storage.reading import is_folder, path_of
from .support_file import Label, read_entries, write_entries


@dataclass(frozen=True, eq=False)
class SupportSet:
    """N images (H,W), as given, and their labels (H,W) bool; sizes may differ from entry to entry.

    Make one with `from_arrays`, `from_folder` or `from_npz`; each raises InputError that names the entry and the cure
    where the input contract is not met: grey images without NaN that are not constant, binary labels of the image's
    size, at least one label that is not empty.

    shares: of [0, 1] that each image takes, as `imaging.normalisation.share_of` gives it for a slice of a volume: the
    same rule then holds for queries. None where no volume is known, or the target lies in dim slices: then every image
    and every query is stretched. label: which value and name it is that the labels mark, where that is known. looks:
    how slices with and without the target look, where whole volumes were seen (`support_of_volumes`), `UNTOLD` where
    they do not tell it; None: entries do.
    """

    images: tuple[Array, ...]
    labels: tuple[Bools, ...]
    names: tuple[str, ...]
    shares: tuple[float, ...] | None = None
    label: Label | None = None
    looks: Looks | None = None

    @classmethod
    def from_arrays(
        cls, images: Array | Sequence[Array], labels: Array | Sequence[Array],
        names: Sequence[str] | None = None, shares: Shares | None = None, *, label: Label | None = None,
        looks: Looks | None = None,
    ) -> SupportSet:
        """images and labels: arrays (N,H,W), or sequences of (H,W); colour images (H,W,3) or (H,W,4) of uint8 become
        their luminance. labels: bool, {0, 1} or {0, 255}. shares: of each image one above 0, up to 1."""
        checked = checked_entries(images, labels, names, check_label)
        return cls(*checked, check_shares(shares, checked[2]), label, looks)

    @classmethod
    def from_folder(cls, path: AnyPath) -> SupportSet:
        """A folder with `images/` and `labels/`, subfolders included (`p1/001`),
        paired by file name without its ending."""
        return cls.from_arrays(*read_pairs(path))

    @classmethod
    def from_npz(cls, path: AnyPath) -> SupportSet:
        """An .npz with `images` and `labels` (N,H,W), or one that `save` wrote; never unpickles."""
        found = read_entries(path)
        return cls.from_arrays(found.images, found.labels, found.names, found.shares, label=found.label,
                               looks=found.looks)

    @classmethod
    def load(cls, path: AnyPath) -> SupportSet:
        """`from_folder` for a folder, `from_npz` for a file."""
        path = path_of(path)
        return cls.from_folder(path) if is_folder(path) else cls.from_npz(path)

    def save(self, path: AnyPath) -> None:
        """Write everything to one .npz, whole or not at all; `from_npz` reads it back with the same sha256."""
        write_entries(path, self.images, self.labels, self.names, self.shares, self.label, self.looks)

    @cached_property
    def sha256(self) -> str:
        """sha256 of all images, labels and shares in order, by shape, type and value, and of looks; names and files do
        not count."""
        digest = hashlib.sha256()
        for image, label in zip(self.images, self.labels):
            add_to_hash(digest, image)
            digest.update(np.packbits(label).tobytes())
        add_volumes_to_hash(digest, self.shares, [self.looks])
        return digest.hexdigest()

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        shapes = sorted({image.shape for image in self.images})
        sizes = "x".join(map(str, shapes[0])) if len(shapes) == 1 else f"{len(shapes)} sizes"
        types = "/".join(sorted({str(image.dtype) for image in self.images}))
        marked = np.mean([label.mean() for label in self.labels])
        entries = f"{len(self)} entr{'y' if len(self) == 1 else 'ies'}"
        return f"SupportSet({entries}, {sizes} {types}, labels mark {marked:.1%} on average)"

    def __reduce__(self) -> tuple[object, ...]:
        return _restored, (self.images, self.labels, self.names, self.shares, self.label, self.looks)

    def subset(self, indices: Sequence[int]) -> SupportSet:
        """The entries at these indices, in this order; InputError where one is out of range or all labels are empty."""
        count_of(indices, "indices")
        for i in indices:
            if isinstance(i, (bool, np.bool_)) or not isinstance(i, (int, np.integer)):
                raise InputError(f"index {i!r} is no integer; for a mask give numpy.flatnonzero(mask)")
            if not -len(self) <= i < len(self):
                raise InputError(f"index {i} is out of range, the support set has {len(self)} entries")
        return SupportSet.from_arrays(
            [self.images[i] for i in indices], [self.labels[i] for i in indices], [self.names[i] for i in indices],
            None if self.shares is None else [self.shares[i] for i in indices], label=self.label, looks=self.looks)

    def on_grid(self, grid: tuple[int, int], aspect: str, normalise: Normalisation = MINMAX) -> Floats:
        """(N,2,H,W) float32 as the network reads it: normalised images and labels on the grid."""
        out = np.empty((len(self), 2, *grid), np.float32)
        for i, label in enumerate(self.labels):
            placed = self.placed(i, grid, aspect, normalise)
            out[i] = placed.on_grid, placed.placement.label_to_grid(label, grid)
        return out

    def placed(self, index: int, grid: tuple[int, int], aspect: str, how: Normalisation) -> PlacedImage:
        """The image of an entry on the grid, with its share."""
        share = 1.0 if self.shares is None else self.shares[index]
        return PlacedImage.of(self.images[index], f"support image {self.names[index]}", grid, aspect, how, share)


def _restored(
    images: tuple[Array, ...], labels: tuple[Bools, ...], names: tuple[str, ...], shares: tuple[float, ...] | None,
    label: Label | None, looks: Looks | None,
) -> SupportSet:
    """A support from a pickle; arrays come out of it writeable."""
    for array in (*images, *labels):
        array.flags.writeable = False
    return SupportSet(images, labels, names, shares, label, looks)


@dataclass(frozen=True, eq=False)
class PlacedImage:
    """What does not depend on the label: an image on the grid (h,w) float32, where it lies there, and the note on its
    range of intensities."""

    on_grid: Floats
    placement: Placement
    range: str | None

    @classmethod
    def of(cls, image: Array, name: str, grid: tuple[int, int], aspect: str, how: Normalisation,
           share: float = 1.0) -> PlacedImage:
        """share: as `normalised` takes it. BlankError where the image is constant there."""
        wide = normalised(image, how, name, share)
        placement = Placement.of(image.shape, grid, aspect)
        on_grid = placement.normalised_to_grid(wide.values, grid, name, wide.own)
        note = range_note(wide.values, name) if wide.own else None
        return cls(on_grid, placement, window_note(on_grid, name) if isinstance(how, Window) else note)


@dataclass(frozen=True, eq=False)
class Drawn:
    """The entries of a support that an ensemble draws, on the grid, and what there is to say of them.

    on_grid: (N,2,H,W) float32. labels, names: of these entries, as given. ranges: their notes on the range of
    intensities.
    """

    on_grid: Floats
    labels: tuple[Bools, ...]
    names: tuple[str, ...]
    ranges: tuple[str, ...]

    @classmethod
    def of(cls, support: SupportSet, indices: Integers, grid: tuple[int, int], aspect: str,
           normalise: Normalisation = MINMAX, placed: dict[int, PlacedImage] | None = None) -> Drawn:
        """placed: images that were placed before, by their index; those that are placed now are added.

        Raises InputError where no label that marks something is left on the grid, or an image is constant there.
        """
        on_grid, ranges = np.empty((len(indices), 2, *grid), np.float32), []
        placed = {} if placed is None else placed
        for place, index in enumerate(map(int, indices)):
            if index not in placed:
                placed[index] = support.placed(index, grid, aspect, normalise)
            image = placed[index]
            on_grid[place] = image.on_grid, image.placement.label_to_grid(support.labels[index], grid)
            if image.range and support.labels[index].any():  # without the target it may well be all but black
                ranges.append(image.range)
        labels, names = (tuple(values[i] for i in indices) for values in (support.labels, support.names))
        drawn = cls(on_grid, labels, names, tuple(ranges))
        marked = sum(bool(label.any()) for label in labels)
        if marked and len(drawn._vanished()) == marked:
            raise InputError(
                f"what the support labels mark is too small: on the network's grid of {grid[0]}x{grid[1]} nothing is "
                "left of it in any entry; cut support images and queries to the region around it")
        return drawn

    @property
    def foreground(self) -> float:
        """The share of pixels that the labels mark, on average."""
        return float(np.mean([label.mean() for label in self.labels]))

    def notes(self) -> list[str]:
        """What is allowed but rarely meant."""
        notes = label_notes(self.labels, self.names)
        if vanished := self._vanished():
            notes.append(
                f"what {len(vanished)} of {len(self.names)} support labels mark is lost on the network's grid, first "
                f"{vanished[0]}; cut support images and queries to the region around it")
        if self.ranges:
            notes.append(self.ranges[0] +
                         (f" ({len(self.ranges)} of {len(self.names)} support images)" if len(self.ranges) > 1 else ""))
        return notes

    def fingerprints(self) -> dict[str, str]:
        """The name of each entry by its image's fingerprint."""
        return {fingerprint(entry[0]): name for entry, name in zip(self.on_grid, self.names)}

    def _vanished(self) -> list[str]:
        """Names of the entries whose label marks something, and nothing on the grid."""
        return [
            name for name, label, entry in zip(self.names, self.labels, self.on_grid)
            if label.any() and not entry[1].any()
        ]
