"""Rates of training where no step was made in time."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("torch", reason="the rates are PyTorch's")
pytest.importorskip("yaml", reason="a run's config is YAML")

from universeg_rt.benchmarks.gpu.steps import training_rates

pytestmark = pytest.mark.torch


def test_a_stage_without_a_step_is_written_as_one(training, tmp_path, monkeypatch):
    monkeypatch.setattr(training_rates, "feed", lambda *_, **__: iter(()))
    out = tmp_path / "training.json"
    assert training_rates.main([str(training[1]), "--out", str(out), "--device", "cpu"]) == 0
    (stage,) = json.loads(out.read_text())["stages"]
    assert stage["steps"] == 0 and stage["losses"] == [] and stage["samples_per_second"] is None


def test_where_the_first_episodes_do_not_come_there_is_a_file(training, tmp_path, monkeypatch):
    out = tmp_path / "training.json"

    def ended(*given):
        assert json.loads(out.read_text()) == {"stages": [], "whole": False}
        raise KeyboardInterrupt

    monkeypatch.setattr(training_rates, "load_config", ended)
    training_rates.main([str(training[1]), "--out", str(out), "--device", "cpu"])
    assert json.loads(out.read_text())["whole"] is False
