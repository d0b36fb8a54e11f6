"""`report.json` of a batch: written whole again and again as the batch goes, so that a run that ends early can be gone
on with."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..storage.atomic import write_json
from ..storage.reading import reading

REPORT = "report.json"
PAUSE = 1.0  # seconds between two writings, at least
SHARE = 20  # and this many times what the last one took


class Report:
    """What a batch was made with and a row for each image by its name, in the order of `names`.

    settings: what the results depend on; a report of other settings is not gone on with. facts: what else is said of
    the run.
    """

    def __init__(self, folder: Path, settings: dict[str, Any], facts: dict[str, Any], names: Sequence[str]) -> None:
        self.path = folder / REPORT
        self.rows: dict[str, dict[str, Any]] = {}
        self._settings, self._facts, self._names = json.loads(json.dumps(settings)), facts, names
        self._due = 0.0

    def start(self, earlier: dict[str, dict[str, Any]]) -> None:
        """Begin with the rows of an earlier run that this one goes on with; each stands until `add` replaces it. Writes
        the report, with no rows where there are none: one of an earlier run would stand beside masks of this one.
        Raises OutputError."""
        self.rows = {name: earlier[name] for name in self._names if name in earlier}
        self.write(complete=False)

    def earlier_rows(self) -> dict[str, dict[str, Any]]:
        """Rows of the report that lies there, by name; none where there is none.

        Raises InputError where it is damaged or of other settings.
        """
        if not self.path.exists():
            return {}
        with reading("a report", self.path, cure="leave --resume out to start anew"):
            earlier = json.loads(self.path.read_bytes())
            rows = {row["name"]: dict(row) for row in earlier["images"]}
        differs = [key for key, value in self._settings.items() if earlier.get(key) != value]
        if differs:
            shown = "; ".join(f"{key} was {json.dumps(earlier.get(key))}, is {json.dumps(self._settings[key])}"
                              for key in differs)
            raise InputError(
                f"{self.path} is of another run ({shown}); give what it was made with, or leave --resume out to start "
                "anew"
            )
        return rows

    def add(self, name: str, row: dict[str, Any]) -> None:
        """Take in an image's row, and write the report if it has not been for a moment."""
        self.rows[name] = {"name": name, **row}
        if time.monotonic() >= self._due:
            self.write(complete=False)

    def tell(self, unfinished: dict[str, Any] | None) -> None:
        """Write how far a volume is, if the report has not been written for a moment."""
        if time.monotonic() >= self._due:
            self.write(complete=False, unfinished=unfinished)

    def write(self, complete: bool, unfinished: dict[str, Any] | None = None) -> dict[str, Any]:
        """Writes all rows so far, whole or not at all, and gives what it wrote. complete: whether the batch came to its
        end. unfinished: how far a volume is whose row is not there yet. Raises OutputError."""
        start = time.monotonic()
        rows = [self.rows[name] for name in self._names if name in self.rows]
        scores = [row["dice"] for row in rows if isinstance(row.get("dice"), (int, float))]
        mean = float(np.mean(scores)) if scores else None
        report = {**self._facts, **self._settings, "complete": complete, "mean_dice": mean, "images": rows}
        if unfinished is not None:
            report["unfinished"] = unfinished
        write_json(self.path, report)
        end = time.monotonic()
        self._due = end + max(PAUSE, SHARE * (end - start))
        return report


def is_report(path: Path) -> bool:
    """Whether a report of a batch lies there, by the fields that only ours has together."""
    try:
        with reading("a report", path):
            found = json.loads(path.read_bytes())
    except InputError:
        return False
    return isinstance(found, dict) and {"images", "bundle", "ensemble", "complete"} <= found.keys()
