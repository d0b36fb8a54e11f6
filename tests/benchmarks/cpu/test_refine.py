"""The measurement of a closer look: a run on a made-up data set."""

from __future__ import annotations

import json

import numpy as np
import pytest

pytest.importorskip("torch", reason="data sets are read by the training package: pip install '.[train]'")
pytest.importorskip("yaml", reason="data sets are read by the training package: pip install '.[train]'")

from universeg_rt.benchmarks.cpu.refine import HOWS, main

from ...conftest import discs


def test_the_command_measures_every_way(tmp_path, small_bundle, capsys):
    images, labels = discs(20)
    np.savez(tmp_path / "discs.npz", images=images, labels=labels.astype(np.uint8), ids=np.arange(20).astype(str))
    (tmp_path / "discs.yaml").write_text("name: discs\nlicence: none\ntasks:\n  - {name: discs, file: discs.npz}\n")
    assert main([
        str(tmp_path / "discs.yaml"), "--data-root", str(tmp_path), "--bundle", str(small_bundle), "--support-size",
        "4", "--draws", "2", "--threads", "1", "--output", str(tmp_path / "out.json"),
    ]) == 0
    rows = json.loads((tmp_path / "out.json").read_text())
    assert len(rows) == 8 and all(0 <= row[how] <= 1 for row in rows for how in HOWS)
    assert all(row["auto"] == row[row["took"]] for row in rows)
    said = capsys.readouterr().out
    assert "| discs |" in said and "Gain over off" in said
