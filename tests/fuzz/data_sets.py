"""Data-set YAML files with what they name: odd fields and patterns, damaged task archives, images and volumes."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import nibabel
import numpy as np
from PIL import Image

from universeg_rt.training.tasks.datasets import load_dataset

from .mutate import ODD_VALUES, changed, damaged, dumped

NPZ = {"name": "d", "licence": "x", "subject": r"s(\d+)_", "tasks": [{"name": "t", "file": "t.npz"}]}
FOLDER = {
    "name": "d", "licence": "x", "format": "folder",
    "tasks": [{"name": "t", "images": "images", "labels": "labels", "value": 1}]
}
NIFTI = {"name": "d", "licence": "x", "format": "nifti", "modalities": {"t1": "{subject}/t1.nii.gz"},
         "segmentation": "{subject}/seg.nii", "labels": {"left": 1, "right": 2}}
PATTERNS = (r"^((s|ss)+)$", r"^s\d_((s|ss)+)!", r"^(a+)+$", r"(s|s)*(\d+)x", r"((s.*)*)*z", "(" * 300,
            r"(?P<a>s)(?P=a)", r"s\d+", "(", r"(\d{1,99999})", r"((\d{999}){999}){999}", "[[:x:]](s)", r"(?i)(S)",
            r"(.*.*.*.*.*.*x)", "()", r"(?:s)", r"(s)?", "(\ud800)", "(" + "s?" * 500 + "s" * 500 + ")")
PATHS = ("/etc", "/dev/zero", "..", "**/{subject}", "/{subject}", "../**/{subject}/*", "{subject}",
         "{subject}{subject}", "a\0b", "*" * 40 + "{subject}", "[{subject}", "~", "pipe.npz", "pipes", "images")
ODD = (*ODD_VALUES, *PATTERNS, *PATHS)


def cases(rng: random.Random, folder: Path) -> Iterator[tuple[str, Callable[[], object]]]:
    files = _write(folder)
    while True:
        base = rng.choice((NPZ, FOLDER, NIFTI))
        if rng.random() < 0.15:
            values = {**rng.choice((NPZ, FOLDER)), "subject": rng.choice(PATTERNS)}
            yield f"subject {values['subject'][:40]!r}", lambda values=values: _load(folder, dumped(values))
        elif rng.random() < 0.5:
            done, values = changed(rng, base, ODD)
            yield f"{base.get('format', 'npz')}, {done}", lambda values=values: _load(folder, dumped(values))
        elif rng.random() < 0.3:
            done, data = damaged(rng, dumped(base))
            yield f"text, {done}", lambda data=data: _load(folder, data)
        else:
            name = rng.choice(sorted(files))
            done, data = damaged(rng, files[name])
            values = copy.deepcopy(NPZ if name.endswith("npz") else NIFTI if ".nii" in name else FOLDER)
            yield f"{name}, {done}", lambda name=name, data=data, values=values: _load_with(
                folder, files, name, data, values)


def _write(folder: Path) -> dict[str, bytes]:
    """The files that the data sets name, each small and whole; their bytes by name."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (6, 16, 16), np.uint8)
    labels = (images > 100).astype(np.uint8)
    np.savez_compressed(folder / "t.npz", images=images, labels=labels,
                        ids=np.array([f"s{i}_{'s' * 80}" for i in range(6)]))
    for name in ("images", "labels", "s1", "s2", "pipes"):
        (folder / name).mkdir()
    for i, suffix in enumerate((".png", ".tif", ".jpg", ".bmp", ".png")):
        Image.fromarray(images[i]).save(folder / "images" / f"{i}{suffix}")
        Image.fromarray(labels[i]).save(folder / "labels" / f"{i}.png")
    for subject in ("s1", "s2"):
        for name in ("t1.nii.gz", "seg.nii"):
            volume = rng.integers(0, 3, (8, 9, 10)).astype(np.int16)
            nibabel.save(nibabel.Nifti1Image(volume, np.diag([1.0, 1.0, 2.0, 1.0])), folder / subject / name)
    import os

    os.mkfifo(folder / "pipe.npz")
    os.mkfifo(folder / "pipes" / "0.png")
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def _load(folder: Path, data: bytes) -> None:
    (folder / "set.yaml").write_bytes(data)
    for task in load_dataset(folder / "set.yaml", folder):
        assert len(task) and task.images.dtype == np.uint8 and set(np.unique(task.labels)) <= {0, 1}, task.name


def _load_with(folder: Path, files: dict[str, bytes], name: str, data: bytes, values: dict) -> None:
    (folder / name).write_bytes(data)
    try:
        _load(folder, dumped(values))
    finally:
        (folder / name).write_bytes(files[name])
