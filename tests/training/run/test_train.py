"""The trainer: it learns, goes on exactly where it was, survives being killed, and stops at what is not finite."""

from __future__ import annotations

import csv
import dataclasses
import json

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install torch")
yaml = pytest.importorskip("yaml", reason="pyyaml is not installed: pip install '.[train]'")
pytest.importorskip("safetensors", reason="safetensors is not installed: pip install '.[train]'")

from universeg_rt.errors import CheckpointError, InputError, TrainingError
from universeg_rt.training.episodes.config import DataConfig, Stage
from universeg_rt.training.episodes.episodes import EpisodeSource
from universeg_rt.training.network.checkpoint import load_checkpoint
from universeg_rt.training.run.config import NetworkConfig, ValidationConfig
from universeg_rt.training.run.feed import feed
from universeg_rt.training.run.schedule import steps
from universeg_rt.training.run.state import portable_config
from universeg_rt.training.run.train import BEST, LATEST, STATE, Trainer, segmentation_loss, soft_dice_loss
from universeg_rt.training.run.validate import task_dice
from universeg_rt.training.settings.values import to_dict

pytestmark = pytest.mark.torch


def test_soft_dice_is_0_for_a_perfect_and_1_for_a_disjoint_prediction():
    target = torch.zeros(2, 1, 8, 8)
    target[:, :, :4] = 1.0
    assert float(soft_dice_loss((target - 0.5) * 200, target)) == pytest.approx(0.0, abs=1e-6)
    assert float(soft_dice_loss((0.5 - target) * 200, target)) == pytest.approx(1.0, abs=0.02)
    logits = torch.randn(2, 1, 8, 8, dtype=torch.float64)
    p = torch.sigmoid(logits.float()).double()
    expected = [
        1 - (2 * (p[i] * target[i]).sum() + 1e-3) / ((p[i]**2).sum() + (target[i]**2).sum() + 1e-3) for i in (0, 1)
    ]
    assert float(soft_dice_loss(logits, target)) == pytest.approx(float(sum(expected) / 2), abs=1e-6)


def test_an_empty_mask_is_no_answer_to_a_tiny_target_and_the_right_one_to_an_absent_one():
    tiny = torch.zeros(1, 1, 128, 128)
    tiny[..., :2, :2] = 1.0
    assert float(soft_dice_loss(torch.full_like(tiny, -50.0), tiny)) > 0.99
    absent = torch.zeros_like(tiny)
    assert float(soft_dice_loss(torch.full_like(tiny, -50.0), absent)) < 1e-3
    much = torch.full_like(tiny, 2.0).requires_grad_()
    loss = soft_dice_loss(much, absent)
    loss.backward()
    few = torch.full_like(tiny, -8.0)
    few[..., :8, :8] = 2.0  # 64 wrong pixels
    assert float(loss) > 0.98 and float(much.grad.min()) > 0 and 0.3 < float(soft_dice_loss(few, absent)) < 0.6


def test_cross_entropy_moves_a_missed_thin_target_where_dice_hardly_does(kit):
    target = torch.zeros(1, 1, 16, 16)
    target[..., 8] = 1
    gradients = []
    for kind in ("dice", "dice_ce"):
        logits = torch.full_like(target, -8.0).requires_grad_()
        segmentation_loss(logits, target, kind).backward()
        gradients.append(float(logits.grad[..., 8].abs().mean()))
    assert gradients[1] > 20 * gradients[0] > 0
    assert torch.equal(segmentation_loss(logits, target), soft_dice_loss(logits, target))
    with pytest.raises(InputError, match="loss 'hinge'"):
        kit.tiny(loss="hinge")


def test_the_dual_loss_trains_exact_and_static_at_once(kit, tmp_path):
    config = kit.tiny(static_weight=0.5)
    trainer = kit.trained(config, tmp_path, stop_after_samples=8)
    step = next(iter(steps(config, 0, 0)))
    batch = trainer.source.batch(list(step.seeds), step.stage)
    exact, static = trainer.model(batch.query, batch.support_images, batch.support_labels, static=True)
    parts = [float(segmentation_loss(logits, batch.target)) for logits in (exact, static)]
    assert float(trainer.loss(batch)) == pytest.approx(sum(parts) / 2, abs=1e-6) and parts[0] != parts[1]
    with pytest.raises(InputError, match="static_weight needs 2 queries"):
        kit.tiny(static_weight=0.5, stages=(Stage(samples=8, size=16, queries=1),))


def test_the_loss_falls_on_an_easy_task(kit, tmp_path):
    """Bright squares on dark: one task, learned in seconds."""
    config = kit.tiny(
        network=NetworkConfig("v1", 8),
        stages=(Stage(samples=640, size=16, entries=(1, 2), queries=4, episodes=2, learning_rate=5e-3),),
        data=DataConfig(real_probability=1.0, crop_probability=0.0, augment=dataclasses.replace(
            DataConfig().augment, use_task=False, use_in_task=False)))
    task = kit.real_task()
    trainer = kit.trained(config, tmp_path, [task.split("support")])
    losses = [float(row["loss"]) for row in csv.DictReader(open(tmp_path / "log.csv"))]
    assert np.mean(losses[-10:]) < 0.5 * np.mean(losses[:5])
    assert task_dice(trainer.model, task, 16, 2, 4, "test") > 0.8


def test_an_interrupted_run_ends_with_the_same_weights_as_one_in_one_piece(kit, tmp_path):
    config = kit.tiny()
    whole = kit.trained(config, tmp_path / "whole")
    kit.trained(config, tmp_path / "parts", stop_after_samples=20)
    parts = kit.trained(config, tmp_path / "parts")
    assert whole.samples == parts.samples == 48
    for key, value in whole.model.state_dict().items():
        assert torch.equal(value, parts.model.state_dict()[key]), key
        assert torch.equal(whole.average[key], parts.average[key]), key
    rows = list(csv.DictReader(open(tmp_path / "parts" / "log.csv")))
    assert [int(r["samples"]) for r in rows] == list(range(4, 49, 4))


def test_stages_follow_each_other_and_weights_carry_their_config(kit, tmp_path):
    stages = (Stage(samples=8, size=16, entries=(1, 1), episodes=2, learning_rate=1e-3),
              Stage(samples=16, size=32, entries=(2, 2), episodes=2, learning_rate=1e-3, final_learning_rate=0.0))
    config = kit.tiny(stages=stages, warmup_steps=2)
    kit.trained(config, tmp_path)
    rows = list(csv.DictReader(open(tmp_path / "log.csv")))
    assert [r["stage"] for r in rows] == ["0"] * 2 + ["1"] * 4
    assert [float(r["learning_rate"]) for r in rows[2:]] == pytest.approx([1e-3, 7.5e-4, 5e-4, 2.5e-4])
    spec, weights, metadata = load_checkpoint(tmp_path / LATEST)
    assert spec == config.network.spec() and json.loads(metadata["training_config"]) == to_dict(config)
    assert json.loads(metadata["samples"]) == 24


def test_a_run_begins_from_weights_and_refuses_those_of_another_network(kit, tmp_path):
    config = kit.tiny()
    kit.trained(config, tmp_path / "first")
    _, weights, _ = load_checkpoint(tmp_path / "first" / LATEST)
    trainer = Trainer(config, [], [], tmp_path / "second")
    trainer.begin_from(tmp_path / "first" / LATEST)
    for key, value in weights.items():
        assert np.array_equal(trainer.model.state_dict()[key].numpy(), value)
        assert np.array_equal(trainer.average[key].numpy(), value)
    other = dataclasses.replace(config, network=NetworkConfig(features=3))
    with pytest.raises(CheckpointError, match="was asked for"):
        Trainer(other, [], [], tmp_path / "third").begin_from(tmp_path / "first" / LATEST)


def test_weights_do_not_tell_where_files_lie(kit, tmp_path):
    config = kit.tiny()
    config = dataclasses.replace(
        config, data=dataclasses.replace(config.data, datasets=(str(tmp_path / "sets" / "a.yaml"), ),
                                         data_root=str(tmp_path)))
    kept = portable_config(config)
    assert str(tmp_path) not in json.dumps(kept) and kept["data"]["datasets"] == ["a.yaml"]
    assert kept["stages"] == to_dict(config)["stages"]


def test_the_best_weights_on_held_out_tasks_are_kept(kit, tmp_path):
    config = kit.tiny(validation=ValidationConfig(entries=2, queries=2, every_samples=16, split="dev"))
    kit.trained(config, tmp_path, held_out=[kit.real_task()])
    rows = list(csv.DictReader(open(tmp_path / "validation.csv")))
    assert [int(r["samples"]) for r in rows] == [16, 32, 48]
    _, _, metadata = load_checkpoint(tmp_path / BEST)
    best = max(rows, key=lambda r: float(r["mean"]))
    assert json.loads(metadata["samples"]) == int(best["samples"])
    assert json.loads(metadata["validation_dice"])["squares"] == pytest.approx(float(best["squares"]), abs=1e-5)


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_nan_stops_with_the_seed_and_keeps_the_last_good_state(kit, tmp_path, monkeypatch, what):
    config = kit.tiny()
    kit.trained(config, tmp_path, stop_after_samples=16)
    good = (tmp_path / STATE).read_bytes()
    trainer = Trainer(config, [], [], tmp_path)
    trainer.resume()
    seeds = next(steps(config, trainer.step, trainer.samples)).seeds
    if what == "loss":
        loss = trainer.loss
        monkeypatch.setattr(trainer, "loss", lambda batch: loss(batch) * float("nan"))
    else:
        trainer.model.out_conv.conv.weight.register_hook(lambda g: g * float("inf"))
    with pytest.raises(TrainingError, match=f"{what} is .*{seeds[0]}"):
        trainer.run(progress=False)
    assert (tmp_path / STATE).read_bytes() == good
    assert kit.trained(config, tmp_path).samples == 48


def test_a_write_that_fails_midway_leaves_the_old_state(kit, tmp_path, monkeypatch):
    config = kit.tiny()
    kit.trained(config, tmp_path, stop_after_samples=16)
    good = (tmp_path / STATE).read_bytes()
    save = torch.save

    def half(state, file):
        file.write(b"half of it")
        raise KeyboardInterrupt
    monkeypatch.setattr(torch, "save", half)
    with pytest.raises(KeyboardInterrupt):
        kit.trained(config, tmp_path)
    monkeypatch.setattr(torch, "save", save)
    assert (tmp_path / STATE).read_bytes() == good and not list(tmp_path.glob(".*tmp"))
    assert kit.trained(config, tmp_path).samples == 48


def test_damaged_and_foreign_states_are_refused(kit, tmp_path):
    config = kit.tiny()
    kit.trained(config, tmp_path, stop_after_samples=8)
    data = (tmp_path / STATE).read_bytes()
    for bad in (b"", data[: len(data) // 2], data[:-10], b"PK" + data[2:100]):
        (tmp_path / STATE).write_bytes(bad)
        with pytest.raises(CheckpointError, match="a whole training state"):
            Trainer(config, [], [], tmp_path).resume()
    torch.save({"model": {}}, tmp_path / STATE)
    with pytest.raises(CheckpointError, match="this version"):
        Trainer(config, [], [], tmp_path).resume()
    (tmp_path / STATE).write_bytes(data)
    with pytest.raises(CheckpointError, match="another output folder"):
        Trainer(kit.tiny(network=NetworkConfig("v1", 6)), [], [], tmp_path).resume()


def test_episodes_are_reproducible_and_share_no_subject_between_query_and_support(kit):
    task = kit.real_task()
    source = EpisodeSource(DataConfig(real_probability=1.0), [task])
    first, again, other = (source.batch([s], Stage(samples=1, size=32, entries=(3, 3))) for s in (1, 1, 2))
    assert torch.equal(first.query, again.query) and not torch.equal(first.query, other.query)
    assert first.query.shape == (1, 2, 1, 32, 32) and first.support_images.shape == (1, 3, 1, 32, 32)
    from universeg_rt.training.episodes.fields import Draw
    for seed in range(50):
        chosen = task.subjects[EpisodeSource._entries(Draw(seed), task, 2, 5).numpy()]
        assert not set(chosen[:2]) & set(chosen[2:])


def test_workers_draw_the_same_episodes_in_the_same_order(kit):
    config = kit.tiny()
    source = EpisodeSource(config.data, [])
    alone, helped = (list(feed(source, steps(config, 2, 8), workers)) for workers in (0, 2))
    assert [s for s, _ in alone] == [s for s, _ in helped] and len(alone) == 10 and alone[0][0].number == 2
    for (_, one), (_, other) in zip(alone, helped):
        assert len(one) == len(other) == 2
        assert all(torch.equal(a.query, b.query) and torch.equal(a.support_labels, b.support_labels)
                   for a, b in zip(one, other))


@pytest.mark.filterwarnings("ignore:.*pin_memory")
def test_for_a_gpu_the_labels_come_as_bytes_and_the_loss_is_the_same(kit, tmp_path):
    config = kit.tiny(static_weight=0.5)
    trainer = Trainer(config, [], [], tmp_path)
    source = EpisodeSource(config.data, [])
    plain, packed = (next(iter(feed(source, steps(config, 2, 8), workers, pinned=bool(workers))))[1]
                     for workers in (0, 1))
    for one, other in zip(plain, packed):
        assert other.target.dtype == other.support_labels.dtype == torch.uint8
        assert torch.equal(one.target, other.target.float()) and torch.equal(one.query, other.query)
        assert torch.equal(one.support_labels, other.support_labels.float())
        assert trainer.loss(one).item() == trainer.loss(other).item()


def test_processes_and_groupings_share_out_the_same_seeds(kit):
    config = kit.tiny(stages=(Stage(samples=64, size=16, queries=2, episodes=4),))
    one = list(steps(config, 0, 0, together=True))
    two = [list(steps(config, 0, 0, rank, 2)) for rank in (0, 1)]
    assert len(one) == len(two[0]) == 8
    for whole, *parts in zip(one, *two):
        assert sorted(whole.seeds) == sorted(parts[0].seeds + parts[1].seeds) and len(whole.groups) == 1
        assert whole.learning_rate == parts[0].learning_rate and len(parts[0].groups) == 2
    everything = [seed for step in one for seed in step.seeds]
    assert len(set(everything)) == len(everything) == 32


def test_a_log_is_cut_back_to_the_state_that_is_gone_on_from(kit, tmp_path):
    config = kit.tiny(checkpoint_samples=10_000)
    kit.trained(config, tmp_path, stop_after_samples=8)
    with open(tmp_path / "log.csv", "a") as file:
        file.write("3,12,0,9,9,9,9\n4,16,0,9")
    kit.trained(config, tmp_path)
    rows = list(csv.DictReader(open(tmp_path / "log.csv")))
    assert [int(r["step"]) for r in rows] == list(range(1, 13)) and all(float(r["loss"]) < 2 for r in rows)


def test_reduced_precision_trains_too(kit, tmp_path):
    trainer = kit.trained(kit.tiny(autocast="bfloat16", channels_last=True, workers=1), tmp_path)
    losses = [float(row["loss"]) for row in csv.DictReader(open(tmp_path / "log.csv"))]
    assert trainer.samples == 48 and all(0 < x < 1 for x in losses)
    assert all(p.dtype == torch.float32 for p in trainer.model.parameters())


def test_support_sizes_cover_their_range_and_left_out_tasks_are_never_drawn(kit):
    source = EpisodeSource(DataConfig(real_probability=0.0), [])
    stage = Stage(samples=1, size=16, entries=(1, 8), queries=1)
    sizes = {source.batch([s], stage).support_images.shape[1] for s in range(60)}
    assert min(sizes) == 1 and max(sizes) == 8
    tasks = [kit.real_task(name="a"), kit.real_task(name="b")]
    assert [t.name for t in EpisodeSource(DataConfig(leave_out=("b",)), tasks).tasks] == ["a"]
    with pytest.raises(InputError, match="no real task is left"):
        EpisodeSource(DataConfig(leave_out=("a", "b")), tasks)


def test_a_stage_may_ask_for_targets_of_a_size(kit):
    source = EpisodeSource(DataConfig(real_probability=0.0), [])
    plain, small, large = (Stage(samples=8, size=16, entries=(2, 2), target_share=share)
                           for share in ((0.0, 1.0), (0.0, 0.08), (0.2, 1.0)))
    means = [
        np.mean([
            float(b.target.mean() + b.support_labels.mean()) / 2 for b in (source.batch([s], stage) for s in range(12))
        ]) for stage in (small, large)
    ]
    assert means[0] < 0.1 < 0.2 < means[1]
    again = source.batch([3], large)
    assert torch.equal(again.target, source.batch([3], large).target)
    assert torch.equal(source.batch([3], plain).query[0], source.episode(3, 16, 2, 2)[0][:2])
