"""Segments one image file and writes its results."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..imaging.files import read_image, read_label, write_array, write_mask
from ..imaging.metrics import dice
from ..imaging.overlays import write_overlay
from ..imaging.preprocess import check_label
from ..named_types import Bools
from ..prediction import Prediction
from ..predictor import Predictor
from .results import FOLDERS, hashed, outputs, target

ENDINGS = {"mask": ".png", "probability": ".npy", "spread": ".npy", "overlay": ".png"}


def segment_image(task: Predictor, name: str, path: Path, truth_path: Path | None,
                  args: argparse.Namespace) -> dict[str, Any]:
    """Segment one file and write its results; its files, figures and notes."""
    notes: list[str] = []
    image = read_image(path, notes)
    truth = None
    if truth_path is not None:
        truth = check_label(read_label(truth_path), image.shape[:2], f"true mask {truth_path}")
    try:
        prediction = task.predict(image)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    files = {key: target(args.output, folder, name, ENDINGS[key])
             for key, folder in FOLDERS.items() if folder in outputs(args)}
    write_mask(args.output / files["mask"], prediction.mask)
    for key in ("probability", "spread") if args.probabilities else ():
        write_array(args.output / files[key], getattr(prediction, key))
    if "overlay" in files:
        write_overlay(args.output / files["overlay"], image, prediction.mask, truth)
    notes += [note for note in prediction.notes if note not in task.notes]
    return {**files, "files": hashed(args.output, [*files.values()]), **_figures(prediction, truth), "notes": notes}


def _figures(prediction: Prediction, truth: Bools | None) -> dict[str, Any]:
    timing = prediction.timing
    figures: dict[str, Any] = {
        "size": list(prediction.mask.shape),
        "foreground_pixels": int(prediction.mask.sum()),
        "foreground_share": float(prediction.mask.mean()),
        "confidence": prediction.confidence,
        "seconds": {"preprocess": timing.preprocess, "network": timing.network, "postprocess": timing.postprocess},
    }
    if truth is not None:
        figures["dice"] = dice(prediction.mask, truth)
    return figures
