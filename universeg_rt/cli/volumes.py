"""Segments one volume slice by slice, in blocks whose maps are kept in files, and writes its results."""

from __future__ import annotations

import argparse
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import GeometryError, TruthError
from ..imaging.normalisation import Window
from ..labelled_predictor import ARGMAX, LabelledPrediction
from ..notes import IN_SUPPORT
from ..prediction import ABSENT, BLANK, NOISE
from ..volumes.reading import read_labels, read_volume
from ..volumes.slicing import ACQUIRED, Slices, intensity_range
from ..volumes.volume import LabelVolume, Volume
from .opened import Opened, support_notes
from .partial import FOLDER as PARTIAL
from .partial import Partial
from .results import UNSCORED, unscored
from .truths import Truths
from .volume_results import MAP, Finished, write_results

BLOCK = 4  # slices for each thread in one call of the network
MOST, FEWEST = 64, 8  # slices of a block, as far as they are small
ANSWER = 16  # bytes of a pixel's answer for one label, with what is made on the way
ROOM = 256 * 2**20  # bytes of a block's answers
EMPTY = "the mask is empty"  # how a note begins that the count of slices with a mask says already
WINDOWS = "windows"  # what the last slice of a block says of where the next one is looked at


@dataclass(frozen=True)
class Job:
    """A volume to segment. name: of its results. how: its truth is read. hashes: of its files."""

    name: str
    path: Path
    truth: Path | None
    how: Truths
    hashes: dict[str, str]


def segment_volume(opened: Opened, job: Job, args: argparse.Namespace, tick: Callable[[int, int], object],
                   settings: dict[str, Any]) -> dict[str, Any]:
    """Segment a volume and write its results; its files, figures and notes. tick: is called with how many
    more slices are done, and of how many. settings: all that the maps depend on."""
    start = time.perf_counter()
    volume = read_volume(job.path, time=args.time, series=args.series)
    slices = Slices.of(volume.geometry, volume.acquired, args.axis or ACQUIRED)
    truth, unused = _truth(job, volume, opened.task.values)
    limits = intensity_range(volume.values)
    read = time.perf_counter() - start
    made_of = {"settings": settings, "sha256": job.hashes["sha256"]}
    partial = Partial(args.output / PARTIAL / job.name, made_of, _kinds(opened, args, slices))
    notes = [*volume.notes, *slices.notes, *(truth.notes if truth else ()), *unused]
    if volume.modality == "CT" and isinstance(opened.normalise, str):
        proposed = f"; the file proposes {volume.window}" if volume.window else ""
        notes.append("a CT without a window: in each slice the table, metal or air set the range; give --window "
                     f"soft-tissue, or another{proposed}")
    if isinstance(opened.normalise, Window) and opened.normalise.misses(*limits):
        notes.append(f"the {opened.normalise} hardly shows it: its intensities lie from {limits[0]:g} to "
                     f"{limits[1]:g}; give a --window in the units that support and queries share, or none")
    alike = not (opened.plane and slices.plane) or opened.plane == slices.plane
    if not alike:
        notes.append(f"its slices are {slices.plane}, those of the support {opened.plane}: the network sees another "
                     "plane than its examples show; give --axis, or a support of the same plane" +
                     "; whether a label is absent is not judged" * (opened.absent_below is not None))
    if partial.done:
        notes.append(f"an earlier run was interrupted after {partial.done} of {len(slices)} slices; they were not made "
                     "again")
    tick(partial.done, len(slices))
    misfit = opened.misfit(slices.length) if alike and opened.absent_below is not None else ""
    if misfit:
        notes.append(f"{misfit}: " + ("absence is judged by the look of slices alone, not by their place"
                                      if opened.settings["absence_asked"] else
                                      "whether a label is absent is not judged; --absent-below X judges it by the look "
                                      "of slices alone"))
    size, of_support = _block(opened, slices), support_notes(opened)
    windows = partial.facts[-1][WINDOWS] if partial.facts else {}
    for first in range(partial.done, len(slices), size):
        block = range(first, min(first + size, len(slices)))
        start = time.perf_counter()
        images = [slices.take(volume.values, i) for i in block]
        read += time.perf_counter() - start
        found, windows = opened.predict_slices(images, windows, [f"slice {i}" for i in block], limits,
                                               None if misfit else slices.places(block), judged=alike)
        for i, prediction in zip(block, found):
            _keep(partial, i, prediction, opened.task.overlap)
        facts = [_facts(each, of_support) for each in found]
        facts[-1][WINDOWS] = dict(windows)  # an interrupted volume goes on with them
        partial.advance(facts)
        tick(len(block), len(slices))
    notes += slice_notes(partial.facts)
    row = write_results(Finished(opened, volume, slices, partial, truth, job.name, read, notes, limits, job.how), args)
    partial.remove()
    return {**row, **({UNSCORED: unused[0]} if unused else {})}


def _truth(job: Job, volume: Volume, values: dict[str, int]) -> tuple[LabelVolume | None, list[str]]:
    """The truth of a volume, if there is one; and why it cannot be used, where it has another geometry, or labels of
    which nothing says which one was segmented."""
    if job.truth is None:
        return None, []
    try:
        truth = read_labels(job.truth, volume)
        job.how.values_of(truth.names, values)
        return truth, []
    except (GeometryError, TruthError) as error:
        return None, [unscored(error)]


def _block(opened: Opened, slices: Slices) -> int:
    """Slices in one call: enough for the threads, and not more than ROOM holds."""
    each = ANSWER * slices.size[0] * slices.size[1] * len(opened.task.values)
    return max(1, min(MOST, max(FEWEST, BLOCK * (opened.threads or 1)), ROOM // each))


def _kinds(opened: Opened, args: argparse.Namespace, slices: Slices) -> dict[str, tuple[tuple[int, ...], Any]]:
    """The maps that are needed: label maps, and where they are asked for or smoothed, probabilities and spread."""
    shape, values = (len(slices), *slices.size), opened.task.values
    kinds: dict[str, tuple[tuple[int, ...], Any]] = {}
    if opened.task.overlap == ARGMAX:
        kinds[MAP] = shape, np.uint8 if max(values.values()) < 256 else np.uint16
    else:
        kinds |= {f"{MAP}{value}": (shape, np.uint8) for value in values.values()}
    for wanted, kind in ((args.probabilities or opened.smooths, "probability"), (args.probabilities, "spread")):
        kinds |= {f"{kind}{value}": (shape, np.float32) for value in values.values() if wanted}
    return kinds


def _keep(partial: Partial, index: int, prediction: LabelledPrediction, overlap: str) -> None:
    """Write one slice's answer into the maps that there are."""
    maps = partial.maps
    if overlap == ARGMAX:
        maps[MAP][index] = prediction.labels
    for name, each in prediction.predictions.items():
        value = prediction.values[name]
        for kind, found in ((MAP, each.mask), ("probability", each.probability), ("spread", each.spread)):
            if f"{kind}{value}" in maps:
                maps[f"{kind}{value}"][index] = found


def _facts(prediction: LabelledPrediction, support: dict[str, tuple[str, ...]]) -> dict[str, Any]:
    """What is kept of a slice: sums, of which the volume's figures are made, its notes and seconds; a slice that was
    emptied counts as sure. support: as `support_notes` gives it."""
    first = next(iter(prediction.predictions.values()))
    notes = [note for name, each in prediction.predictions.items() for note in each.notes
             if note not in support[name] and not each.emptied and not note.startswith(EMPTY)
             and IN_SUPPORT not in note]
    timing = prediction.timing
    return {
        "unseen": first.emptied if first.emptied in (BLANK, NOISE) else "",
        "share": first.share,
        "entry": any(IN_SUPPORT in note for note in first.notes),
        "presence": {name: each.presence for name, each in prediction.predictions.items()},
        "absent": [name for name, each in prediction.predictions.items() if each.emptied == ABSENT],
        "notes": list(dict.fromkeys(notes)),
        "seconds": [timing.preprocess, timing.network, timing.postprocess],
        "labels": {
            name: [int(each.mask.sum()), 0.0 if each.emptied else float(each.probability.sum(dtype=np.float64)),
                   float(each.probability[each.mask].sum(dtype=np.float64)),
                   float(each.spread[each.mask].sum(dtype=np.float64))]
            for name, each in prediction.predictions.items()
        },
    }


def slice_notes(facts: list[dict[str, Any]]) -> list[str]:
    """Notes of slices, those that differ by figures alone as one: the first, and how many there are."""
    found: dict[str, list[str]] = {}
    for each in facts:
        for note in each["notes"]:
            found.setdefault(re.sub(r"\d+", "#", note), []).append(note)
    return [notes[0] + (f" ({len(notes)} slices alike)" if len(notes) > 1 else "") for notes in found.values()]
