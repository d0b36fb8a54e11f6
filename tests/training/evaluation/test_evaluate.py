"""The command `universeg-evaluate`: its files, both kinds, going on, the closed group, and its errors."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest

pytest.importorskip("torch", reason="torch is not installed: pip install torch")
pytest.importorskip("yaml", reason="data sets are YAML: pip install '.[train]'")
pytest.importorskip("scipy", reason="scipy is not installed: pip install '.[train]'")

from universeg_rt.frozen.record import FORMAT
from universeg_rt.training.evaluation import evaluate
from universeg_rt.training.evaluation.evaluate import main
from universeg_rt.training.evaluation.protocol import CLOSED

pytestmark = pytest.mark.torch


@pytest.fixture
def command(made, tmp_path, small_bundle):
    file = made.folder(tmp_path)
    return [str(file), "--data-root", str(tmp_path), "--bundle", str(small_bundle), "--threads", "1"]


def test_curves_table_csv_and_plot_have_the_baselines_beside_the_network(command, tmp_path, capsys):
    pytest.importorskip("matplotlib", reason="the plot needs matplotlib")
    assert main([*command, "--support-sizes", "1", "4", "--members", "1", "2", "--output", str(tmp_path / "e.json"),
                 "--csv", str(tmp_path / "e.csv"), "--plot", str(tmp_path / "e.png")]) == 0
    out = json.loads((tmp_path / "e.json").read_text())
    assert [(c["support_size"], c["members"]) for c in out["overall"]["cells"]] == [(1, 1), (1, 2), (4, 1), (4, 2)]
    for cell in out["tasks"]["disc"]["cells"]:
        assert list(cell["methods"]) == ["exact", "atlas", "copy"]
        assert all(0 <= f["low"] <= f["dice"] <= f["high"] <= 1 for f in cell["methods"].values())
    assert out["tasks"]["disc"]["queries"] == out["tasks"]["disc"]["subjects"] == 4
    assert len(out["setup"]["weights_sha256"]) == 64 and out["setup"]["protocol"]["queries_from"] == "dev"
    run = out["runs"][0]
    assert run["date"].startswith("20") and "--support-sizes 1 4" in run["command"] and not run["opened_report"]
    assert (tmp_path / "e.png").read_bytes()[:4] == b"\x89PNG"
    printed = capsys.readouterr().out
    assert "| disc | 1 | 1 | 4 | 4 |" in printed and "atlas | copy | verdict |" in printed and "HD95" in printed
    assert len(list(csv.DictReader(open(tmp_path / "e.csv")))) == 4 * 3


def test_both_kinds_on_one_size_are_drawn_by_task(command, tmp_path, capsys):
    pytest.importorskip("matplotlib", reason="the plot needs matplotlib")
    assert main([*command, "--kind", "exact", "static", "auto", "--support-sizes", "4", "--members", "1", "--output",
                 str(tmp_path / "k.json"), "--plot", str(tmp_path / "k.png")]) == 0
    out = json.loads((tmp_path / "k.json").read_text())
    assert list(out["tasks"]["disc"]["cells"][0]["methods"]) == ["exact", "static", "auto", "atlas", "copy"]
    assert out["setup"]["kinds"]["static"] == {"runner": "native", "precision": "fp32", "frozen_format": FORMAT}
    assert "static: verdict" in capsys.readouterr().out and (tmp_path / "k.png").read_bytes()[:4] == b"\x89PNG"


def test_it_goes_on_where_it_was_stopped(command, tmp_path, monkeypatch):
    first = tmp_path / "discs.yaml"
    second = tmp_path / "more.yaml"
    second.write_text(first.read_text().replace("name: discs", "name: more").replace("name: disc,", "name: other,"))
    line = [str(second), *command, "--support-sizes", "2", "--members", "1", "--output", str(tmp_path / "r.json"),
            "--resume"]
    measured, real = [], evaluate.measure

    def stops(ways, task, *rest):
        if measured and not going_on:
            raise KeyboardInterrupt
        measured.append(task.name)
        return real(ways, task, *rest)

    going_on = False
    monkeypatch.setattr(evaluate, "measure", stops)
    assert main(line) == 130
    half = json.loads((tmp_path / "r.json").read_text())
    assert [m["task"] for m in half["measured"]] == ["other"] and "tasks" not in half
    going_on = True
    assert main(line) == 0 and measured == ["other", "disc"]
    whole = json.loads((tmp_path / "r.json").read_text())
    assert list(whole["tasks"]) == ["other", "disc"] and len(whole["runs"]) == 2
    assert whole["measured"][0] == half["measured"][0]
    archive = dict(np.load(tmp_path / "discs.npz"))
    np.savez(tmp_path / "discs.npz", **(archive | {"images": 255 - archive["images"]}))
    assert main(line) == 0 and measured == ["other", "disc"] * 2, "data that changed are measured anew"


def test_another_setup_is_not_gone_on_with(command, tmp_path, capsys):
    line = [*command, "--support-sizes", "2", "--members", "1", "--output", str(tmp_path / "r.json"), "--resume"]
    assert main(line) == 0 and main([*line, "--seed", "1"]) == 1
    assert "made with another protocol" in capsys.readouterr().err


def test_the_report_group_needs_the_flag_and_a_record(command, made, tmp_path, capsys):
    (tmp_path / CLOSED).mkdir()
    made.folder(tmp_path / CLOSED)
    closed = [str(tmp_path / CLOSED / "discs.yaml"), "--data-root", str(tmp_path / CLOSED), *command[3:],
              "--support-sizes", "2", "--members", "1", "--split", "test"]
    for extra, message in (([], "--open-report"), (["--pools", "1"], "--open-report"), (["--open-report"], "--output")):
        assert main([*closed, *extra]) == 1 and message in capsys.readouterr().err
    assert main([*closed, "--open-report", "--output", str(tmp_path / "o.json")]) == 0
    run, = json.loads((tmp_path / "o.json").read_text())["runs"]
    assert run["opened_report"] and "--open-report" in run["command"]
    assert main(["--group", CLOSED, "--data-root", str(tmp_path)]) == 1 and "--open-report" in capsys.readouterr().err


def test_images_without_the_target_are_measured_where_a_data_set_has_them(command, made, tmp_path, capsys):
    made.folder(tmp_path, extra=", absent: none.npz")
    np.savez(tmp_path / "none.npz", images=np.random.default_rng(0).integers(0, 90, (2, 32, 32)).astype(np.uint8),
             ids=np.array(["x", "y"]))
    line = [*command, "--support-sizes", "2", "--members", "1"]
    assert main([*line, "--output", str(tmp_path / "a.json")]) == 0
    task = json.loads((tmp_path / "a.json").read_text())["tasks"]["disc"]
    assert task["absent"] == 2 and task["queries"] == 4
    assert all(0 <= f["false_positive_area"] <= 1 for f in task["cells"][0]["methods"].values())
    assert "false-positive area |" in capsys.readouterr().out
    np.savez(tmp_path / "none.npz", images=np.zeros((2, 32, 32)), ids=np.array(["x", "y"]))
    assert main(line) == 1 and "none.npz must hold images (N,H,W) uint8" in capsys.readouterr().err


@pytest.mark.parametrize("extra, message", [
    (["--support-sizes", "0"], "support_sizes is [0]"), (["--tasks", "moon"], "no tasks moon; there are disc"),
    (["--runner", "abacus"], "runner is 'abacus'"), (["--resume"], "--resume goes on with the file of --output"),
    (["--pools", "1", "--csv", "x.csv"], "--csv is of tasks"),
    (["--pools", "1", "--kind", "exact", "static"], "one --kind at a time"),
])
def test_errors_are_one_line(command, capsys, extra, message):
    assert main([*command, *extra]) == 1
    err = capsys.readouterr().err.strip()
    assert message in err and "\n" not in err


def test_without_data_it_says_so(capsys, monkeypatch, tmp_path):
    monkeypatch.delenv("UNIVERSEG_RT_DATA", raising=False)
    assert main([str(tmp_path / "x.yaml")]) == 1
    assert "--data-root or UNIVERSEG_RT_DATA" in capsys.readouterr().err
