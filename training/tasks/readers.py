"""Reads folders of images with masks, and NIfTI volumes by the MegaMedical protocol (paper section 4), as tasks."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np

from universeg_rt.errors import InputError, shown
from universeg_rt.imaging.files import FORMATS, opened
from universeg_rt.install import needed
from universeg_rt.storage.reading import is_folder, reading
from universeg_rt.training.tasks.tasks import Task, subjects_of

SIZE = 128
MAX_VOXELS = 1 << 29   # of a volume; a CT of a whole body has half of that
MAX_PACKED = 1032      # bytes that deflate makes of one at most


def load_folder(
    images: str | os.PathLike, labels: str | os.PathLike, name: str, value: int | None = None,
    subject_pattern: str | None = None, dataset: str = "", size: int = SIZE,
) -> Task:
    """A task from two folders whose files are paired by their name without suffix; (size,size) uint8 grey.

    Colour is read as luminance, images of more than 8 bits are scaled over their own range; masks with a palette by
    index.
    A mask's label is where it equals `value` (None: where it is not 0). Aspect is kept, zeros fill the square. Entries
    whose label is empty at this size are left out. Raises InputError for folders that are missing or do not pair, and
    for files that are no image or whose image and mask differ in size.
    """
    found = [_image_files(Path(folder), name) for folder in (images, labels)]
    alone = sorted(set(found[0]) ^ set(found[1]))
    if alone:
        raise InputError(
            f"task {name}: {', '.join(alone[:5])} ({len(alone)} in all) are in one of the two folders only; "
            "an image and its mask have the same name")
    grey, masks, stems = [], [], []
    for stem in sorted(found[0]):
        with opened(found[0][stem], []) as image, opened(found[1][stem], []) as mask:
            pixels, marks, bands = _grey(image), np.array(mask), mask.getbands()
        if bands[-1] == "A":
            if marks[..., -1].min() < 255:
                raise InputError(
                    f"task {name}: the mask {stem} has transparent pixels, whose value is not clear; save it without")
            marks = marks[..., :-1]
        if marks.ndim == 3:
            marks = marks.max(axis=2)
        if pixels.shape != marks.shape:
            raise InputError(f"task {name}: image {stem} is {pixels.shape}, its mask {marks.shape}; they must be equal")
        label = marks != 0 if value is None else marks == value
        pixels, label = squared(pixels, label, size)
        if label.any():
            grey.append(pixels.round().clip(0, 255).astype(np.uint8))
            masks.append(label)
            stems.append(stem)
    if not stems:
        raise InputError(f"task {name}: every mask is empty" + ("" if value is None else f" of the value {value}"))
    return Task(name, np.stack(grey), np.stack(masks), subjects_of(stems, subject_pattern), dataset)


def load_nifti(
    root: str | os.PathLike, modalities: dict[str, str], segmentation: str, labels: dict[str, int], dataset: str,
    size: int = SIZE,
) -> list[Task]:
    """Tasks from volumes: one for each modality, label and axis, of the mid-slice along that axis.

    `modalities` and `segmentation` are paths under `root` in which `{subject}` stands for the subject, as in
    `{subject}/t1.nii.gz`; `labels` gives each label's value. Volumes are turned to RAS, slices resized with their
    spacing to (size,size) and scaled to 0..255 over their own range. A subject whose label misses the slice is left out
    of that task, and a task without any subject is not made. Raises InputError where no volume fits, one is damaged or
    not three-dimensional, or image and segmentation differ in shape.
    """
    root = Path(root)
    subjects = _subjects(root, segmentation)
    if not subjects:
        raise InputError(f"data set {dataset}: no file under {root} is like {segmentation}")
    made: dict[str, list[tuple[np.ndarray, np.ndarray, str]]] = {}
    for subject in subjects:
        marks, spacing = _volume(root / segmentation.replace("{subject}", subject), dataset)
        for modality, pattern in modalities.items():
            volume, _ = _volume(root / pattern.replace("{subject}", subject), dataset)
            if volume.shape != marks.shape:
                raise InputError(f"data set {dataset}: {modality} of {subject} is {volume.shape}, its segmentation "
                                 f"{marks.shape}; they must be equal")
            for axis in range(3):
                middle = volume.shape[axis] // 2
                plane = np.take(volume, middle, axis)
                steps = tuple(np.delete(spacing, axis))
                for label, value in labels.items():
                    pixels, mask = squared(plane, np.take(marks, middle, axis) == value, size, steps)
                    if mask.any():
                        made.setdefault(f"{dataset}_{modality}_{label}_axis{axis}", []).append(
                            (_to_uint8(pixels), mask, subject))
    if not made:
        raise InputError(f"data set {dataset}: no mid-slice holds a label of {labels}; look at the label values")
    return [Task(name, np.stack([e[0] for e in entries]), np.stack([e[1] for e in entries]),
                 np.array([e[2] for e in entries]), dataset) for name, entries in made.items()]


def squared(
    image: np.ndarray, label: np.ndarray, size: int, spacing: tuple[float, float] = (1.0, 1.0)
) -> tuple[np.ndarray, np.ndarray]:
    """Image (H,W) and boolean label (H,W) shrunk or grown to fit (size,size), the rest the image's lowest value.

    Returns float32 and uint8. The image is resized bilinearly with antialiasing, the label so that its area stays.
    """
    import torch
    from torch.nn import functional as F

    from universeg_rt.training.tasks.harden import harden

    extent = np.array(image.shape) * np.array(spacing)
    height, width = (max(1, round(size * e / extent.max())) for e in extent)
    pixels, soft = (
        F.interpolate(torch.from_numpy(np.ascontiguousarray(x, np.float32))[None, None], size=(int(height), int(width)),
                      mode="bilinear", antialias=True, align_corners=False) for x in (image, label))
    mask = harden(soft) * (soft > 0)
    top, left = (size - int(height)) // 2, (size - int(width)) // 2
    out, out_mask = np.full((size, size), float(image.min()), np.float32), np.zeros((size, size), np.uint8)
    out[top : top + int(height), left : left + int(width)] = pixels[0, 0].numpy()
    out_mask[top : top + int(height), left : left + int(width)] = mask[0, 0].numpy()
    return out, out_mask


def _grey(picture) -> np.ndarray:
    """(H,W) float32 in 0..255 of an open picture."""
    from PIL import Image

    if Image.getmodetype(picture.mode) == "L" and picture.mode not in ("1", "L", "P"):  # 16 or 32 bits
        return _to_uint8(np.array(picture, np.float32)).astype(np.float32)
    return np.array(picture.convert("L"), np.float32)


def _to_uint8(image: np.ndarray) -> np.ndarray:
    low, high = float(image.min()), float(image.max())
    return ((image - low) / max(high - low, 1e-12) * 255.0).round().astype(np.uint8)


def _image_files(folder: Path, name: str) -> dict[str, Path]:
    if not is_folder(folder):
        raise InputError(f"task {name}: no folder at {folder}")
    try:
        files = {p.stem: p for p in sorted(folder.iterdir()) if p.suffix.lower() in FORMATS}
    except OSError as error:
        raise InputError(f"task {name}: {folder} cannot be listed ({error.strerror})") from None
    if not files:
        raise InputError(f"task {name}: {folder} holds no image ({', '.join(FORMATS)})")
    return files


def _subjects(root: Path, pattern: str) -> list[str]:
    if pattern.count("{subject}") < 1:
        raise InputError(f"path {shown(pattern)} does not say where the subject stands; write {{subject}} in it")
    parts = Path(pattern).parts
    if Path(pattern).is_absolute() or ".." in parts or any("**" in part for part in parts) or "\0" in pattern:
        raise InputError(
            f"path {shown(pattern)} is not one below the data folder; write it relative to that, without .. and **")
    expression = re.escape(pattern).replace(re.escape("{subject}"), "(?P<subject>[^/]+)", 1)
    expression = expression.replace(re.escape("{subject}"), "(?P=subject)")
    try:
        files = list(root.glob(pattern.replace("{subject}", "*")))
    except (OSError, ValueError) as error:
        raise InputError(f"path {shown(pattern)} cannot be looked for under {root} ({error})") from None
    found = (re.fullmatch(expression, p.relative_to(root).as_posix()) for p in files)
    return sorted(m["subject"] for m in found if m)


def _volume(path: Path, dataset: str) -> tuple[np.ndarray, np.ndarray]:
    """Values (X,Y,Z) float32 in RAS order and spacing (3,) in millimetres."""
    nibabel = needed("nibabel", "train", f"data set {dataset}, of NIfTI volumes,")
    with reading(f"a whole NIfTI volume of data set {dataset}", path, cure="fetch or write it again"):
        image = nibabel.load(path)
        room = MAX_PACKED * path.stat().st_size
        if not isinstance(image, nibabel.Nifti1Pair) or image.ndim != 3 or 0 in image.shape:
            raise InputError(
                f"data set {dataset}: {path} is {type(image).__name__} of shape {image.shape}; expected NIfTI with "
                "three axes"
            )
        if not np.prod(image.shape, dtype=float) <= min(MAX_VOXELS, room):
            raise InputError(
                f"data set {dataset}: {path} says its shape is {image.shape}; accepted: at most {MAX_VOXELS} voxels, "
                "and as many as the file may hold")
        image = nibabel.as_closest_canonical(image)
        values, spacing = np.asarray(image.dataobj, np.float32), np.array(image.header.get_zooms()[:3], float)
        if not np.isfinite(values).all():
            raise InputError(f"data set {dataset}: {path} holds values that are not finite")
        if not (np.isfinite(spacing).all() and spacing.min() > 0 and spacing.max() <= 1000 * spacing.min()):
            raise InputError(
                f"data set {dataset}: {path} says its voxels are {spacing} mm; expected lengths above 0 that fit "
                "together"
            )
    return values, spacing
