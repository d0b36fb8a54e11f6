"""The measurement of a closer look: a run on a made-up data set."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("torch", reason="data sets are read by the training package: pip install '.[train]'")
pytest.importorskip("yaml", reason="data sets are read by the training package: pip install '.[train]'")

from universeg_rt.benchmarks.cpu.refine import HOWS, main

from ...conftest import disc_data_set


def test_the_command_measures_every_way(tmp_path, small_bundle, capsys):
    data_set = disc_data_set(tmp_path)
    assert main([
        str(data_set), "--data-root", str(tmp_path), "--bundle", str(small_bundle), "--support-size",
        "4", "--draws", "2", "--threads", "1", "--output", str(tmp_path / "out.json"),
    ]) == 0
    rows = json.loads((tmp_path / "out.json").read_text())
    assert len(rows) == 8 and all(0 <= row[how] <= 1 for row in rows for how in HOWS)
    assert all(row["auto"] == row[row["took"]] for row in rows)
    said = capsys.readouterr().out
    assert "| discs |" in said and "Gain over off" in said
