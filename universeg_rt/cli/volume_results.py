"""What is made of a volume's maps once all slices are there: cleaned masks, files, a contact sheet, figures."""

from __future__ import annotations

import argparse
import csv
import io
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..answers.postprocess import Step, cleaned, smoothed
from ..imaging.files import write_png
from ..imaging.normalisation import Range
from ..imaging.overlays import Look
from ..labelled_predictor import ARGMAX, label_map
from ..named_types import Array, Bools, Floats
from ..prediction import BLANK, NOISE, Prediction, Timing
from ..storage.atomic import write_file
from ..volumes.scratch import scratch_array
from ..volumes.slicing import Slices
from ..volumes.volume import LabelVolume, Volume
from ..volumes.writing import map_ending, write_labels_beside, write_map
from .opened import Opened
from .partial import Partial
from .results import UNNAMED, hashed, lowest_confidence, outputs, target
from .sheet import Shown, volume_sheet
from .truths import Truths

HEADINGS = ("slice", "label", "pixels", "confidence", "spread", "dice", "presence", "kind")  # of the table of slices
ROWS = 64  # rows of all slices that are smoothed at a time
MAP = "labels"  # the name of the label map where labels exclude one another


@dataclass(frozen=True, eq=False)
class Finished:
    """A volume whose slices are all in its maps. read: seconds that reading it took. notes: on it so far. limits: of
    its intensities. how: its truth is read."""

    opened: Opened
    volume: Volume
    slices: Slices
    partial: Partial
    truth: LabelVolume | None
    name: str
    read: float
    notes: list[str]
    limits: Range
    how: Truths = Truths(False)

    @property
    def values(self) -> dict[str, int]:
        return self.opened.task.values

    @property
    def pixel(self) -> tuple[float, float, float] | None:
        """Millimetres from slice to slice, row to row, column to column."""
        spacing = self.volume.geometry.spacing
        return None if spacing is None or self.slices.pixel is None else (
            spacing[self.slices.order[0]], *self.slices.pixel)


def write_results(finished: Finished, args: argparse.Namespace) -> dict[str, Any]:
    """Write everything that is asked for; what the report says of the volume."""
    start = time.perf_counter()
    probabilities = _probabilities(finished)
    stacks = _stacks(finished, probabilities)
    cleaning = time.perf_counter() - start
    figures, lines = _figures(finished, stacks, probabilities)
    start = time.perf_counter()
    files = _write(finished, stacks, probabilities, lines, args)
    written = time.perf_counter() - start
    per_slice = np.array([each["seconds"] for each in finished.partial.facts], float).sum(axis=0)
    seconds = {"read": finished.read, "preprocess": float(per_slice[0]), "network": float(per_slice[1]),
               "postprocess": float(per_slice[2]) + cleaning, "write": written}
    return {**_facts(finished, figures), **files, "seconds": seconds,
            "network_share": seconds["network"] / sum(seconds.values()), "notes": finished.notes}


def _probabilities(finished: Finished) -> dict[str, Floats]:
    """The maps (slices, H, W) that there are by label, smoothed where it is asked for: then a slice that was emptied
    has the probability 0, for its neighbours too."""
    found = {name: finished.partial.maps[f"probability{value}"] for name, value in finished.values.items()
             if f"probability{value}" in finished.partial.maps}
    if not finished.opened.smooths:
        return found
    out = {}
    for name, stack in found.items():
        out[name] = scratch_array(stack.shape, np.float32)
        emptied = np.array([bool(each["unseen"]) or name in each["absent"] for each in finished.partial.facts])
        for row in range(0, stack.shape[1], ROWS):
            part = np.array(stack[:, row : row + ROWS])
            part[emptied] = 0
            part = smoothed(part, finished.opened.steps)
            part[emptied] = 0
            out[name][:, row : row + ROWS] = part
    return out


def _stacks(finished: Finished, probabilities: dict[str, Floats]) -> dict[str, Array]:
    """Label maps (slices, H, W) after the steps: one by the name MAP where labels exclude one another, else one a
    label. The maps of the interrupted run stay as they are."""
    maps, steps = finished.partial.maps, tuple(s for s in finished.opened.steps if s.name != "smooth")
    exclusive = finished.opened.task.overlap == ARGMAX
    keys = [MAP] if exclusive else [f"{MAP}{value}" for value in finished.values.values()]
    if not finished.opened.steps:
        return {key: maps[key] for key in keys}
    out = {key: scratch_array(maps[key].shape, maps[key].dtype) for key in keys}
    for i in range(len(finished.slices)):
        for key in keys:
            out[key][i] = maps[key][i]
        if finished.opened.smooths:
            answering = finished.opened.task.answering
            cut = {name: Prediction(stack[i] >= answering[name].threshold, stack[i], np.zeros_like(stack[i]),
                                    Timing(0, 0, 0)) for name, stack in probabilities.items()}
            for name, value in finished.values.items():
                if exclusive:
                    out[MAP][i] = label_map(cut, finished.values)
                    break
                out[f"{MAP}{value}"][i] = cut[name].mask
    for value in finished.values.values() if steps else ():
        _clean(out[MAP] if exclusive else out[f"{MAP}{value}"], value if exclusive else 1, steps, finished.pixel)
    return out


def _clean(stack: Array, value: int, steps: tuple[Step, ...], pixel: tuple[float, float, float] | None) -> None:
    """One label of a stack (slices, H, W) in place; what a step adds does not replace another label. A step over the
    volume holds its masks in memory, a byte a voxel; others go slice by slice."""
    whole = any(step.volume for step in steps)
    for part, size in [(stack, pixel)] if whole else [(each, pixel[1:] if pixel else None) for each in stack]:
        before = np.asarray(part == value)
        if not before.any():
            continue
        after = cleaned(before, steps, spacing=size)
        part[before & ~after] = 0
        part[after & (part == 0)] = value


def _mask(stacks: dict[str, Array], value: int, i: int) -> Bools:
    mask: Bools = stacks[MAP][i] == value if MAP in stacks else stacks[f"{MAP}{value}"][i] != 0
    return mask


def _true(finished: Finished, value: int, i: int) -> Bools | None:
    """The true mask of a label in a slice."""
    if finished.truth is None:
        return None
    name = next(name for name, each in finished.values.items() if each == value)
    own = finished.how.values_of(finished.truth.names, finished.values)[name]
    mask: Bools = np.isin(finished.slices.take(finished.truth.values, i), own)
    return mask


def _figures(finished: Finished, stacks: dict[str, Array], probabilities: dict[str, Floats]
             ) -> tuple[dict[str, dict[str, Any]], list[list[Any]]]:
    """Of each label its figures; of each slice and label a line of the table. Slices that are in the support are not
    scored. A confidence is by the smoothed probabilities where there are such, else by the network's own answer."""
    facts, pixel = finished.partial.facts, finished.pixel
    figures, lines = {}, []
    for name, value in finished.values.items():
        present, pixels, both, sizes, scored = [], 0, 0, 0, 0
        sums = np.zeros(4)
        for i in range(len(finished.slices)):
            mask, truth = _mask(stacks, value, i), _true(finished, value, i)
            count, score = int(mask.sum()), None
            pixels += count
            present += [i] * bool(count)
            if truth is not None and not facts[i]["entry"]:
                inside, size = int((mask & truth).sum()), count + int(truth.sum())
                both, sizes, scored = both + inside, sizes + size, scored + 1
                score = 2 * inside / size if size else 1.0
            found, p, pm, spread = facts[i]["labels"][name]
            told = facts[i]["presence"][name]
            mean = spread / found if count and found else 0.0
            if finished.opened.smooths:
                probability = probabilities[name][i]
                found, spread = count, mean * count
                p, pm = float(probability.sum(dtype=np.float64)), float(probability[mask].sum(dtype=np.float64))
            sums += found, p, pm, spread
            lines.append([i, name or UNNAMED, count, _expected(found, p, pm) if count else "", mean,
                          "" if score is None else score, "" if told is None else told, _kind(facts[i], name)])
        figures[name or UNNAMED] = {
            "voxels": pixels,
            **({} if pixel is None else {"millilitres": pixels * float(np.prod(pixel)) / 1000}),
            "confidence": _expected(*sums[:3]) if pixels else None,
            **({"spread": float(sums[3] / sums[0]) if sums[0] else 0.0} if finished.opened.members > 1 else {}),
            "slices": [present[0], present[-1]] if present else [],
            **({"absent": absent} if (absent := _runs([name in each["absent"] for each in facts])) else {}),
            **({"dice": 2 * both / sizes if sizes else 1.0} if scored else {}),
        }
    return figures, lines


def _runs(marked: list[bool]) -> list[list[int]]:
    """The first and the last index of each run of them."""
    steps = np.flatnonzero(np.diff(np.array([False, *marked, False]).astype(np.int8)))
    return [[int(first), int(after) - 1] for first, after in zip(steps[::2], steps[1::2])]


def _expected(count: float, probability: float, inside: float) -> float:
    """Expected Dice (`imaging.metrics.expected_dice`) by the sums that a slice or a volume has."""
    return float(2 * inside / (probability + count)) if count else 0.0


def _kind(fact: dict[str, Any], label: str) -> str:
    """What the table says of a slice and label that is not as others."""
    if fact["unseen"]:
        return str(fact["unseen"])
    if fact["entry"]:
        return "in the support"
    return "absent" if label in fact["absent"] else "dim" * _is_dim(fact)


def _is_dim(fact: dict[str, Any]) -> bool:
    """Whether a slice was not stretched to its own range (`imaging.normalisation.share_of`)."""
    return not fact["unseen"] and fact["share"] < 1


def _facts(finished: Finished, figures: dict[str, dict[str, Any]]) -> dict[str, Any]:
    volume, slices, facts = finished.volume, finished.slices, finished.partial.facts
    voxels = sum(each["voxels"] for each in figures.values())
    scores = [each["dice"] for each in figures.values() if "dice" in each]
    counts = {"slices": len(slices), **{kind: sum(each["unseen"] == kind for each in facts) for kind in (BLANK, NOISE)},
              "dim": sum(map(_is_dim, facts)),
              "in_support": sum(bool(each["entry"]) for each in facts)}
    if counts["in_support"] and finished.truth is not None:
        finished.notes.append(f"{counts['in_support']} of {len(slices)} slices are in the support; they are not scored")
    return {
        "kind": volume.kind, **({"modality": volume.modality} if volume.modality else {}),
        "shape": list(volume.geometry.shape),
        **({"spacing": [round(mm, 4) for mm in volume.geometry.spacing]} if volume.geometry.spacing else {}),
        "intensity_range": list(finished.limits),
        "axis": slices.axis, **({"plane": slices.plane} if slices.plane else {}), **counts,
        "foreground_pixels": voxels, "foreground_share": voxels / float(np.prod(volume.geometry.shape)),
        "confidence": lowest_confidence(figures), "labels": figures,
        **({"dice": float(np.mean(scores))} if scores else {}),
    }


def _write(finished: Finished, stacks: dict[str, Array], probabilities: dict[str, Floats], lines: list[list[Any]],
           args: argparse.Namespace) -> dict[str, Any]:
    volume, back, out = finished.volume, finished.slices.back, args.output
    names = {value: name or UNNAMED for name, value in finished.values.items()}
    row: dict[str, Any] = {"mask": []}
    for key, stack in stacks.items():
        own = names if key == MAP else {1: names[int(key.removeprefix(MAP))]}
        file = target(out, "masks", finished.name + ("" if key == MAP else f".{key}"), "")
        row["mask"].append(file + write_labels_beside(out / file, back(stack), own, volume, finished.notes))
    for kind, folder in (("probability", "probabilities"), ("spread", "spread")) if args.probabilities else ():
        row[kind] = []
        for name, value in finished.values.items():
            stack = probabilities[name] if kind == "probability" else finished.partial.maps[f"spread{value}"]
            label = f".label{value}" if len(finished.values) > 1 else ""
            file = target(out, folder, finished.name + label, map_ending(volume))
            write_map(out / file, back(stack), volume)
            row[kind].append(file)
    row["table"] = target(out, "slices", finished.name, ".csv")
    with write_file(out / row["table"]) as file_:
        text = io.StringIO()
        csv.writer(text).writerows([HEADINGS, *lines])
        file_.write(text.getvalue().encode())
    if "overlays" in outputs(args):
        row["overlay"] = target(out, "overlays", finished.name, ".png")
        write_png(out / row["overlay"], volume_sheet(_shown(finished, stacks, names)))
    files = [*row["mask"], *row.get("probability", ()), *row.get("spread", ()), row["table"]]
    return {**row, "files": hashed(out, files + ([row["overlay"]] if "overlay" in row else []))}


def _shown(finished: Finished, stacks: dict[str, Array], names: dict[int, str]) -> Shown:
    def merged(mask: Callable[[int, int], Bools | None], i: int) -> Array:
        out = np.zeros(finished.slices.size, np.uint16)
        for value in names:
            if (found := mask(value, i)) is not None:
                out[found] = value
        return out

    slices, volume = finished.slices, finished.volume
    return Shown(
        lambda i: slices.take(volume.values, i), lambda i: merged(lambda value, j: _mask(stacks, value, j), i),
        None if finished.truth is None else lambda i: merged(lambda value, j: _true(finished, value, j), i),
        len(slices), slices.pixel, finished.opened.normalise, Look(names),
        [each["share"] for each in finished.partial.facts])
