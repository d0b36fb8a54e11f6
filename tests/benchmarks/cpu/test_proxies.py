"""The measurement of the ways in which constants are made: the table by hand, and a run on a made-up data set."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("torch", reason="data sets are read by the training package: pip install '.[train]'")
pytest.importorskip("yaml", reason="data sets are read by the training package: pip install '.[train]'")

from universeg_rt.benchmarks.cpu.proxies import EXACT, WAYS, main, table

from ...conftest import disc_data_set, native_part


def test_the_table_by_hand():
    rows = [{"task": task, "draw": 0, EXACT: 0.8, "neither": 0.8 - lost, "turned": 0.79, "smoothed": 0.8, "both": 0.82}
            for task, lost in (("a", 0.05), ("b", 0.01))]
    lines = table(rows).splitlines()
    assert lines[2] == "| neither | 0.0300 |  | 0.050 | 1 |"
    assert lines[3] == "| turned | 0.0100 | +0.0200 | 0.010 | 0 |"
    assert lines[4] == "| smoothed | 0.0000 | +0.0300 | 0.000 | 0 |"
    assert lines[5] == "| both | -0.0200 | +0.0500 | -0.020 | 0 |"


def test_every_way_answers_and_they_differ(tmp_path, small_bundle, capsys):
    native_part()
    asked = [str(disc_data_set(tmp_path)), "--data-root", str(tmp_path), "--bundle", str(small_bundle), "--draws", "1",
             "--queries", "2", "--split", "test", "--threads", "1", "--output", str(tmp_path / "out.json"),
             "--support-size"]
    assert main([*asked, "6"]) == 0
    row, = json.loads((tmp_path / "out.json").read_text())
    assert len({row[name] for name in WAYS}) == len(WAYS)
    assert "1 supports of up to 6 entries, 1 tasks, queries of test" in capsys.readouterr().out
    assert main([*asked, "2"]) == 1
    assert "can be frozen" in capsys.readouterr().err
