"""`report.html`: what `report.json` says and the pictures it names, as one file that needs no network and no script.

All text is escaped, pictures are embedded, and a Content-Security-Policy forbids everything else, so that opening it is
safe whatever the names of the files are. Source of the rule: https://www.w3.org/TR/CSP3.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeGuard

from ..errors import InputError
from ..install import needed
from ..storage.atomic import write_file
from ..storage.reading import reading
from .common import in_options
from .results import UNNAMED

HTML = "report.html"
TEMPLATE = "report.html.j2"
PICTURES = ("overlay", "sheet")  # keys of a row whose file is embedded
EMBEDDED = 64 * 2**20  # bytes of pictures; what comes after stays a file beside the report
FIRST = 10  # of the lowest confidence
# Columns of a label's figures: key, heading, format, whether a bar from 0 to 1 goes with it.
COLUMNS = (
    ("dice", "Dice", "{:.3f}", True),
    ("confidence", "confidence", "{:.2f}", True),
    ("spread", "spread", "{:.3f}", False),
    ("foreground_pixels", "pixels", "{:,}", False),
    ("voxels", "voxels", "{:,}", False),
    ("millilitres", "ml", "{:,.1f}", False),
    ("slices", "slices with it", "{}", False),
    ("absent", "slices taken as absent", "{}", False),
)
# Of a report: what was made, rather than how.
RESULTS = frozenset({"images", "complete", "mean_dice", "notes", "input_notes", "unfinished"})


def needs_html() -> Any:
    """jinja2, which fills the page in; InputError where it is not installed, found out before anything is segmented."""
    return needed("jinja2", "medical", HTML)


def write_html(folder: Path, report: dict[str, Any], title: str = "Segmentation report") -> Path:
    """Write `report.html` beside the report it is of, and give its path. report: as report.json holds it; its pictures
    are read from `folder`. Raises OutputError, and InputError where jinja2 is not installed."""
    jinja2 = needs_html()
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    text = environment.get_template(TEMPLATE).render(title=title, **_content(folder, report))
    with write_file(folder / HTML) as file:
        file.write(text.encode("utf-8", "backslashreplace"))  # names of files may hold what is no text
    return folder / HTML


def _content(folder: Path, report: dict[str, Any]) -> dict[str, Any]:
    rows = list(enumerate(report.get("images", [])))
    done = [(place, row) for place, row in rows if "error" not in row]
    pictures = _Pictures(folder)
    return {
        "complete": report.get("complete", False),
        "unfinished": report.get("unfinished"),
        "summary": list(_summary(report, len(done), len(rows))),
        "doubtful": _doubtful(done),
        "skipped": [row for _, row in rows if "error" in row],
        "notes": [*report.get("input_notes", []), *map(in_options, report.get("notes", []))],
        "cases": [_case(place, row, pictures) for place, row in done],
        "provenance": list(_flat({key: value for key, value in report.items() if key not in RESULTS})),
    }


def _summary(report: dict[str, Any], done: int, count: int) -> Iterator[tuple[str, str]]:
    yield "segmented", f"{done} of {count}"
    if isinstance(report.get("mean_dice"), (int, float)):
        yield "mean Dice", f"{report['mean_dice']:.3f}"
    seconds = [sum(row["seconds"].values()) for row in report.get("images", []) if "error" not in row]
    if seconds:
        yield "time", f"{sum(seconds):.1f} s" + f", {sum(seconds) / len(seconds):.2f} s each" * (len(seconds) > 1)
    bundle, runner = report.get("bundle", {}), report.get("runner", {})
    yield "network", f"{bundle.get('name', '')}, by {runner.get('name', '')} in {runner.get('precision', '')}"
    support = report.get("support", {})
    yield "support", f"{support.get('entries', '?')} labelled examples"


def labels_of(row: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Figures of each label of a row by name; of a row that has none such, as reports are edited by hand, its own."""
    labels = row.get("labels")
    return labels if isinstance(labels, dict) else {UNNAMED: row}


def _doubtful(done: list[tuple[int, dict[str, Any]]]) -> list[dict[str, Any]]:
    """Labels that a volume shows nowhere, and those of the lowest confidence."""
    empty, found = [], []
    for place, row in done:
        for name, figures in labels_of(row).items():
            said = {"place": place, "name": row["name"], "label": name, "dice": _shown(figures.get("dice"), "{:.3f}")}
            if figures.get("voxels") == 0:
                empty.append({**said, "confidence": "empty"})
            elif _is_number(confidence := figures.get("confidence")):
                found.append((float(confidence), {**said, "confidence": f"{confidence:.2f}"}))
    lowest = sorted(found, key=lambda each: each[0])[:FIRST] if len(found) + len(empty) > 1 else []
    return empty + [each for _, each in lowest]


def _case(place: int, row: dict[str, Any], pictures: _Pictures) -> dict[str, Any]:
    labels = labels_of(row)
    columns = [each for each in COLUMNS if any(each[0] in figures for figures in labels.values())]
    facts = [str(row["input"])]
    if shape := row.get("shape") or row.get("size"):
        facts.append("x".join(map(str, shape)))
    if spacing := row.get("spacing"):
        facts.append(" x ".join(f"{mm:g}" for mm in spacing) + " mm")
    facts += [f"{key} {row[key]}" for key in ("modality", "axis") if row.get(key)]
    if "blank" in row:
        counts = {"slices": "slices", "blank": "blank", "noise": "noise", "dim": "dim", "in_support": "in the support"}
        facts.append(", ".join(f"{row[key]} {said}" for key, said in counts.items() if key in row))
    facts.append(", ".join(f"{key} {seconds:.2f} s" for key, seconds in row["seconds"].items()))
    picture, said = pictures.of(row)
    return {
        "place": place, "name": row["name"], "facts": " · ".join(facts), "columns": [each[1] for each in columns],
        "labels": [
            {"name": name, "cells": [_cell(figures.get(key), form, bar) for key, _, form, bar in columns]}
            for name, figures in labels.items()
        ],
        "notes": [in_options(note) for note in row.get("notes", [])], "picture": picture, "alt": said,
    }


def _cell(value: Any, form: str, bar: bool) -> dict[str, Any]:
    share = round(100 * min(1.0, max(0.0, float(value)))) if bar and _is_number(value) else None
    return {"text": _shown(value, form), "bar": share}


def _shown(value: Any, form: str) -> str:
    if value is None:
        return ""
    if isinstance(value, list) and any(isinstance(each, list) for each in value):
        return ", ".join(_shown(each if each[0] < each[-1] else each[:1], form) for each in value)
    if isinstance(value, list):
        return " to ".join(map(str, value))
    return form.format(value) if _is_number(value) else str(value)


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


class _Pictures:
    """Reads the pictures that rows name, until there are too many to embed."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._left = folder, EMBEDDED

    def of(self, row: dict[str, Any]) -> tuple[str, str]:
        """The picture of a row as base64, empty where there is none; and what it shows, or where it is."""
        name = next((row[key] for key in PICTURES if key in row), None)
        if name is None:
            return "", ""
        path = self._folder / str(name)
        try:
            with reading("a picture", path):
                data = path.read_bytes()
        except InputError as error:
            return "", str(error)
        if len(data) > self._left:
            return "", f"picture in {name}: there are too many to embed"
        self._left -= len(data)
        return base64.b64encode(data).decode(), f"overlay of {row['name']}"


def _flat(values: dict[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    """Nested values as lines: `ensemble members` and what it is."""
    for key, value in values.items():
        name = f"{before} {key}".strip().replace("_", " ")
        if isinstance(value, dict):
            yield from _flat(value, name)
        elif isinstance(value, list):
            yield name, ", ".join(map(str, value))
        elif value is not None:
            yield name, str(value)
