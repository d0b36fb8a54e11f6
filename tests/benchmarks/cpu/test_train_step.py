"""The training step's benchmark: what it measures agrees, and what it writes is what it says."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("torch", reason="torch is not installed: pip install torch")

from universeg_rt.benchmarks.cpu.train_step import main
from universeg_rt.training.network import winograd

pytestmark = pytest.mark.torch


def test_sides_agree_and_are_timed(tmp_path, capsys):
    target = tmp_path / "step.json"
    assert main(["--size", "16", "--entries", "2", "--repeats", "2", "--json", str(target)]) == 0
    result = json.loads(target.read_text())
    sides = {"reference", "folded"} | ({"native"} if winograd._native else set())
    assert set(result["seconds"]) == sides and all(len(times) == 2 for times in result["seconds"].values())
    # A rounding error can turn a maximum or an activation the other way, which shows in the gradient at once.
    assert max(result["gradient_errors"].values()) < 2e-2
    printed = capsys.readouterr().out
    assert all(side in printed for side in sides)


def test_bad_counts_are_refused(capsys):
    assert main(["--repeats", "0"]) != 0
    assert "at least 1" in capsys.readouterr().err
