"""The measurement of a static task's price: rules by hand, and a run on a made-up data set."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("torch", reason="data sets are read by the training package: pip install '.[train]'")
pytest.importorskip("yaml", reason="data sets are read by the training package: pip install '.[train]'")

from universeg_rt.benchmarks.cpu.price import DICE, main, table

from ...conftest import disc_data_set


def test_rules_by_hand():
    rows = [{"task": "a", "price": p, "agreement": a, "exact from 0.5": 0.7, "static from 0.5": 0.7 - lost,
             "exact": 0.7, "static": 0.7 - lost + gain, "exact threshold": 0.5,
             "static threshold": 0.4 if gain else 0.5}
            for p, a, lost, gain in ((0.001, 0.95, 0.01, 0), (0.009, 0.8, 0.06, 0.03), (0.02, 1.0, 0.02, 0))]
    said = table(rows, 0.01)
    assert "| always | 3 of 3 | 0.030 | 0.060 | 1 |" in said and "Rank correlation of price and loss: 0.50" in said
    assert "threshold of exact than 0.5 for 0 of 3." in said
    assert "threshold of static than 0.5 for 1 of 3: +0.030 Dice, at worst +0.030." in said
    assert "| **by its price** (`auto`) | 2 of 3 | 0.035 | 0.060 | 1 |" in said
    assert "masks agree by 0.9 | 1 of 3 | 0.010 | 0.010 | 0 |" in said
    assert "masks agree by 0.9 | 0 of 3 | - | - | 0 |" in table(rows, 0)


def test_the_command_prices_and_asks(tmp_path, small_bundle, capsys):
    data_set = disc_data_set(tmp_path)
    asked = [str(data_set), "--data-root", str(tmp_path), "--bundle", str(small_bundle), "--draws", "2", "--queries",
             "2", "--threads", "1", "--output", str(tmp_path / "out.json"), "--support-size"]
    assert main([*asked, "6"]) == 0
    rows = json.loads((tmp_path / "out.json").read_text())
    assert [row["queries"] for row in rows] == [2, 2] and all(0 <= row["agreement"] <= 1 for row in rows)
    assert all(row["static"] == row["static from 0.5"] for row in rows if row["static threshold"] == 0.5)
    assert all(0 <= row[name] <= 1 for row in rows for name in DICE)
    assert "2 supports of up to 6 entries, 1 tasks" in capsys.readouterr().out
    assert main([*asked, "2"]) == 1
    assert "can be priced" in capsys.readouterr().err
