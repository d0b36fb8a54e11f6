"""The measurement of what pruning gives: a run on a made-up data set."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("torch", reason="data sets are read by the training package: pip install '.[train]'")
pytest.importorskip("yaml", reason="data sets are read by the training package: pip install '.[train]'")

from universeg_rt.benchmarks.cpu.pruned import AS_IT_IS, FAULTY, WAYS, main, table

from ...conftest import disc_data_set

ROWS = [{"task": "a", "unit": f"a/{i}", "draw": 0, "support": kind, "entries": 9, "faults": 2 * (kind == FAULTY),
         "dropped": 1, "dropped rightly": int(kind == FAULTY), **dict.fromkeys(WAYS, 0.5), "pruned": 0.5 + 0.1 * i}
        for kind in (AS_IT_IS, FAULTY) for i in range(3)]


def test_gains_by_hand():
    said = table(ROWS)
    assert f"| a, {FAULTY} | 0.500 | 0.600 | 0.500 | 0.500 | 0.500 | 0.500 | 9 | 2 | 1 | 1 |" in said
    assert f"- {FAULTY}: pruned over all +0.100 (" in said and f"- {AS_IT_IS}: without faults over all +0.000" in said


def test_the_command_measures_every_way(tmp_path, small_bundle, capsys):
    data_set = disc_data_set(tmp_path)
    asked = [str(data_set), "--data-root", str(tmp_path), "--bundle", str(small_bundle), "--draws", "1",
             "--queries", "2", "--threads", "1", "--output", str(tmp_path / "out.json"), "--support-size"]
    assert main([*asked, "10"]) == 0
    rows = json.loads((tmp_path / "out.json").read_text())
    assert len(rows) == 4 and {row["support"] for row in rows} == {AS_IT_IS, FAULTY}
    assert all(row["faults"] == (2 if row["support"] == FAULTY else 0) for row in rows)
    assert all(0 <= row[way] <= 1 for row in rows for way in WAYS)
    assert "| discs, as it is |" in capsys.readouterr().out
    assert main([*asked, "8"]) == 1
    assert "which prune keeps" in capsys.readouterr().err
