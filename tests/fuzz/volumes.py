"""Volumes: damaged NIfTI files, DICOM images and Segmentations, stacks, and series with a damaged slice."""

from __future__ import annotations

import gzip
import io
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import highdicom
import nibabel
import numpy as np
from PIL import Image
from pydicom.data import get_testdata_file

from universeg_rt.volumes.reading import find_volumes, read_labels, read_volume
from universeg_rt.volumes.slicing import AXES, Slices
from universeg_rt.volumes.volume import Volume
from universeg_rt.volumes.writing import labels_ending, write_labels

from ..universeg_rt.volumes.made import write_series
from .mutate import damaged

IMAGES = ("CT_small.dcm", "MR_small_RLE.dcm", "MR_small_jp2klossless.dcm", "MR_small_jpeg_ls_lossless.dcm",
          "MR_small_bigendian.dcm", "SC_rgb_rle_2frame.dcm", "examples_palette.dcm")
assert highdicom  # without which no DICOM is read: the module is skipped


def cases(rng: random.Random, folder: Path) -> Iterator[tuple[str, Callable[[], object]]]:
    series = write_series(folder / "series")
    like = read_volume(series)
    labels = np.arange(like.values.size).reshape(like.values.shape) % 3
    bases = [*_nifti(labels.astype(np.uint8)), ("stack.tif", _stack(labels.astype(np.uint16)))]
    bases += [(name, Path(get_testdata_file(name)).read_bytes()) for name in IMAGES]
    write_labels(folder / "seg.dcm", labels, {1: "liver", 2: "other"}, like)
    bases.append(("segmentation.dcm", (folder / "seg.dcm").read_bytes()))
    slices = sorted(series.iterdir())
    whole = slices[1].read_bytes()
    while True:
        kind = rng.choice(("file", "file", "file", "labels", "slice"))
        if kind == "slice":
            done, data = damaged(rng, whole)
            yield f"slice, {done}", lambda data=data: _series(series, slices[1], data, whole)
        else:
            name, data = rng.choice(bases)
            done, data = damaged(rng, data) if rng.random() < 0.9 else ("whole", data)
            path = folder / f"case{''.join(Path(name).suffixes)}"
            read = _labels if kind == "labels" else _file
            yield f"{name} as {kind}, {done}", lambda p=path, d=data, read=read: read(p, d, like)


def _file(path: Path, data: bytes, like: Volume) -> None:
    path.write_bytes(data)
    _check(read_volume(path))


def _labels(path: Path, data: bytes, like: Volume) -> None:
    path.write_bytes(data)
    found = read_labels(path, like)
    assert found.values.shape == like.values.shape and found.values.dtype.kind == "u"


def _series(folder: Path, file: Path, data: bytes, whole: bytes) -> None:
    file.write_bytes(data)
    try:
        assert find_volumes(folder)
        _check(read_volume(folder))
    finally:
        file.write_bytes(whole)


def _check(volume: Volume) -> None:
    """What every accepted volume has; an answer can be written for it."""
    assert volume.values.shape == volume.geometry.shape and volume.values.dtype.kind in "buif"
    for axis in AXES if volume.geometry.affine is not None else AXES[3:]:
        slices = Slices.of(volume.geometry, volume.acquired, axis)
        for index in {0, len(slices) - 1}:
            assert np.isfinite(slices.take(volume.values, index)).all()
    if volume.values.size < 2**20:
        path = volume.files[0].parent / f"answer{labels_ending(volume)}"
        write_labels(path, np.zeros(volume.geometry.shape, bool), {1: "x"}, volume)


def _nifti(labels: np.ndarray) -> list[tuple[str, bytes]]:
    affine = np.array([[0, 0.5, 0, -9], [-1.5, 0, 0, 20], [0, 0, 3, 7], [0, 0, 0, 1.0]])
    out = []
    for number, (kind, values) in enumerate(((nibabel.Nifti1Image, labels), (nibabel.Nifti2Image, labels),
                                             (nibabel.Nifti1Image, labels.astype(np.float32)))):
        data = kind(values, affine).to_bytes()
        out += [(f"{number}.nii", data), (f"{number}.nii.gz", gzip.compress(data))]
    return out


def _stack(labels: np.ndarray) -> bytes:
    file, pages = io.BytesIO(), [Image.fromarray(page) for page in labels]
    pages[0].save(file, "TIFF", save_all=True, append_images=pages[1:])
    return file.getvalue()
