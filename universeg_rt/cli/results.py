"""Where results lie below --output, and their rows in the report: written, checked, held against what is there."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ..errors import GeometryError, InputError, TruthError
from ..storage.atomic import writing
from ..storage.reading import sha256_of
from ..support_file import unnamed

FOLDERS = {"mask": "masks", "probability": "probabilities", "spread": "spread", "overlay": "overlays",
           "table": "slices"}
HOLD = "truths_hold"  # the key of a row that says what the truths of the run together mark, where that decides
UNSCORED = "unscored"  # the key of a row that says why its truth was not used
UNNAMED = unnamed(1)  # what a report calls the label of a support that does not say which one it is
NUMBERS = ("foreground_pixels", "foreground_share")  # of a row


def outputs(args: argparse.Namespace) -> list[str]:
    """The folders of results that the options ask for."""
    overlays = args.overlays or args.html  # which embeds them
    return ["masks"] + ["probabilities", "spread"] * args.probabilities + ["overlays"] * overlays


def target(output: Path, folder: str, name: str, ending: str) -> str:
    """Where a result goes, relative to `output`, once its folder is there."""
    parent = (output / folder / name).parent
    with writing(parent):
        parent.mkdir(parents=True, exist_ok=True)
    return f"{folder}/{name}{ending}"


def hashed(output: Path, files: list[str]) -> dict[str, str]:
    """sha256 of results, by their path relative to `output`."""
    return {file: sha256_of(output / file) for file in files}


def stands(row: dict[str, Any], hashes: dict[str, str], args: argparse.Namespace) -> bool:
    """Whether a row of an earlier run is whole, of inputs with these hashes, and the files that it names are there as
    they were written."""
    same = {key: row.get(key) for key in ("sha256", "truth_sha256", HOLD) if key in row} == hashes
    if not same or "error" in row or not is_whole(row, "truth_sha256" in hashes and UNSCORED not in row):
        return False
    files = row.get("files")
    folders = set(outputs(args))
    try:
        return (isinstance(files, dict) and folders <= {file.split("/")[0] for file in files}
                and all(sha256_of(args.output / file) == value for file, value in files.items()))
    except (InputError, TypeError, AttributeError):
        return False


def is_whole(row: dict[str, Any], scored: bool) -> bool:
    """Whether all that a summary reads of a row is there: reports are edited by hand too."""
    seconds, notes = row.get("seconds"), row.get("notes")
    confidence = row.get("confidence", "")  # None where all is empty
    numbers = [row.get(key) for key in (*NUMBERS, *["dice"] * scored)] + [confidence] * (confidence is not None)
    numbers += list(seconds.values()) if isinstance(seconds, dict) and seconds else [None]
    return (all(isinstance(number, (int, float)) and abs(number) < 1e18 for number in numbers)
            and isinstance(row.get("input"), str) and isinstance(notes, list)
            and all(isinstance(note, str) for note in notes))


def unscored(error: GeometryError | TruthError) -> str:
    """The note on an image or a volume that was segmented all the same."""
    return f"no Dice, for the truth cannot be used: {error}"


def lowest_confidence(labels: dict[str, dict[str, Any]]) -> float | None:
    """The lowest confidence of a row's labels; an empty mask has None, and so has a row of empty ones."""
    return min((each["confidence"] for each in labels.values() if each["confidence"] is not None), default=None)


def reviewed(row: dict[str, Any], below: float | None) -> dict[str, Any]:
    """The row with `review`, whether the mask's confidence is below what was asked for; without it where nothing
    was. An empty mask has no confidence, and is not named."""
    row = {key: value for key, value in row.items() if key != "review"}
    if below is None or "error" in row:
        return row
    return {**row, "review": row["confidence"] is not None and row["confidence"] < below}
