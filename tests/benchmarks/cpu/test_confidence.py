"""The measurement of signals of confidence: its statistics by hand, and a run on a made-up data set."""

from __future__ import annotations

import json

import numpy as np
import pytest

pytest.importorskip("torch", reason="data sets are read by the training package: pip install '.[train]'")
pytest.importorskip("yaml", reason="data sets are read by the training package: pip install '.[train]'")

from universeg_rt.benchmarks.cpu.confidence import CANDIDATES, agreement, inside, main, mean_spread

from ...conftest import disc_data_set


def test_candidates_by_hand():
    members = np.array([[[0.9, 0.8, 0.1]], [[0.7, 0.4, 0.1]]])  # mean 0.8, 0.6, 0.1
    assert inside(members) == pytest.approx(0.7)
    assert agreement(members) == pytest.approx((1 + 2 / 3) / 2)
    assert mean_spread(members) == pytest.approx(-0.1)
    assert CANDIDATES["expected Dice"](members) == pytest.approx(2 * 1.4 / (1.5 + 2))


def test_the_command_measures_every_candidate(tmp_path, small_bundle, capsys):
    data_set = disc_data_set(tmp_path)
    assert (
        main(
            [
                str(data_set),
                "--data-root",
                str(tmp_path),
                "--bundle",
                str(small_bundle),
                "--support-size",
                "3",
                "--members",
                "2",
                "--draws",
                "2",
                "--threads",
                "1",
                "--output",
                str(tmp_path / "out.json"),
            ]
        )
        == 0
    )
    result = json.loads((tmp_path / "out.json").read_text())
    assert set(result["summary"]) == set(CANDIDATES) and len(result["rows"]) == 8
    assert all(0 <= row["expected Dice"] <= 1 for row in result["rows"])
    assert "| expected Dice |" in capsys.readouterr().out
