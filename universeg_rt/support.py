"""SupportSet: the labelled examples that define a task, checked once, with a hash, saved and loaded as one file."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from .arrays import read_npz
from .atomic import write_file
from .errors import InputError
from .images import image_files, read_image, read_label
from .preprocess import Placement, check_image, check_label


@dataclass(frozen=True, eq=False)
class SupportSet:
    """N images (H,W), as given, and their labels (H,W) bool; sizes may differ from entry to entry.

    Make one with `from_arrays`, `from_folder` or `from_npz`; each raises InputError that names the entry and the cure where
    the input contract is not met: grey images without NaN that are not constant, binary labels of the image's size, at
    least one label that is not empty.
    """

    images: tuple[np.ndarray, ...]
    labels: tuple[np.ndarray, ...]
    names: tuple[str, ...]

    @classmethod
    def from_arrays(
        cls, images: np.ndarray | Sequence[np.ndarray], labels: np.ndarray | Sequence[np.ndarray],
        names: Sequence[str] | None = None,
    ) -> "SupportSet":
        """images and labels: arrays (N,H,W), or sequences of (H,W). labels: bool, {0, 1} or {0, 255}."""
        if isinstance(images, np.ndarray) and images.ndim == 2 or isinstance(labels, np.ndarray) and labels.ndim == 2:
            raise InputError("images and labels are single arrays (H,W); give (N,H,W), for one entry image[None]")
        if len(images) != len(labels):
            raise InputError(f"{len(images)} images but {len(labels)} labels; each image needs its label")
        if len(images) == 0:
            raise InputError("the support set has no entries; give at least one image with its label")
        names = tuple(names) if names is not None else tuple(str(i) for i in range(len(images)))
        if len(names) != len(images):
            raise InputError(f"{len(images)} images but {len(names)} names")
        checked_images, checked_labels = [], []
        for name, image, label in zip(names, images, labels):
            image = check_image(image, f"support image {name}").copy()
            label = check_label(label, image.shape, f"support label {name}")
            image.flags.writeable = label.flags.writeable = False
            checked_images.append(image)
            checked_labels.append(label)
        if not any(label.any() for label in checked_labels):
            raise InputError("the labels are empty in every entry; at least one must mark something")
        return cls(tuple(checked_images), tuple(checked_labels), names)

    @classmethod
    def from_folder(cls, path: str | os.PathLike) -> "SupportSet":
        """A folder with `images/` and `labels/`, paired by file name (the ending may differ)."""
        path = Path(path)
        for part in ("images", "labels"):
            if not (path / part).is_dir():
                raise InputError(f"{path} has no folder {part}/; a support folder holds images/ and labels/")
        images = {p.stem: p for p in image_files(path / "images")}
        labels = {p.stem: p for p in image_files(path / "labels")}
        lonely = sorted(set(images) ^ set(labels))
        if lonely:
            kind = "label" if lonely[0] in images else "image"
            raise InputError(f"{path}: {len(lonely)} files have no partner, first {lonely[0]} (no {kind} of that name)")
        stems = sorted(images)
        return cls.from_arrays([read_image(images[s]) for s in stems], [read_label(labels[s]) for s in stems], stems)

    @classmethod
    def from_npz(cls, path: str | os.PathLike) -> "SupportSet":
        """An .npz with `images` and `labels` (N,H,W), or one that `save` wrote; never unpickles."""
        path = Path(path)
        data = read_npz(path)
        names = [str(n) for n in data["names"]] if "names" in data else None
        if "images" in data and "labels" in data:
            return cls.from_arrays(data["images"], data["labels"], names)
        count = sum(key.startswith("image_") for key in data)
        try:
            images = [data[f"image_{i}"] for i in range(count)]
            labels = [data[f"label_{i}"] for i in range(count)]
        except KeyError as error:
            raise InputError(f"{path} lacks the array {error.args[0]}") from None
        if not images:
            raise InputError(f"{path} holds {', '.join(data) or 'nothing'}; expected the arrays images and labels")
        return cls.from_arrays(images, labels, names)

    @classmethod
    def load(cls, path: str | os.PathLike) -> "SupportSet":
        """`from_folder` for a folder, `from_npz` for a file."""
        return cls.from_folder(path) if Path(path).is_dir() else cls.from_npz(path)

    def save(self, path: str | os.PathLike) -> None:
        """Write everything to one .npz, whole or not at all; `from_npz` reads it back with the same sha256."""
        shapes = {image.shape for image in self.images}
        types = {image.dtype for image in self.images}
        if len(shapes) == len(types) == 1:
            arrays = {"images": np.stack(self.images), "labels": np.stack(self.labels)}
        else:
            arrays = {f"image_{i}": image for i, image in enumerate(self.images)}
            arrays.update({f"label_{i}": label for i, label in enumerate(self.labels)})
        with write_file(path) as file:
            np.savez_compressed(file, names=np.array(self.names), **arrays)

    @cached_property
    def sha256(self) -> str:
        """Of all images and labels in order: shapes, types and values (names and files do not count)."""
        digest = hashlib.sha256()
        for image, label in zip(self.images, self.labels):
            little = image.astype(image.dtype.newbyteorder("<"), copy=False)
            digest.update(f"{little.dtype.str}{image.shape}".encode())
            digest.update(np.ascontiguousarray(little).tobytes())
            digest.update(np.packbits(label).tobytes())
        return digest.hexdigest()

    def __len__(self) -> int:
        return len(self.images)

    def subset(self, indices: Sequence[int]) -> "SupportSet":
        """The entries at these indices, in this order; InputError where one is out of range or all labels are empty."""
        for i in indices:
            if not -len(self) <= i < len(self):
                raise InputError(f"index {i} is out of range, the support set has {len(self)} entries")
        return SupportSet.from_arrays(
            [self.images[i] for i in indices], [self.labels[i] for i in indices], [self.names[i] for i in indices])

    def on_grid(self, grid: tuple[int, int], aspect: str) -> np.ndarray:
        """(N,2,H,W) float32 as the network reads it: normalised images and labels on the grid."""
        out = np.empty((len(self), 2, *grid), np.float32)
        for i in range(len(self)):
            out[i] = self.entry_on_grid(i, grid, aspect)
        return out

    def entry_on_grid(self, index: int, grid: tuple[int, int], aspect: str) -> np.ndarray:
        """(2,H,W) float32 of one entry, as `on_grid`."""
        image, label = self.images[index], self.labels[index]
        placement = Placement.of(image.shape, grid, aspect)
        return np.stack([placement.image_to_grid(image, grid), placement.label_to_grid(label, grid)]).astype(np.float32, copy=False)
