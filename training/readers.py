"""Reads folders of images with masks, and NIfTI volumes by the MegaMedical protocol (paper section 4), as tasks."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np

from universeg_rt.errors import InputError
from universeg_rt.training.tasks import Task, subjects_of

SIZE = 128
IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff"}


def load_folder(
    images: str | os.PathLike, labels: str | os.PathLike, name: str, value: int | None = None,
    subject_pattern: str | None = None, dataset: str = "", size: int = SIZE,
) -> Task:
    """A task from two folders whose files are paired by their name without suffix; (size,size) uint8 grey.

    A mask's label is where it equals `value` (None: where it is not 0). Aspect is kept, zeros fill the square. Entries
    whose label is empty at this size are left out. Raises InputError for folders that are missing or do not pair, and
    for files that are no image or whose image and mask differ in size.
    """
    from PIL import Image, UnidentifiedImageError

    found = [_image_files(Path(folder), name) for folder in (images, labels)]
    alone = sorted(set(found[0]) ^ set(found[1]))
    if alone:
        raise InputError(f"task {name}: {', '.join(alone[:5])} ({len(alone)} in all) are in one of the two folders only; "
                         "an image and its mask have the same name")
    grey, masks, stems = [], [], []
    for stem in sorted(found[0]):
        try:
            with Image.open(found[0][stem]) as image, Image.open(found[1][stem]) as mask:
                pixels, marks = np.asarray(image.convert("L"), np.float32), np.asarray(mask)
        except (UnidentifiedImageError, OSError, SyntaxError) as error:
            raise InputError(f"task {name}: {stem} cannot be read as an image ({error}); write it again") from None
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
    of that task, and a task without any subject is not made. Raises InputError where no volume fits, one is damaged or not
    three-dimensional, or image and segmentation differ in shape.
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

    from universeg_rt.training.fields import harden

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


def _to_uint8(image: np.ndarray) -> np.ndarray:
    low, high = float(image.min()), float(image.max())
    return ((image - low) / max(high - low, 1e-12) * 255.0).round().astype(np.uint8)


def _image_files(folder: Path, name: str) -> dict[str, Path]:
    if not folder.is_dir():
        raise InputError(f"task {name}: no folder at {folder}")
    files = {p.stem: p for p in sorted(folder.iterdir()) if p.suffix.lower() in IMAGE_SUFFIXES}
    if not files:
        raise InputError(f"task {name}: {folder} holds no image ({', '.join(sorted(IMAGE_SUFFIXES))})")
    return files


def _subjects(root: Path, pattern: str) -> list[str]:
    if pattern.count("{subject}") < 1:
        raise InputError(f"path {pattern!r} does not say where the subject stands; write {{subject}} in it")
    expression = re.escape(pattern).replace(re.escape("{subject}"), "(?P<subject>[^/]+)", 1)
    expression = expression.replace(re.escape("{subject}"), "(?P=subject)")
    found = (re.fullmatch(expression, p.relative_to(root).as_posix()) for p in root.glob(pattern.replace("{subject}", "*")))
    return sorted(m["subject"] for m in found if m)


def _volume(path: Path, dataset: str) -> tuple[np.ndarray, np.ndarray]:
    """Values (X,Y,Z) float32 in RAS order and spacing (3,) in millimetres."""
    try:
        import nibabel
    except ImportError:
        raise InputError("NIfTI volumes need nibabel: pip install nibabel") from None
    try:
        image = nibabel.as_closest_canonical(nibabel.load(path))
        values = np.asarray(image.dataobj, np.float32)
    except Exception as error:  # nibabel raises many kinds for a damaged file
        reason = " ".join(str(error).split())
        raise InputError(f"data set {dataset}: {path} is not a whole NIfTI volume ({reason})") from None
    if values.ndim != 3 or not np.isfinite(values).all():
        raise InputError(f"data set {dataset}: {path} has shape {values.shape}; expected three axes and finite values")
    return values, np.array(image.header.get_zooms()[:3], float)
