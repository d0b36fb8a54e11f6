"""The .npz of a support: its entries, and which label they mark where that is known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .answers.absence import Looks
from .errors import InputError, shown
from .imaging.preprocess import MOST_VALUE, check_label
from .named_types import AnyPath, Array, Bools
from .storage.arrays import read_npz
from .storage.atomic import write_file
from .storage.reading import path_of

VALUE, NAME = "label_value", "label_name"  # arrays of one number and of one text
SHARES, LOOKS, PLANE = "shares", "looks", "looks_plane"  # (N,), of each entry; as `Looks.array`; a text


class Label(NamedTuple):
    """A label: its value in label maps, 1 to 65535, and its name."""

    value: int
    name: str


class Entries(NamedTuple):
    """What an .npz holds, as `SupportSet.from_npz` says. shares, looks: as SupportSet's. label: what masks mark. Each
    is None where the file does not say."""

    images: Array | Sequence[Array]
    labels: Array | Sequence[Array]
    names: list[str] | None
    shares: Array | None = None
    label: Label | None = None
    looks: Looks | None = None

    def maps(self) -> Array | Sequence[Array]:
        """The labels; as maps of its value where they are masks of a label that is known. InputError where such a file
        holds no masks."""
        if self.label is None:
            return self.labels
        names = self.names or [str(i) for i in range(len(self.labels))]
        return [check_label(label, np.shape(label), f"support label {name}") * np.uint16(self.label.value)
                for name, label in zip(names, self.labels)]


def unnamed(value: int) -> str:
    """The name of a label that has none but its value."""
    return f"label {value}"


def write_entries(path: AnyPath, images: Sequence[Array], labels: Sequence[Bools], names: Sequence[str],
                  shares: Sequence[float] | None, label: Label | None, looks: Looks | None) -> None:
    """Write an .npz, whole or not at all; `read_entries` reads it back."""
    if len({image.shape for image in images}) == len({image.dtype for image in images}) == 1:
        arrays: dict[str, Array] = {"images": np.stack(images), "labels": np.stack(labels)}
    else:
        arrays = {f"image_{i}": image for i, image in enumerate(images)}
        arrays.update({f"label_{i}": each for i, each in enumerate(labels)})
    if shares is not None:
        arrays[SHARES] = np.array(shares)
    if looks is not None:
        arrays |= {LOOKS: looks.array, PLANE: np.array(looks.plane)}
    if label is not None:
        arrays |= {VALUE: np.array(label.value, np.uint16), NAME: np.array(label.name)}
    with write_file(path) as file:
        np.savez_compressed(file, names=np.array(names), **arrays)  # type: ignore[arg-type]  # allow_pickle's type


def read_entries(path: AnyPath) -> Entries:
    """The entries of an .npz; InputError where an array is missing or is of another kind."""
    path = path_of(path)
    data = read_npz(path)
    names, shares, label = _texts(data, "names", path), data.get(SHARES), _label(data, path)
    looks = Looks.of_array(data[LOOKS], str(data.get(PLANE, "")), f"{path}: {LOOKS}") if LOOKS in data else None
    if "images" in data and "labels" in data:
        return Entries(data["images"], data["labels"], names, shares, label, looks)
    count = sum(key.startswith("image_") for key in data)
    try:
        images = [data[f"image_{i}"] for i in range(count)]
        labels = [data[f"label_{i}"] for i in range(count)]
    except KeyError as error:
        raise InputError(f"{path} lacks the array {error.args[0]}") from None
    if not images:
        raise InputError(f"{path} holds {', '.join(data) or 'nothing'}; expected the arrays images and labels")
    return Entries(images, labels, names, shares, label, looks)


def _texts(data: Mapping[str, Array], key: str, path: Path) -> list[str] | None:
    """The array of texts under a key of an archive, None where there is none; InputError where it is none."""
    found = data.get(key)
    if found is not None and (found.ndim != 1 or found.dtype.kind != "U"):
        raise InputError(f"{path}: {key} are {found.dtype} of shape {found.shape}; expected texts, one for each entry")
    return None if found is None else [str(text) for text in found]


def _label(data: Mapping[str, Array], path: Path) -> Label | None:
    """The label that a file says its masks mark; InputError where that is no value, or a name without one."""
    value, name = data.get(VALUE), data.get(NAME)
    if name is not None and (name.ndim or name.dtype.kind != "U" or not str(name).strip()):
        raise InputError(f"{path}: {NAME} is {name.dtype} of shape {name.shape}; expected one text that is not empty")
    if value is None:
        if name is not None:
            raise InputError(f"{path} holds {NAME} without {VALUE}; add the label's value, or leave the name out")
        return None
    if value.ndim or value.dtype.kind not in "iu" or not 1 <= value <= MOST_VALUE:
        said = shown(value.item()) if not value.ndim else f"of shape {value.shape}"
        raise InputError(f"{path}: {VALUE} is {value.dtype} {said}; expected an integer from 1 to {MOST_VALUE}")
    return Label(int(value), unnamed(int(value)) if name is None else str(name))
