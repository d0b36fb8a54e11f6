"""`universeg-segment --resume`: earlier rows stand until they are made anew, and hold for unchanged files alone."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from universeg_rt.cli import segment
from universeg_rt.cli.segment import main

from .test_batch import case, report_of  # noqa: F401 (a fixture)


@pytest.fixture
def done(case, monkeypatch):
    """A finished batch: its folder, its arguments with --resume, and the names that are segmented from then on."""
    folder, arguments = case
    assert main([*arguments, "--truth", str(folder / "queries" / "labels")]) == 0
    calls, original = [], segment.segment_image
    monkeypatch.setattr(segment, "segment_image", lambda task, *rest: calls.append(rest[0]) or original(task, *rest))
    return folder, [*arguments, "--truth", str(folder / "queries" / "labels"), "--resume"], calls


@pytest.mark.parametrize("at", [0, 1, 2])
def test_an_interrupted_resume_keeps_all_rows(done, monkeypatch, at):
    folder, arguments, _ = done
    before, count, original = report_of(folder), [], segment._row

    def interrupted(*given):
        if len(count) == at:
            raise KeyboardInterrupt
        count.append(1)
        return original(*given)

    monkeypatch.setattr(segment, "_row", interrupted)
    assert main(arguments) == 130
    after = report_of(folder)
    assert after["images"] == before["images"] and not after["complete"]


def test_the_report_is_there_while_a_resume_runs(done, monkeypatch):
    folder, arguments, _ = done
    seen, original = [], segment._row

    def watched(*given):
        seen.append(len(report_of(folder)["images"]))
        return original(*given)

    monkeypatch.setattr(segment, "_row", watched)
    assert main(arguments) == 0
    assert seen == [3, 3, 3]


def test_a_mask_that_was_overwritten_is_made_again(done):
    folder, arguments, calls = done
    mask = folder / "out" / "masks" / "case1.png"
    right = mask.read_bytes()
    Image.fromarray(np.zeros((5, 5), np.uint8)).save(mask)
    assert main(arguments) == 0
    assert calls == ["case1"] and mask.read_bytes() == right


@pytest.mark.parametrize("change", [
    *[lambda row, key=key: row.pop(key) for key in ("seconds", "confidence", "dice", "files", "input")],
    lambda row: row.update(seconds={}), lambda row: row.update(seconds={"network": "long"}),
    lambda row: row.update(dice="good"), lambda row: row.update(dice=10**400),
    lambda row: row.update(files=3), lambda row: row.update(files={}),
    lambda row: row.update(notes=[3]), lambda row: row.update(confidence=float("nan")),
])
def test_an_edited_row_is_made_again(done, change):
    folder, arguments, calls = done
    report = report_of(folder)
    change(report["images"][1])
    (folder / "out" / "report.json").write_text(json.dumps(report))
    assert main([*arguments, "--review-below", "0.5"]) == 0
    assert calls == ["case1"] and report_of(folder)["complete"]
