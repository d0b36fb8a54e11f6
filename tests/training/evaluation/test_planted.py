"""The command that plants faults counts what is planted, suspected and named, and opens no closed data set."""

from __future__ import annotations

import pytest

pytest.importorskip("torch", reason="torch is not installed: pip install torch")
pytest.importorskip("yaml", reason="data sets are YAML: pip install '.[train]'")

from universeg_rt.training.evaluation import planted
from universeg_rt.training.evaluation.protocol import CLOSED, GROUPS

pytestmark = pytest.mark.torch


def test_a_network_that_is_right_finds_every_fault_of_a_label(made, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(planted, "predicted", lambda runner, entries, query, chosen: entries[query, 1])
    assert planted.main([str(made.folder(tmp_path)), "--data-root", str(tmp_path), "--entries", "6"]) == 0
    rows = {line.split(" | ")[0][2:]: line.split(" | ")[1:] for line in capsys.readouterr().out.splitlines()[2:]}
    assert rows["none"][:2] == ["6", "0%"], "what is right is not suspected"
    assert rows["inverted"][:3] == ["6", "100%", "100% |"]
    assert rows["misaligned by 24"][1] == "100%" and rows["none, of images"][0] == "6"
    assert "other modality" not in rows, "there is no other task to take an image from"


def test_closed_data_sets_stay_closed(tmp_path, capsys):
    file = next((GROUPS / CLOSED).glob("*.yaml"))
    assert planted.main([str(file), "--data-root", str(tmp_path)]) == 1
    assert "which no choice may see" in capsys.readouterr().err
