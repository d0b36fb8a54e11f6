"""The demo: segments a whole MRI volume, the MNI152 template that nilearn's wheel carries, by a few labelled slices.

    python -m universeg_rt.cli.demo

Some axial slices of the template, with their labels, are the support; `universeg-segment` segments all slices in three
labels and scores those that are not in the support. It shows how the parts work together, not how well the network does
on other people: support and queries are slices of the same head.
"""

from __future__ import annotations

import argparse
import importlib.util
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..imaging.files import write_array, write_png
from ..install import install_hint
from ..named_types import Array, Bytes
from ..storage.atomic import make_folder
from ..volumes.reading import read_volume, stem_of
from ..volumes.slicing import Slices
from ..volumes.volume import Volume
from ..volumes.writing import write_labels
from . import segment
from .common import run_command

FILE = "mni_icbm152_{}_tal_nlin_sym_09a_converted.nii.gz"
# The third is what is left of the brain: fluid, and where neither tissue has half of a voxel.
LABELS = {1: "grey matter", 2: "white matter", 3: "rest of the brain"}
SUPPORT_SLICES = tuple(range(10, 146, 15))  # axial, 1 mm apart, numbered from below


def load() -> tuple[Path, Volume, Bytes]:
    """The template's file, its volume, and its label map (I,J,K) by the two tissue maps, each where it is above a half.

    Raises InputError where nilearn is not installed.
    """
    spec = importlib.util.find_spec("nilearn")
    if spec is None or spec.origin is None:
        raise InputError(f"the demo's MRI comes with the package nilearn, which is missing; {install_hint('demo')}")
    folder = Path(spec.origin).parent / "datasets" / "data"
    path = folder / FILE.format("t1")
    volume = read_volume(path)
    grey, white = (read_volume(folder / FILE.format(tissue)).values for tissue in ("gm", "wm"))
    labels = np.where(np.asarray(volume.values) > 0, np.uint8(3), np.uint8(0))
    labels[grey > 0.5 * grey.max()] = 1
    labels[white > 0.5 * white.max()] = 2
    return path, volume, labels


def write_support(folder: Path, volume: Volume, labels: Array) -> None:
    """A support folder of the labelled slices: images/ as .npy, labels/ as PNG whose grey values are the labels."""
    slices = Slices.of(volume.geometry, volume.acquired, "axial")
    for part in ("images", "labels"):
        shutil.rmtree(folder / part, ignore_errors=True)  # of an earlier demo
        make_folder(folder / part)
    for i in SUPPORT_SLICES:
        write_array(folder / "images" / f"axial_{i:03}.npy", slices.take(volume.values, i))
        write_png(folder / "labels" / f"axial_{i:03}.png", slices.take(labels, i))


def _main(args: argparse.Namespace) -> int:
    path, volume, labels = load()
    output = make_folder(args.output)
    write_support(output / "support", volume, labels)
    make_folder(output / "truth")
    write_labels(output / "truth" / path.name, labels, LABELS, volume)
    options: list[Any] = [
        "--support", output / "support", "--input", path, "--output", output, "--axis", "axial", "--aspect", "pad",
        "--label", *(f"{value}={name}" for value, name in LABELS.items()), "--truth", output / "truth", "--html",
    ]
    if args.bundle:
        options += ["--bundle", args.bundle]
    arguments = [str(option) for option in options]
    print(f"{len(SUPPORT_SLICES)} of {len(Slices.of(volume.geometry, volume.acquired, 'axial'))} axial slices are the "
          f"support; this is\nuniverseg-segment {shlex.join(arguments)}", flush=True)
    status = segment.main(arguments)
    if status == 0:
        stem = stem_of(Path(path.name))
        shutil.copyfile(output / "overlays" / f"{stem}.png", output / "demo.png")
        print(f"label map: {output / 'masks' / f'{stem}.nii.gz'}; to read: {output / 'report.html'}; picture: "
              f"{output / 'demo.png'}")
    return status


def main(arguments: list[str] | None = None) -> int:
    p = argparse.ArgumentParser(prog="universeg_rt.cli.demo", description=__doc__.splitlines()[0])
    p.add_argument("--output", type=Path, default=Path("demo_output"), help="folder for what it writes (demo_output)")
    p.add_argument("--bundle", type=Path, help="folder of the bundle (the shipped one)")
    return run_command(_main, p, arguments)


if __name__ == "__main__":
    sys.exit(main())
