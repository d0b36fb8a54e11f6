"""Segments one image file and writes its results."""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..answers.postprocess import cleaned
from ..errors import GeometryError, InputError, TruthError
from ..imaging.files import read_image, read_label, write_array, write_mask, write_png
from ..imaging.metrics import dice
from ..imaging.overlays import Look, write_overlay
from ..labelled_predictor import ARGMAX, LabelledPrediction
from ..named_types import Array
from ..prediction import Prediction
from .opened import Opened, support_notes
from .results import FOLDERS, UNNAMED, UNSCORED, hashed, lowest_confidence, outputs, target, unscored
from .truths import Truths


def segment_image(opened: Opened, name: str, path: Path, truth_path: Path | None, how: Truths,
                  args: argparse.Namespace) -> dict[str, Any]:
    """Segment one file and write its results; its files, figures and notes. how: the truth is read."""
    notes: list[str] = []
    image = read_image(path, notes)
    truths: dict[str, Array] = {}
    unused: dict[str, str] = {}
    if truth_path is not None:
        label = read_label(truth_path)
        try:
            truths = how.masks(label, opened.task.values, image.shape[:2], f"true mask {truth_path}")
        except (GeometryError, TruthError) as error:
            unused[UNSCORED] = unscored(error)
            notes.append(unused[UNSCORED])
    try:
        prediction = _cleaned(opened.predict([image])[0], opened)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    found = prediction.predictions
    row = _write(prediction, image, truths, name, opened, args)
    of_support = support_notes(opened)
    notes += [note for key, each in found.items() for note in each.notes if note not in of_support[key]]
    figures = {key: _figures(each, truths.get(key)) for key, each in found.items()}
    files = hashed(args.output, [file for each in row.values() for file in _listed(each)])
    return {**row, "files": files, "size": list(image.shape[:2]), **_together(figures, prediction), **unused,
            "notes": list(dict.fromkeys(notes))}


def _cleaned(prediction: LabelledPrediction, opened: Opened) -> LabelledPrediction:
    """After the steps of a slice; those of a volume are for volumes."""
    if not opened.steps:
        return prediction
    start = time.perf_counter()
    labels, found = prediction.labels.copy(), {}
    for name, each in prediction.predictions.items():
        mask, value = cleaned(each.mask, opened.steps), prediction.values[name]
        if opened.task.overlap == ARGMAX:
            labels[each.mask & ~mask] = 0
            mask &= (labels == 0) | (labels == value)  # what a step adds does not replace another label
            labels[mask] = value
        found[name] = replace(each, mask=mask)
    name, last = next(reversed(found.items()))
    seconds = last.timing.postprocess + time.perf_counter() - start
    found[name] = replace(last, timing=replace(last.timing, postprocess=seconds))
    return LabelledPrediction(labels, found, prediction.values)


def _write(prediction: LabelledPrediction, image: Array, truths: dict[str, Array], name: str, opened: Opened,
           args: argparse.Namespace) -> dict[str, Any]:
    """The files of an image by kind: one, or by label where there are several."""
    found, values, wanted = prediction.predictions, prediction.values, outputs(args)
    row: dict[str, Any] = {}

    def path_of(kind: str, label: str | None, ending: str) -> Path:
        own = name if label is None or len(found) == 1 else f"{name}.label{values[label]}"
        file = target(args.output, FOLDERS[kind], own, ending)
        if label is None or len(found) == 1:
            row[kind] = file
        else:
            row.setdefault(kind, {})[label] = file
        return Path(args.output / file)

    if "" in found or opened.task.overlap != ARGMAX:
        for label, each in found.items():
            write_mask(path_of("mask", label, ".png"), each.mask)
    else:
        write_png(path_of("mask", None, ".png"), prediction.labels)
    for label, each in found.items() if args.probabilities else ():
        write_array(path_of("probability", label, ".npy"), each.probability)
        write_array(path_of("spread", label, ".npy"), each.spread)
    if "overlays" in wanted:
        look = Look(None if "" in found else {value: key for key, value in values.items()})
        truth = None
        if truths:
            truth = np.zeros(image.shape[:2], np.uint16)
            for label, mask in truths.items():
                truth[mask] = values[label]
        write_overlay(path_of("overlay", None, ".png"), image, prediction.labels, truth, look)
    return row


def _listed(value: Any) -> list[str]:
    return list(value.values()) if isinstance(value, dict) else [value]


def _figures(prediction: Prediction, truth: Array | None) -> dict[str, Any]:
    figures: dict[str, Any] = {
        "foreground_pixels": int(prediction.mask.sum()),
        "foreground_share": float(prediction.mask.mean()),
        "confidence": prediction.confidence if prediction.mask.any() else None,
    }
    if truth is not None:
        figures["dice"] = dice(prediction.mask, truth)
    return figures


def _together(figures: dict[str, dict[str, Any]], prediction: LabelledPrediction) -> dict[str, Any]:
    """Of one label its figures; of several their sums, the lowest confidence, the mean Dice, and those of each."""
    timing = prediction.timing
    seconds = {"seconds": {"preprocess": timing.preprocess, "network": timing.network,
                           "postprocess": timing.postprocess}}
    if "" in figures:
        return {**figures[""], **seconds, "labels": {UNNAMED: figures[""]}}
    scores = [each["dice"] for each in figures.values() if "dice" in each]
    return {
        "foreground_pixels": int((prediction.labels != 0).sum()),
        "foreground_share": float((prediction.labels != 0).mean()),
        "confidence": lowest_confidence(figures),
        **({"dice": float(np.mean(scores))} if scores else {}), **seconds, "labels": figures,
    }
