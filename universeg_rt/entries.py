"""Entries of a support: checked and hashed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from .answers.absence import Looks
from .errors import InputError
from .imaging.preprocess import check_image, count_of
from .named_types import Array, Bools

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


def add_to_hash(digest: Hash, image: Array) -> None:
    """An image by shape, type and value, whatever its byte order."""
    little = image.astype(image.dtype.newbyteorder("<"), copy=False)
    digest.update(f"{little.dtype.str}{image.shape}".encode())
    digest.update(np.ascontiguousarray(little).tobytes())


def add_volumes_to_hash(digest: Hash, shares: tuple[float, ...] | None, looks: Iterable[Looks | None]) -> None:
    """What a support knows of the volumes that it is of; nothing where it knows none."""
    if shares is not None:
        digest.update(f"shares{shares}".encode())
    for each in looks:
        if each is not None:
            add_to_hash(digest, each.array)
            digest.update(each.plane.encode())
