"""Entries of a support: checked, read from an .npz, and hashed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from .errors import InputError
from .imaging.preprocess import check_image, count_of
from .named_types import AnyPath, Array, Bools
from .storage.arrays import read_npz
from .storage.reading import path_of

if TYPE_CHECKING:
    from hashlib import _Hash as Hash

Checked = TypeVar("Checked", Bools, Array)
Shares = Sequence[float] | Array  # (N,), of each entry


def checked_entries(
    images: Array | Sequence[Array], labels: Array | Sequence[Array], names: Sequence[str] | None,
    check: Callable[[Array, tuple[int, int], str], Checked],
) -> tuple[tuple[Array, ...], tuple[Checked, ...], tuple[str, ...]]:
    """Copies of images, of labels as `check` returns them, none writeable, and names; InputError as
    `SupportSet.from_arrays`."""
    if isinstance(images, np.ndarray) and images.ndim == 2 or isinstance(labels, np.ndarray) and labels.ndim == 2:
        raise InputError("images and labels are single arrays (H,W); give (N,H,W), for one entry image[None]")
    count = count_of(images, "images")
    if count != count_of(labels, "labels"):
        raise InputError(f"{count} images but {len(labels)} labels; each image needs its label")
    if count == 0:
        raise InputError("the support set has no entries; give at least one image with its label")
    if names is not None and count_of(names, "names") != count:
        raise InputError(f"{count} images but {len(names)} names")
    names = tuple(str(name) for name in (range(count) if names is None else names))
    checked_images, checked_labels = [], []
    for name, image, label in zip(names, images, labels):
        image = check_image(image, f"support image {name}").copy()
        marked = check(label, image.shape, f"support label {name}")
        image.flags.writeable = marked.flags.writeable = False
        checked_images.append(image)
        checked_labels.append(marked)
    if not any(label.any() for label in checked_labels):
        raise InputError("the labels are empty in every entry; at least one must mark something")
    return tuple(checked_images), tuple(checked_labels), names


def check_shares(shares: Shares | None, names: Sequence[str]) -> tuple[float, ...] | None:
    """Of each entry its share of [0, 1]; InputError where one is out of range, or their number is another."""
    if shares is None:
        return None
    if np.shape(shares) != (len(names),):
        raise InputError(f"shares have shape {np.shape(shares)}; give {len(names)} numbers, one for each entry")
    for name, share in zip(names, shares):
        number = isinstance(share, (int, float, np.integer, np.floating)) and not isinstance(share, bool)
        if not number or not 0 < share <= 1:
            raise InputError(f"the share of support image {name} is {share!r}; give a number above 0, up to 1")
    return tuple(float(share) for share in shares)


Entries = tuple[Array | list[Array], Array | list[Array], list[str] | None, Array | None]


def read_entries(path: AnyPath) -> Entries:
    """Images, labels, names and shares of an .npz, as `SupportSet.from_npz` says; InputError where images or labels
    are missing."""
    path = path_of(path)
    data = read_npz(path)
    names = texts_of(data, "names", path)
    if "images" in data and "labels" in data:
        return data["images"], data["labels"], names, data.get("shares")
    count = sum(key.startswith("image_") for key in data)
    try:
        images = [data[f"image_{i}"] for i in range(count)]
        labels = [data[f"label_{i}"] for i in range(count)]
    except KeyError as error:
        raise InputError(f"{path} lacks the array {error.args[0]}") from None
    if not images:
        raise InputError(f"{path} holds {', '.join(data) or 'nothing'}; expected the arrays images and labels")
    return images, labels, names, data.get("shares")


def texts_of(data: Mapping[str, Array], key: str, path: Path) -> list[str] | None:
    """The array of texts under a key of an archive, None where there is none; InputError where it is none."""
    found = data.get(key)
    if found is not None and (found.ndim != 1 or found.dtype.kind != "U"):
        raise InputError(f"{path}: {key} are {found.dtype} of shape {found.shape}; expected texts, one for each entry")
    return None if found is None else [str(text) for text in found]


def add_to_hash(digest: Hash, image: Array) -> None:
    """An image by shape, type and value, whatever its byte order."""
    little = image.astype(image.dtype.newbyteorder("<"), copy=False)
    digest.update(f"{little.dtype.str}{image.shape}".encode())
    digest.update(np.ascontiguousarray(little).tobytes())


def add_shares_to_hash(digest: Hash, shares: tuple[float, ...] | None) -> None:
    """Nothing where there are none."""
    if shares is not None:
        digest.update(f"shares{shares}".encode())
