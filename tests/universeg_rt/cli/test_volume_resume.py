"""A volume that was interrupted goes on at its slice, or begins anew."""

from __future__ import annotations

import json
import shutil

import pytest

nibabel = pytest.importorskip("nibabel", reason="volumes need nibabel: pip install '.[medical]'")

from universeg_rt.cli import volumes
from universeg_rt.cli.segment import main

from .test_volumes import NAME, case, head, row_of, write  # noqa: F401 (a fixture)


@pytest.mark.parametrize("at", [0, 1])
def test_an_interrupted_volume_goes_on_at_the_slice_where_it_stood(case, monkeypatch, at):
    folder, arguments = case
    arguments = [*arguments, "--probabilities", "--threads", "1"]
    monkeypatch.setattr(volumes, "FEWEST", 4)
    assert main(arguments) == 0
    row, report = row_of(folder), json.loads((folder / "out" / "report.json").read_text())
    whole = {file: (folder / "out" / file).read_bytes() for file in row["files"]}

    calls, original = [], volumes._facts

    def interrupted(*given):
        calls.append(1)
        if len(calls) == 4 * at + 3:
            raise KeyboardInterrupt
        return original(*given)

    monkeypatch.setattr(volumes, "_facts", interrupted)
    assert main(arguments) == 130
    after = json.loads((folder / "out" / "report.json").read_text())
    assert not after["complete"] and after["images"] == [] and after["bundle"] == report["bundle"]
    assert after["unfinished"] == {"name": f"p1/{NAME}", "slices": 4 * at, "of": 12}
    calls.clear()
    monkeypatch.setattr(volumes, "_facts", lambda *given: calls.append(1) or original(*given))
    assert main([*arguments, "--resume"]) == 0
    assert len(calls) == 12 - 4 * at
    assert {file: (folder / "out" / file).read_bytes() for file in whole} == whole
    again = row_of(folder)
    assert ("was interrupted after 4 of 12 slices" in str(again["notes"])) == bool(at)
    assert again["notes"] == row["notes"] + [note for note in again["notes"] if "was interrupted" in note]
    of_time = ("seconds", "network_share", "notes")
    assert {key: again[key] for key in again if key not in of_time} == {
        key: row[key] for key in row if key not in of_time}
    assert not (folder / "out" / ".partial").exists()


def test_without_resume_an_interrupted_volume_begins_anew(case, monkeypatch):
    folder, arguments = case
    monkeypatch.setattr(volumes, "FEWEST", 4)
    original, calls = volumes._facts, []
    monkeypatch.setattr(volumes, "_facts", lambda *given: calls.append(1) or (
        original(*given) if len(calls) < 7 else (_ for _ in ()).throw(KeyboardInterrupt)))
    assert main([*arguments, "--threads", "1"]) == 130
    assert (folder / "out" / ".partial").exists()
    monkeypatch.setattr(volumes, "_facts", original)
    assert main([*arguments, "--threads", "1"]) == 0
    assert "interrupted" not in str(row_of(folder)["notes"]) and not (folder / "out" / ".partial").exists()


def test_a_finished_volume_is_not_made_again(case, monkeypatch):
    folder, arguments = case
    assert main(arguments) == 0
    before = row_of(folder)
    monkeypatch.setattr("universeg_rt.cli.segment.segment_volume", lambda *_: pytest.fail("segmented"))
    assert main([*arguments, "--resume"]) == 0
    assert row_of(folder) == before


def test_a_killed_run_leaves_a_report_that_resume_is_checked_against(case, monkeypatch, capsys):
    """Killed: nothing is written on the way out, so what counts is what lies there during the first volume."""
    folder, arguments = case
    monkeypatch.setattr(volumes, "FEWEST", 4)
    monkeypatch.setattr("universeg_rt.cli.report.PAUSE", 0.0)
    monkeypatch.setattr("universeg_rt.cli.report.SHARE", 0.0)
    seen, original, left = [], volumes.Partial.advance, folder / "left"

    def watched(partial, facts):
        original(partial, facts)
        seen.append((folder / "out" / "report.json").read_bytes())
        if len(seen) == 2:
            shutil.copytree(folder / "out", left)

    monkeypatch.setattr(volumes.Partial, "advance", watched)
    assert main([*arguments, "--threads", "1"]) == 0
    reports = [json.loads(each) for each in seen]
    assert [each["unfinished"]["slices"] for each in reports] == [0, 4, 8]
    assert not any(each["complete"] or each["images"] for each in reports)

    arguments[arguments.index("--output") + 1] = str(left)
    assert main([*arguments, "--threads", "1", "--resume", "--post", "largest-component"]) == 1
    assert "is of another run" in capsys.readouterr().err
    seen.clear()
    assert main([*arguments, "--threads", "1", "--resume"]) == 0 and len(seen) == 1
