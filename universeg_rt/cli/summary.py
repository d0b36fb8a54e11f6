"""What `universeg-segment` prints when a batch has ended."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from .common import in_options, say
from .opened import Opened
from .queries import Queries, stale_files
from .report import REPORT

PROGRAM = "universeg-segment"


def print_all(args: argparse.Namespace, opened: Opened, queries: Queries, rows: list[dict[str, Any]],
              facts: dict[str, Any]) -> None:
    """The summary on stdout; notes, and what was skipped, on stderr."""
    _print_summary(rows, args.output, args.review_below)
    for name, task in opened.frozen.items():
        print(f"{name}{': ' * bool(name)}a frozen task, {task.kind}, marked from {task.threshold:g} on: {task.reason}; "
              f"{task.price}")
    _print_notes(args, queries, rows, facts)
    for note in facts["notes"]:
        say(f"{PROGRAM}: note on the support: {in_options(note)}")
    for row in rows:
        if "error" in row:
            error = row["error"] if row["error"].startswith(row["input"]) else f"{row['input']}: {row['error']}"
            say(f"{PROGRAM}: skipped {error}")
        for note in row.get("notes", ()):
            say(f"{PROGRAM}: note on {row['input']}: {in_options(note)}")


def _print_summary(rows: list[dict[str, Any]], output: Path, review_below: float | None) -> None:
    done = [row for row in rows if "error" not in row]
    line = f"{len(done)} of {len(rows)} images segmented, masks and {REPORT} in {output}"
    if done:
        line += f"; median {np.median([sum(row['seconds'].values()) for row in done]):.2f} s an image"
    scores = [row["dice"] for row in done if "dice" in row]
    if scores:
        line += f"; mean Dice {np.mean(scores):.3f}"
    print(line)
    if review_below is not None:
        doubtful = sorted((row for row in done if row["review"]), key=lambda row: float(row["confidence"]))
        order = ", the lowest first" if doubtful else ""
        print(f"{len(doubtful)} of them to be looked at: confidence below {review_below:g}{order}")
        for row in doubtful:
            print(f"  {row['confidence']:.2f}  {row['input']}")


def _print_notes(args: argparse.Namespace, queries: Queries, rows: list[dict[str, Any]], facts: dict[str, Any]) -> None:
    """What was left out, lacks a truth, or lies there from earlier."""
    if args.truth:
        count, all_of_them = facts["with_truth"], len(queries.files)
        cure = "" if count == all_of_them else "; a true mask has the path and name of its image, but for the ending"
        print(f"{count} of {all_of_them} images have a true mask in {args.truth}{cure}")
    written = [file for row in rows if "error" not in row for file in row["files"]]
    if stale := stale_files(args.output, written):
        print(
            f"other files in the folders of {args.output}: {stale}, of earlier runs, not of this one; remove them, or "
            "choose an --output of its own for each run")
    for note in queries.notes:
        say(f"{PROGRAM}: {note}")
