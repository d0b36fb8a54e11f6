"""Which files a batch segments, under which names, and what lies beside them and is left out."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import InputError
from ..imaging.files import SUFFIXES, add_named, image_files
from ..imaging.pairs import IMAGES, LABELS
from ..storage.reading import is_folder
from ..volumes.reading import ACCEPTED as VOLUMES
from ..volumes.reading import is_volume, stem_of, volumes_below
from ..volumes.segmentation import is_segmentation
from .report import REPORT, is_report
from .results import FOLDERS


@dataclass(frozen=True)
class Query:
    """An image or a volume to segment. truth_name: the name that its true mask has."""

    path: Path
    truth_name: str
    volume: bool = False


@dataclass
class Queries:
    """Queries by the name of their results; notes: what was left out or named otherwise, in sentences."""

    files: dict[str, Query]
    notes: list[str] = field(default_factory=list)


def find_queries(inputs: list[Path], output: Path) -> Queries:
    """All query files by the name of their results: the path in their own --input folder, or of single files the file
    name.

    Where two would have the same name, all are named by their paths from the folder that they have in common; those
    that then differ by their ending alone are named with it. Masks and overlays that an earlier run wrote are left out,
    and labels/ beside images/; where no other queries lie beside these two, names are those in images/, which are those
    of labels and truths.
    """
    given: list[tuple[str, Path]] = []
    own, others = _Own(output), Counter[str]()
    volumes: set[str] = set()
    answered = 0
    for path in inputs:
        if not os.path.exists(path):
            raise InputError(f"--input {path} does not exist")
        if is_folder(path):
            found = volumes_below(path, own)
            answers = [name for name, file in found.items() if is_segmentation(file)]
            answered += len(answers)
            held = _held(found.values())
            found = {name: file for name, file in found.items() if name not in answers}
            volumes.update(map(os.path.realpath, found.values()))
            files = image_files(path, own, _Others(others, held).add)
            here = [(file.relative_to(path).with_suffix("").as_posix(), file) for file in files if not held(file)]
            here += found.items()
            if own.has_left_out(path / LABELS) and all(name.startswith(f"{IMAGES}/") for name, _ in here):
                here = [(name.removeprefix(f"{IMAGES}/"), file) for name, file in here]
            given += here
        else:
            if is_volume(path):
                volumes.add(os.path.realpath(path))
            given.append((stem_of(Path(path.name)), path))
    notes = own.notes(inputs) + _notes_on_others(others)
    if answered:
        notes.append(f"{answered} DICOM Segmentation{'s' * (answered > 1)} in --input left out; give them as --truth, "
                     "or as labels of a support")
    if not given:
        said = f" ({'; '.join(notes)})" if notes else ""
        raise InputError(f"--input holds no images and no volumes; accepted: {', '.join(SUFFIXES)}, {VOLUMES}{said}")
    # Each file once. Not by Path.resolve(), which raises where a link leads to itself.
    given = list({os.path.realpath(path): (name, path) for name, path in given}.values())
    names = [name for name, _ in given]
    if len(set(names)) < len(given) and not _differ_by_ending(given):
        names = [_from_common(path, [path for _, path in given]) for _, path in given]
    counts, files_by_name = Counter(names), {}
    taken: dict[str, Path] = {}
    for name, (_, path) in zip(names, given):
        result = name if counts[name] == 1 else name + path.name.removeprefix(stem_of(Path(path.name)))
        add_named(taken, result, path)
        files_by_name[result] = Query(path, name, os.path.realpath(path) in volumes)
    if twice := sum(count for count in counts.values() if count > 1):
        notes.append(f"{twice} images have the name of another but for the ending; their results are named with it")
    return Queries(files_by_name, notes)


def stale_files(output: Path, written: Iterable[str]) -> int:
    """How many files lie in the folders of results that are not among those `written`, relative to `output`."""
    ours = {os.path.normpath(output / name) for name in written}
    found = (file for folder in FOLDERS.values() for file in (output / folder).rglob("*"))
    others = (file for file in found if os.path.normpath(file) not in ours)
    return sum(file.is_file() and not file.name.startswith(".") for file in others)


class _Own:
    """Which folders of a walk hold no queries: the output, folders of results beside a report of ours, and labels."""

    def __init__(self, output: Path) -> None:
        self._output = os.path.realpath(output)
        self._reports: dict[Path, bool] = {}
        self._left_out: dict[Path, str] = {}  # why; images and volumes are looked for in turn, so a folder comes twice

    def __call__(self, folder: Path) -> bool:
        if os.path.realpath(folder) == self._output:
            return True
        parent = folder.parent
        if folder.name == LABELS and is_folder(folder) and is_folder(parent / IMAGES):
            self._left_out[folder] = f"lies beside {IMAGES}/ and was left out; give it as an --input to segment it"
            return True
        if folder.name not in FOLDERS.values():
            return False
        if parent not in self._reports:
            self._reports[parent] = os.path.realpath(parent) == self._output or is_report(parent / REPORT)
        if self._reports[parent]:
            self._left_out[folder] = "holds results of an earlier run and was left out"
        return self._reports[parent]

    def has_left_out(self, folder: Path) -> bool:
        return folder in self._left_out

    def notes(self, inputs: list[Path]) -> list[str]:
        given = {os.path.realpath(path) for path in inputs}
        return [f"{folder} {why}" for folder, why in self._left_out.items() if os.path.realpath(folder) not in given]


def _notes_on_others(others: Counter[str]) -> list[str]:
    count = others.total()
    if not count:
        return []
    kinds = ", ".join(f"{number} of {suffix}" for suffix, number in others.most_common(5))
    kinds += ", ..." if len(others) > 5 else ""
    files = f"{count} file{'s' * (count > 1)}"
    return [f"{files} in --input of other kinds ignored ({kinds}); read are {', '.join(SUFFIXES)}, and volumes"]


@dataclass
class _Others:
    """Counts files of other kinds by their ending, but for those that are held by a volume."""

    counts: Counter[str]
    held: Callable[[Path], bool]

    def add(self, file: Path) -> None:
        if not self.held(file):
            self.counts.update([file.suffix.lower() or "no ending"])


def _held(volumes: Iterable[Path]) -> Callable[[Path], bool]:
    """Says of a file whether it is one of these volumes, or a slice of one that is a folder."""
    known = set(volumes)
    return lambda file: file in known or file.parent in known and file.suffix.lower() not in SUFFIXES


def _differ_by_ending(given: list[tuple[str, Path]]) -> bool:
    """Whether all files of the same name lie in the same folder."""
    folders: dict[str, Path] = {}
    return all(folders.setdefault(name, path.absolute().parent) == path.absolute().parent for name, path in given)


def _from_common(path: Path, paths: list[Path]) -> str:
    try:
        common = os.path.commonpath([p.absolute().parent for p in paths])
    except ValueError:
        raise InputError(
            "inputs of several drives have the same name; segment each drive's in a run of its own"
        ) from None
    return stem_of(path.absolute().relative_to(common))
