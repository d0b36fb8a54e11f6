"""`universeg-segment` as a batch: any failure of one image is that image's, the report is there however it ends, and it
goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from universeg_rt.cli import commands, images, segment
from universeg_rt.cli.segment import main

from ...conftest import discs
from ..test_support import write_folder


@pytest.fixture
def case(tmp_path, small_bundle):
    """A folder of a support and of queries with their truth, and the arguments for them."""
    write_folder(tmp_path / "support", *discs(5))
    write_folder(tmp_path / "queries", *discs(3, 50, 44, seed=8))
    return tmp_path, ["--bundle", str(small_bundle), "--support", str(tmp_path / "support"),
                      "--input", str(tmp_path / "queries" / "images"), "--output", str(tmp_path / "out")]


def report_of(folder) -> dict:
    return json.loads((folder / "out" / "report.json").read_text())


@pytest.mark.parametrize(
    "error",
    [MemoryError(), RecursionError("deep"),
     RuntimeError("odd"),
     OSError(28, "No space left on device")])
def test_any_failure_of_one_image_is_reported_and_the_others_are_segmented(case, monkeypatch, capsys, error):
    folder, arguments = case
    read = images.read_image

    def broken(path, notes):
        if path.stem == "case1":
            raise error
        return read(path, notes)

    monkeypatch.setattr(images, "read_image", broken)
    assert main(arguments) == 1
    report = report_of(folder)
    assert report["complete"] and [("error" in row) for row in report["images"]] == [False, True, False]
    assert "case1.png cannot be segmented" in report["images"][1]["error"]
    assert sorted(p.name for p in (folder / "out" / "masks").iterdir()) == ["case0.png", "case2.png"]
    assert "Traceback" not in capsys.readouterr().err


def test_a_mask_that_cannot_be_written_is_one_failure(case):
    folder, arguments = case
    (folder / "out" / "masks" / "case0.png").mkdir(parents=True)
    assert main(arguments) == 1
    assert ["error" in row for row in report_of(folder)["images"]] == [True, False, False]


@pytest.mark.parametrize("make", [
    lambda path: path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 40 40\n%%EndComments\nshowpage\n"),
    lambda path: os.mkfifo(path),
    lambda path: path.symlink_to("/dev/zero"),
    lambda path: Image.new("1", (20_000, 20_000)).save(path),
    lambda path: path.mkdir() or path.with_name("x").touch(),
])
def test_odd_files_are_skipped(case, make):
    folder, arguments = case
    make(folder / "queries" / "images" / "odd.png")
    main(arguments)
    report = report_of(folder)
    assert report["complete"] and sum("mask" in row for row in report["images"]) == 3


def test_an_old_report_is_replaced_before_the_first_mask(case, monkeypatch):
    folder, arguments = case
    assert main(arguments) == 0
    seen = []
    monkeypatch.setattr(segment, "_row", lambda *_: seen.append(
        report_of(folder)) or {"input": "", "error": ""})
    main(arguments)
    assert seen[0]["images"] == [] and not seen[0]["complete"]


def test_an_interruption_leaves_a_report_and_resume_goes_on(case, monkeypatch, capsys):
    folder, arguments = case
    calls, original = [], segment.segment_image

    def counted(task, name, *rest):
        calls.append(name)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return original(task, name, *rest)

    monkeypatch.setattr(segment, "segment_image", counted)
    assert main(arguments) == 130
    assert "interrupted" in capsys.readouterr().err
    report = report_of(folder)
    assert not report["complete"] and [row["name"] for row in report["images"]] == ["case0"]
    assert main([*arguments, "--resume"]) == 0
    assert calls == ["case0", "case1", "case1", "case2"]
    assert report_of(folder)["complete"] and report_of(folder)["images"][0] == report["images"][0]


def test_resume_repeats_what_changed_and_refuses_other_settings(case, monkeypatch, capsys):
    folder, arguments = case
    truth = ["--truth", str(folder / "queries" / "labels")]
    assert main([*arguments, *truth]) == 0
    before = (folder / "out" / "report.json").read_bytes()
    for other in (["--members", "3", "--support-size", "2"], ["--aspect", "pad"], ["--overlays"]):
        assert main([*arguments, *truth, *other, "--resume"]) == 1
        assert "is of another run" in capsys.readouterr().err
    with monkeypatch.context() as patch:
        patch.setattr("universeg_rt.__version__", "0.0.0")
        assert main([*arguments, *truth, "--resume"]) == 1
        assert "version was" in capsys.readouterr().err
    assert (folder / "out" / "report.json").read_bytes() == before

    Image.fromarray(discs(1, seed=30)[0][0]).save(folder / "queries" / "images" / "case0.png")
    Image.fromarray(discs(1, 40, 36, seed=30)[1][0]).save(folder / "queries" / "labels" / "case0.png")
    (folder / "out" / "masks" / "case2.png").unlink()
    calls, original = [], segment.segment_image
    monkeypatch.setattr(segment, "segment_image",
                        lambda task, name, *rest: calls.append(name) or original(task, name, *rest))
    assert main([*arguments, *truth, "--resume"]) == 0
    assert calls == ["case0", "case2"]
    (folder / "out" / "report.json").write_text("{")
    assert main([*arguments, *truth, "--resume"]) == 1
    assert "leave --resume out" in capsys.readouterr().err


def test_a_report_is_written_while_the_batch_runs(case, monkeypatch):
    folder, arguments = case
    monkeypatch.setattr("universeg_rt.cli.report.PAUSE", 0.0)
    monkeypatch.setattr("universeg_rt.cli.report.SHARE", 0.0)
    rows, original = [], segment.segment_image

    def watched(*given):
        rows.append(len(report_of(folder)["images"]))
        return original(*given)

    monkeypatch.setattr(segment, "segment_image", watched)
    assert main(arguments) == 0
    assert rows == [0, 1, 2]


def test_files_of_one_name_in_several_folders(case):
    folder, arguments = case
    images, _ = discs(2, seed=4)
    for i, patient in enumerate(("p1", "p2")):
        (folder / "more" / patient).mkdir(parents=True)
        Image.fromarray(images[i]).save(folder / "more" / patient / "001.png")
    for given in ([str(folder / "more")], [str(folder / "more" / p / "001.png") for p in ("p1", "p2")],
                  [str(folder / "more" / p) for p in ("p1", "p2")]):
        out = folder / f"out{len(given[0])}"
        changed = [*arguments[:5], *given, "--output", str(out)]
        assert main(changed) == 0
        assert sorted(str(p.relative_to(out)) for p in out.rglob("*.png")) == ["masks/p1/001.png", "masks/p2/001.png"]


def test_results_inside_the_input_are_not_read_again(case):
    folder, arguments = case
    arguments = [*arguments[:-1], str(folder / "queries" / "images" / "results")]
    for _ in range(2):
        assert main(arguments) == 0
        assert len(json.loads((folder / "queries" / "images" / "results" / "report.json").read_text())["images"]) == 3


def test_notes_reach_the_report(case, capsys):
    folder, arguments = case
    picture = np.array(Image.open(folder / "support" / "images" / "case3.png"))
    Image.fromarray(picture).save(folder / "queries" / "images" / "case0.png")
    assert main([*arguments, "--members", "4"]) == 0
    report = report_of(folder)
    assert "is in the support, as entry case3" in report["images"][0]["notes"][0]
    assert not any("support, as entry" in note for row in report["images"][1:] for note in row["notes"])
    assert "all 4 members are the same set of 5 entries" in report["notes"][0]
    assert 0 <= report["images"][1]["foreground_share"] <= 1
    assert "note on" in capsys.readouterr().err


@pytest.mark.parametrize("part", ["masks", "overlays"])
def test_an_output_that_cannot_be_written_is_said_before_anything_is_segmented(case, part, monkeypatch, capsys):
    folder, arguments = case
    (folder / "out").mkdir()
    (folder / "out" / part).write_text("in the way")
    monkeypatch.setattr(segment, "segment_image", lambda *_: pytest.fail("segmented"))
    assert main([*arguments, "--overlays"]) == 1
    assert f"cannot write to {folder / 'out' / part}" in capsys.readouterr().err


def start(code: str, **options) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                            **options)


@pytest.mark.parametrize("lines", [1, 100_000])
def test_a_closed_pipe_ends_quietly(lines):
    process = start(f"import sys, time\nfrom universeg_rt.cli.common import guarded\ntime.sleep(0.3)\n"
                    f"sys.exit(guarded('p', lambda: [print('a line') for _ in range({lines})] and 0))")
    process.stdout.close()
    assert process.wait(20) == 141
    assert process.stderr.read() == ""
    process.stderr.close()


def test_an_interruption_during_the_imports_is_one_line():
    """The import of NumPy is stretched, so that the signal comes while it runs."""
    code = ("import sys, time\n"
            "class Slow:\n"
            "    def find_spec(self, name, path=None, target=None):\n"
            "        if name == 'numpy': print('importing', flush=True); time.sleep(30)\n"
            "sys.meta_path.insert(0, Slow())\n"
            "from universeg_rt.cli import commands\n"
            "sys.argv = ['universeg-segment']\n"
            "sys.exit(commands.segment())")
    process = start(code)
    assert process.stdout.readline() == "importing\n"
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 130 and err == "universeg-segment: interrupted\n"


def test_every_installed_command_has_its_entry_point():
    pyproject = (Path(__file__).parents[3] / "pyproject.toml").read_text()
    names = [line.split(":")[1].strip('" ') for line in pyproject.splitlines() if "universeg_rt.cli.commands:" in line]
    assert len(names) == 6 and all(callable(getattr(commands, name)) for name in names)
