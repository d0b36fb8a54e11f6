"""How runs begin and end: from weights, finished early, collapsed, broken off; and what each step is."""

from __future__ import annotations

import csv

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install torch")
yaml = pytest.importorskip("yaml", reason="pyyaml is not installed: pip install '.[train]'")
pytest.importorskip("safetensors", reason="safetensors is not installed: pip install '.[train]'")

from universeg_rt.errors import InputError, TrainingError
from universeg_rt.training.episodes.config import Stage
from universeg_rt.training.network.checkpoint import load_checkpoint
from universeg_rt.training.run.schedule import steps
from universeg_rt.training.run.train import FINISHED, LATEST, STATE, Trainer

pytestmark = pytest.mark.torch


def test_a_finished_run_has_weights_and_can_still_go_on(kit, tmp_path):
    config = kit.tiny()
    kit.trained(config, tmp_path, stop_after_samples=16)
    before = (tmp_path / STATE).read_bytes()
    kit.trained(config, tmp_path, finish_samples=16)
    rates = [float(row["learning_rate"]) for row in csv.DictReader(open(tmp_path / "log.csv"))]
    assert rates[-4:] == pytest.approx([1e-3, 7.5e-4, 5e-4, 2.5e-4]) and (tmp_path / STATE).read_bytes() == before
    _, weights, metadata = load_checkpoint(tmp_path / FINISHED)
    assert metadata["samples"] == "32"
    whole, again = (kit.trained(config, folder).average for folder in (tmp_path / "whole", tmp_path))
    assert all(torch.equal(whole[key], again[key]) for key in whole)


def test_a_collapsed_run_stops_and_keeps_the_state_from_before(kit, tmp_path, monkeypatch):
    config = kit.tiny(stages=(Stage(samples=4000, size=16, entries=(1, 2), queries=2, episodes=2), ),
                      checkpoint_samples=4)
    kit.trained(config, tmp_path, stop_after_samples=8)
    monkeypatch.setattr(Trainer, "loss", lambda self, batch: 0.0 * sum(p.sum() for p in self.model.parameters()))
    with pytest.raises(TrainingError, match="collapsed"):
        kit.trained(config, tmp_path)
    monkeypatch.undo()
    state = torch.load(tmp_path / STATE, weights_only=True)
    assert state["samples"] == 8 and kit.trained(config, tmp_path, stop_after_samples=8).samples == 16


def test_the_average_of_weights_begun_from_is_kept(kit, tmp_path):
    stage = Stage(samples=48, size=16, entries=(1, 2), queries=2, episodes=2, average_samples=1e6)
    kit.trained(kit.tiny(), tmp_path / "first")
    trainer = Trainer(kit.tiny(stages=(stage,)), [], [], tmp_path / "second")
    trainer.begin_from(tmp_path / "first" / LATEST)
    before = {key: value.clone() for key, value in trainer.average.items()}
    trainer.run(progress=False, stop_after_samples=8)
    far = max(float((trainer.average[key] - before[key]).abs().max()) for key in before)
    moved = max(float((trainer.model.state_dict()[key] - before[key]).abs().max()) for key in before)
    assert far < 1e-4 * moved
    trainer = Trainer(kit.tiny(stages=(stage,)), [], [], tmp_path / "second")
    assert trainer.resume() and trainer.begun_from_weights


def test_a_failure_between_steps_saves_what_was_learnt(kit, tmp_path, monkeypatch):
    class Broken:
        def __init__(self, *_): ...
        def row(self, **values):
            if values["step"] == 3:
                raise OSError("no space left")
        def close(self): ...
    monkeypatch.setattr("universeg_rt.training.run.train.RunLog", Broken)
    with pytest.raises(OSError, match="no space"):
        kit.trained(kit.tiny(checkpoint_samples=10_000), tmp_path)
    assert torch.load(tmp_path / STATE, weights_only=True)["step"] == 3


def test_warm_up_counts_steps(kit):
    rates = [s.learning_rate for s in steps(kit.tiny(warmup_steps=4), 0, 0)]
    assert rates[:5] == pytest.approx([2.5e-4, 5e-4, 7.5e-4, 1e-3, 1e-3])


def test_episodes_are_shared_out_evenly_or_refused(kit):
    config = kit.tiny(stages=(Stage(samples=48, size=16, queries=2, episodes=4),))
    with pytest.raises(InputError, match="4 episodes a step are not divisible among 3 processes"):
        next(iter(steps(config, 0, 0, 0, 3)))
