"""Labelled volumes as the studies of quality take them: a support of slices as `universeg-segment` chooses it, and
volumes of other subjects as queries."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from universeg_rt.cli import demo
from universeg_rt.errors import InputError
from universeg_rt.imaging.normalisation import Range
from universeg_rt.labelled import LabelledSupport
from universeg_rt.supports.labelled_volumes import read_labelled
from universeg_rt.supports.volumes import SliceChoice, labelled_support_of_volumes, volume_pairs
from universeg_rt.volumes.slicing import AXES, Slices, intensity_range

TEMPLATE = "MNI152 template"


@dataclass(frozen=True, eq=False)
class Scan:
    """A volume that is asked: its slices (H,W) in their order, their label maps (H,W) by the support's values, which of
    them (N,) are not in the support, where they lie in the volume (None where that tells nothing, as `Looks.misfit`
    says), and the range of its intensities."""

    subject: str
    images: list[np.ndarray]
    labels: list[np.ndarray]
    scored: np.ndarray
    places: list[float] | None
    limits: Range


@dataclass(frozen=True, eq=False)
class VolumeSet:
    """name: of the data set. support: slices with all labels. scans: of subjects that no entry is from, but for the
    template, which is one head. pairs: files of images and labels that the support is from, by name."""

    name: str
    support: LabelledSupport
    scans: list[Scan]
    pairs: dict[str, tuple[Path, Path]]


def add_volume_options(parser: argparse.ArgumentParser) -> None:
    """--volumes and what is taken of them."""
    parser.add_argument("--volumes", type=Path, nargs="*", default=[], metavar="FOLDER",
                        help="folders with images/ and labels/, a volume for each subject")
    parser.add_argument("--axis", choices=AXES, nargs="*", default=[], help="of each folder (acquired)")
    parser.add_argument("--split", choices=("dev", "test"), nargs="+", default=["dev"],
                        help="whose volumes are asked (dev)")
    parser.add_argument("--support-volumes", type=int, default=4, help="subjects that the support is from (4)")
    parser.add_argument("--scans", type=int, default=10, help="at most so many volumes asked of each folder (10)")


def volume_sets(args: argparse.Namespace, absent: int) -> Iterator[tuple[VolumeSet, SliceChoice]]:
    """What `add_volume_options` asks for, supports of `args.support_size` slices with a label and `absent` without any;
    and how their slices were chosen.

    InputError where there are more axes than folders, or too few subjects.
    """
    if len(args.axis) > len(args.volumes):
        raise InputError(f"{len(args.axis)} axes for {len(args.volumes)} folders; give each folder one at most")
    axes = [*args.axis, *["acquired"] * (len(args.volumes) - len(args.axis))]
    for folder, axis in zip(args.volumes, axes):
        choice = SliceChoice(axis, args.support_size, absent, seed=args.seed)
        yield read_set(folder, choice, args.split, args.support_volumes, args.scans), choice


def read_set(folder: Path, choice: SliceChoice, splits: Sequence[str], support_volumes: int, scans: int) -> VolumeSet:
    """Subjects are the volumes' names, split as those of tasks; which of them are taken depends on `choice.seed`."""
    from universeg_rt.training.evaluation.figures import seeded
    from universeg_rt.training.tasks.tasks import split_subjects

    pairs = volume_pairs(folder)
    parts = split_subjects(np.array(list(pairs)), folder.name)

    def drawn(names: Sequence[str], count: int, part: str) -> dict[str, tuple[Path, Path]]:
        order = seeded(folder.name, choice.seed, part).permutation(sorted(names))
        return {str(name): pairs[str(name)] for name in order[:count]}

    given = drawn(parts["support"], support_volumes, "support")
    support = labelled_support_of_volumes(given, choice=choice)
    wanted = drawn([name for split in splits for name in parts[split]], scans, "scans" if splits[1:] else splits[0])
    asked, names = read_labelled(wanted, choice.axis, any_two=True)
    values = {name: value for value, name in support.label_names.items()}
    found = []
    for each in asked:
        cuts = [each.cut(i) for i in range(len(each.slices))]
        labels = [sum((np.where(cut == value, values.get(name, 0), 0) for value, name in names.items()),
                      np.zeros_like(cut)) for cut in cuts]
        images = [each.slices.take(each.volume.values, i) for i in range(len(cuts))]
        alike = not any(looks.misfit(each.slices.length) for looks in support.looks.values())
        places = each.slices.places(range(len(images))) if alike else None
        found.append(Scan(each.name, images, labels, np.ones(len(images), bool), places, each.limits))
    return VolumeSet(folder.name, support, found, given)


def template() -> VolumeSet:
    """The demo's template by axial slices, with the demo's labels and support."""
    _, volume, labels = demo.load()
    slices = Slices.of(volume.geometry, volume.acquired, "axial")
    images = [slices.take(volume.values, i) for i in range(len(slices))]
    maps = [slices.take(labels, i) for i in range(len(slices))]
    support = LabelledSupport.from_arrays([images[i] for i in demo.SUPPORT_SLICES],
                                          [maps[i] for i in demo.SUPPORT_SLICES], label_names=demo.LABELS)
    scored = ~np.isin(np.arange(len(images)), demo.SUPPORT_SLICES)
    scan = Scan("template", images, maps, scored, slices.places(range(len(slices))), intensity_range(volume.values))
    return VolumeSet(TEMPLATE, support, [scan], {})
