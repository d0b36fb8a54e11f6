"""The trainer: it learns, goes on exactly where it was, survives being killed, and stops at what is not finite."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install torch")
yaml = pytest.importorskip("yaml", reason="pyyaml is not installed: pip install 'universeg_rt[train]'")
pytest.importorskip("safetensors", reason="safetensors is not installed: pip install 'universeg_rt[train]'")

from universeg_rt.errors import CheckpointError, InputError, TrainingError
from universeg_rt.training import ablation, cli, validate
from universeg_rt.training.checkpoint import load_checkpoint
from universeg_rt.training.config import DataConfig, NetworkConfig, Stage, TrainConfig, ValidationConfig, to_dict
from universeg_rt.training.episodes import EpisodeSource
from universeg_rt.training.feed import feed
from universeg_rt.training.schedule import steps
from universeg_rt.training.synthetic import SyntheticConfig
from universeg_rt.training.tasks import Task
from universeg_rt.training.train import BEST, LATEST, STATE, Trainer, soft_dice_loss
from universeg_rt.training.validate import dice, task_dice

pytestmark = pytest.mark.torch


def tiny(**changes):
    values = dict(
        network=NetworkConfig("v1", 4), stages=(Stage(samples=48, size=16, entries=(1, 3), queries=2, episodes=2),),
        data=DataConfig(real_probability=0.0), warmup_samples=4, checkpoint_samples=16)
    return TrainConfig(**{**values, **changes})


def real_task(count=12, size=32, name="squares", dataset=""):
    random = np.random.default_rng(0)
    images, labels = random.integers(0, 60, (count, size, size)).astype(np.uint8), np.zeros((count, size, size), np.uint8)
    for i in range(count):
        y, x = random.integers(2, size - 14, 2)
        labels[i, y : y + 11, x : x + 11] = 1
    return Task(name, images + 150 * labels, labels, np.array([f"s{i // 2}" for i in range(count)]), dataset)


def trained(config, output, tasks=(), held_out=(), **options):
    trainer = Trainer(config, list(tasks), list(held_out), output)
    trainer.resume()
    trainer.run(progress=False, **options)
    return trainer


def test_soft_dice_is_0_for_a_perfect_and_1_for_a_disjoint_prediction():
    target = torch.zeros(2, 1, 8, 8)
    target[:, :, :4] = 1.0
    assert float(soft_dice_loss((target - 0.5) * 200, target)) == pytest.approx(0.0, abs=1e-6)
    assert float(soft_dice_loss((0.5 - target) * 200, target)) == pytest.approx(1.0, abs=0.02)
    logits = torch.randn(2, 1, 8, 8, dtype=torch.float64)
    p = torch.sigmoid(logits.float()).double()
    expected = [1 - (2 * (p[i] * target[i]).sum() + 1) / ((p[i] ** 2).sum() + (target[i] ** 2).sum() + 1) for i in (0, 1)]
    assert float(soft_dice_loss(logits, target)) == pytest.approx(float(sum(expected) / 2), abs=1e-6)


def test_dice_counts_overlap():
    a, b = torch.zeros(4, 4, dtype=torch.bool), torch.zeros(4, 4, dtype=torch.bool)
    assert float(dice(a, b)) == 1.0
    a[:2], b[1:3] = True, True
    assert float(dice(a, b)) == 0.5 and float(dice(a, a)) == 1.0


def test_the_loss_falls_on_an_easy_task(tmp_path):
    """Bright squares on dark: one task, learned in seconds."""
    config = tiny(
        network=NetworkConfig("v1", 8),
        stages=(Stage(samples=640, size=16, entries=(1, 2), queries=4, episodes=2, learning_rate=5e-3),),
        data=DataConfig(real_probability=1.0, crop_probability=0.0, augment=dataclasses.replace(
            DataConfig().augment, use_task=False, use_in_task=False)))
    task = real_task()
    trainer = trained(config, tmp_path, [task.split("support")])
    losses = [float(row["loss"]) for row in csv.DictReader(open(tmp_path / "log.csv"))]
    assert np.mean(losses[-10:]) < 0.5 * np.mean(losses[:5])
    assert task_dice(trainer.model, task, 16, 2, 4, "test").mean() > 0.8


def test_an_interrupted_run_ends_with_the_same_weights_as_one_in_one_piece(tmp_path):
    config = tiny()
    whole = trained(config, tmp_path / "whole")
    trained(config, tmp_path / "parts", stop_after_samples=20)
    parts = trained(config, tmp_path / "parts")
    assert whole.samples == parts.samples == 48
    for key, value in whole.model.state_dict().items():
        assert torch.equal(value, parts.model.state_dict()[key]), key
        assert torch.equal(whole.average[key], parts.average[key]), key
    rows = list(csv.DictReader(open(tmp_path / "parts" / "log.csv")))
    assert [int(r["samples"]) for r in rows] == list(range(4, 49, 4))


def test_stages_follow_each_other_and_weights_carry_their_config(tmp_path):
    stages = (Stage(samples=8, size=16, entries=(1, 1), episodes=2, learning_rate=1e-3),
              Stage(samples=16, size=32, entries=(2, 2), episodes=2, learning_rate=1e-3, final_learning_rate=0.0))
    config = tiny(stages=stages)
    trained(config, tmp_path)
    rows = list(csv.DictReader(open(tmp_path / "log.csv")))
    assert [r["stage"] for r in rows] == ["0"] * 2 + ["1"] * 4
    assert [float(r["learning_rate"]) for r in rows[2:]] == pytest.approx([1e-3, 7.5e-4, 5e-4, 2.5e-4])
    spec, weights, metadata = load_checkpoint(tmp_path / LATEST)
    assert spec == config.network.spec() and json.loads(metadata["training_config"]) == to_dict(config)
    assert json.loads(metadata["samples"]) == 24


def test_the_best_weights_on_held_out_tasks_are_kept(tmp_path):
    config = tiny(validation=ValidationConfig(entries=2, queries=2, every_samples=16, split="dev"))
    trained(config, tmp_path, held_out=[real_task()])
    rows = list(csv.DictReader(open(tmp_path / "validation.csv")))
    assert [int(r["samples"]) for r in rows] == [16, 32, 48]
    _, _, metadata = load_checkpoint(tmp_path / BEST)
    best = max(rows, key=lambda r: float(r["mean"]))
    assert json.loads(metadata["samples"]) == int(best["samples"])
    assert json.loads(metadata["validation_dice"])["squares"] == pytest.approx(float(best["squares"]), abs=1e-5)


def test_validation_is_a_command_and_an_ensemble_of_one_support_changes_nothing(tmp_path, capsys):
    task = real_task()
    np.savez(tmp_path / "t.npz", images=task.images, labels=task.labels, ids=task.subjects)
    (tmp_path / "d.yaml").write_text("{name: d, licence: x, tasks: [{name: squares, file: t.npz}]}")
    trainer = trained(tiny(), tmp_path / "run")
    command = [str(tmp_path / "d.yaml"), "--data-root", str(tmp_path), "--size", "16", "--entries", "2", "--queries", "2"]
    assert validate.main([str(tmp_path / "run" / LATEST), *command]) == 0
    trainer.model.load_state_dict(trainer.average)
    expected = task_dice(trainer.model, dataclasses.replace(task, dataset="d"), 16, 2, 2, "test").mean()
    out = capsys.readouterr().out
    assert "samples seen 48" in out and float(out.split("squares")[1].split()[0]) == pytest.approx(expected, abs=6e-4)
    few = Task("few", task.images[[0, 2, 4]], task.labels[[0, 2, 4]], np.array(["a", "b", "c"]))  # one support entry
    assert np.array_equal(task_dice(trainer.model, few, 16, 1, 1, "test"), task_dice(trainer.model, few, 16, 1, 1, "test", 3))
    assert validate.main([str(tmp_path / "none.safetensors"), *command]) == 2


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_nan_stops_with_the_seed_and_keeps_the_last_good_state(tmp_path, monkeypatch, what):
    config = tiny()
    trained(config, tmp_path, stop_after_samples=16)
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
    assert trained(config, tmp_path).samples == 48


def test_a_write_that_fails_midway_leaves_the_old_state(tmp_path, monkeypatch):
    config = tiny()
    trained(config, tmp_path, stop_after_samples=16)
    good = (tmp_path / STATE).read_bytes()
    save = torch.save

    def half(state, file):
        file.write(b"half of it")
        raise KeyboardInterrupt
    monkeypatch.setattr(torch, "save", half)
    with pytest.raises(KeyboardInterrupt):
        trained(config, tmp_path)
    monkeypatch.setattr(torch, "save", save)
    assert (tmp_path / STATE).read_bytes() == good and not list(tmp_path.glob(".*tmp"))
    assert trained(config, tmp_path).samples == 48


def test_damaged_and_foreign_states_are_refused(tmp_path):
    config = tiny()
    trained(config, tmp_path, stop_after_samples=8)
    data = (tmp_path / STATE).read_bytes()
    for bad in (b"", data[: len(data) // 2], data[:-10], b"PK" + data[2:100]):
        (tmp_path / STATE).write_bytes(bad)
        with pytest.raises(CheckpointError, match="not a whole training state"):
            Trainer(config, [], [], tmp_path).resume()
    torch.save({"model": {}}, tmp_path / STATE)
    with pytest.raises(CheckpointError, match="this version"):
        Trainer(config, [], [], tmp_path).resume()
    (tmp_path / STATE).write_bytes(data)
    with pytest.raises(CheckpointError, match="another output folder"):
        Trainer(tiny(network=NetworkConfig("v1", 6)), [], [], tmp_path).resume()


def test_episodes_are_reproducible_and_share_no_subject_between_query_and_support():
    task = real_task()
    source = EpisodeSource(DataConfig(real_probability=1.0), [task])
    first, again, other = (source.batch([s], Stage(samples=1, size=32, entries=(3, 3))) for s in (1, 1, 2))
    assert torch.equal(first.query, again.query) and not torch.equal(first.query, other.query)
    assert first.query.shape == (1, 2, 1, 32, 32) and first.support_images.shape == (1, 3, 1, 32, 32)
    from universeg_rt.training.fields import Draw
    for seed in range(50):
        chosen = task.subjects[EpisodeSource._entries(Draw(seed), task, 2, 5).numpy()]
        assert not set(chosen[:2]) & set(chosen[2:])


def test_workers_draw_the_same_episodes_in_the_same_order():
    config = tiny()
    source = EpisodeSource(config.data, [])
    alone, helped = (list(feed(source, steps(config, 2, 8), workers)) for workers in (0, 2))
    assert [s for s, _ in alone] == [s for s, _ in helped] and len(alone) == 10 and alone[0][0].number == 2
    for (_, one), (_, other) in zip(alone, helped):
        assert len(one) == len(other) == 2
        assert all(torch.equal(a.query, b.query) and torch.equal(a.support_labels, b.support_labels)
                   for a, b in zip(one, other))


def test_processes_and_groupings_share_out_the_same_seeds():
    config = tiny(stages=(Stage(samples=64, size=16, queries=2, episodes=4),))
    one = list(steps(config, 0, 0, together=True))
    two = [list(steps(config, 0, 0, rank, 2)) for rank in (0, 1)]
    assert len(one) == len(two[0]) == 8
    for whole, *parts in zip(one, *two):
        assert sorted(whole.seeds) == sorted(parts[0].seeds + parts[1].seeds) and len(whole.groups) == 1
        assert whole.learning_rate == parts[0].learning_rate and len(parts[0].groups) == 2
    everything = [seed for step in one for seed in step.seeds]
    assert len(set(everything)) == len(everything) == 32


def test_a_log_is_cut_back_to_the_state_that_is_gone_on_from(tmp_path):
    config = tiny(checkpoint_samples=10_000)
    trained(config, tmp_path, stop_after_samples=8)
    with open(tmp_path / "log.csv", "a") as file:
        file.write("3,12,0,9,9,9,9\n4,16,0,9")
    trained(config, tmp_path)
    rows = list(csv.DictReader(open(tmp_path / "log.csv")))
    assert [int(r["step"]) for r in rows] == list(range(1, 13)) and all(float(r["loss"]) < 2 for r in rows)


def test_reduced_precision_trains_too(tmp_path):
    trainer = trained(tiny(autocast="bfloat16", channels_last=True, workers=1), tmp_path)
    losses = [float(row["loss"]) for row in csv.DictReader(open(tmp_path / "log.csv"))]
    assert trainer.samples == 48 and all(0 < x < 1 for x in losses)
    assert all(p.dtype == torch.float32 for p in trainer.model.parameters())


def test_support_sizes_cover_their_range_and_left_out_tasks_are_never_drawn():
    source = EpisodeSource(DataConfig(real_probability=0.0), [])
    stage = Stage(samples=1, size=16, entries=(1, 8), queries=1)
    sizes = {source.batch([s], stage).support_images.shape[1] for s in range(60)}
    assert min(sizes) == 1 and max(sizes) == 8
    tasks = [real_task(name="a"), real_task(name="b")]
    assert [t.name for t in EpisodeSource(DataConfig(leave_out=("b",)), tasks).tasks] == ["a"]
    with pytest.raises(InputError, match="no real task is left"):
        EpisodeSource(DataConfig(leave_out=("a", "b")), tasks)


def write_run(folder, samples=100_000):
    """A config file of a run without end, and the command that starts it."""
    config = tiny(stages=(Stage(samples=samples, size=16, entries=(1, 2), queries=1, episodes=1),), checkpoint_samples=1,
                  data=DataConfig(real_probability=0.0, synthetic=SyntheticConfig(families={"layers": 1.0})))
    (folder / "run.yaml").write_text(yaml.safe_dump(to_dict(config)))
    return [sys.executable, "-m", "universeg_rt.training.cli", str(folder / "run.yaml"), "--output", str(folder / "out"),
            "--threads", "1", "--no-progress"]


def wait_for(path, process, seconds=60):
    end = time.monotonic() + seconds
    while not path.exists() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.02)
    assert path.exists(), "the run wrote nothing"


def test_killed_at_any_moment_it_goes_on(tmp_path):
    """The state is written at every step, so most kills fall into a write."""
    command, seen = write_run(tmp_path), 0
    for delay in (0.0, 0.13):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        wait_for(tmp_path / "out" / LATEST, process)  # the first save is done
        time.sleep(delay + (0.0 if not seen else 3.0))  # the second time, importing takes the first seconds
        process.kill()
        process.wait()
        state = torch.load(tmp_path / "out" / STATE, weights_only=True)
        assert state["samples"] >= max(seen, 1)
        seen = state["samples"]
        load_checkpoint(tmp_path / "out" / LATEST)


def test_asked_to_stop_it_saves_and_ends_well(tmp_path):
    process = subprocess.Popen(write_run(tmp_path), stdout=subprocess.PIPE, text=True)
    wait_for(tmp_path / "out" / STATE, process)
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=30)
    assert process.returncode == 0 and "beginning at 0 samples" in out
    rows = list(csv.DictReader(open(tmp_path / "out" / "log.csv")))
    assert torch.load(tmp_path / "out" / STATE, weights_only=True)["samples"] == int(rows[-1]["samples"])


def test_the_script_for_short_loans_goes_on_from_what_it_left(tmp_path, training_folder):
    write_run(tmp_path)
    script, environment = training_folder / "train_for.sh", {**os.environ, "PYTHON": sys.executable}
    for previous, output in (("", "first"), ("first", "second")):
        done = subprocess.run(
            ["bash", script, "1", tmp_path / "run.yaml", tmp_path / output, tmp_path / previous if previous else "",
             "--stop-after", "5", "--threads", "1", "--no-progress"], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert not (tmp_path / output / STATE).exists() and (tmp_path / output / LATEST).exists()
    rows = list(csv.DictReader(open(tmp_path / "second" / "log.csv")))
    assert [int(r["samples"]) for r in rows] == list(range(1, 11))


def test_the_ablation_fills_its_table_once(tmp_path, capsys):
    task = real_task(30, name="squares")
    np.savez(tmp_path / "t.npz", images=task.images, labels=task.labels, ids=np.arange(30).astype(str))
    (tmp_path / "d.yaml").write_text("{name: d, licence: x, tasks: [{name: squares, file: t.npz}]}")
    (tmp_path / "h.yaml").write_text("{name: h, licence: x, tasks: [{name: held, file: t.npz}]}")
    (tmp_path / "c.yaml").write_text("data: {datasets: [d.yaml]}\nvalidation: {datasets: [h.yaml]}")
    command = [str(tmp_path / "c.yaml"), "--output", str(tmp_path / "out"), "--data-root", str(tmp_path), "--features", "2",
               "--size", "16", "--samples", "8", "--entries", "2", "--queries", "2"]
    assert ablation.main(command) == 0 and ablation.main(command) == 0
    rows = list(csv.DictReader(open(tmp_path / "out" / "ablation.csv")))
    assert [r["variant"] for r in rows] == list(ablation.VARIANTS) and all(0 <= float(r["mean"]) <= 1 for r in rows)
    assert ablation.main([str(tmp_path / "none.yaml"), "--output", str(tmp_path / "out")]) == 2
    assert "ablation: cannot read" in capsys.readouterr().err


def test_errors_are_one_line_and_status_2(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("UNIVERSEG_DATA", raising=False)
    assert cli.main([str(tmp_path / "none.yaml"), "--output", str(tmp_path / "o")]) == 2
    (tmp_path / "d.yaml").write_text("{name: d, licence: x, tasks: [{name: t, file: t.npz}]}")
    (tmp_path / "c.yaml").write_text("data: {datasets: [d.yaml]}")
    assert cli.main([str(tmp_path / "c.yaml"), "--output", str(tmp_path / "o")]) == 2
    assert cli.main([str(tmp_path / "c.yaml"), "--output", str(tmp_path / "o"), "--data-root", str(tmp_path)]) == 2
    (tmp_path / "h.yaml").write_text("data: {datasets: [d.yaml]}\nvalidation: {datasets: [d.yaml]}")
    task = real_task()
    np.savez(tmp_path / "t.npz", images=task.images, labels=task.labels, ids=task.subjects)
    assert cli.main([str(tmp_path / "h.yaml"), "--output", str(tmp_path / "o"), "--data-root", str(tmp_path)]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 4 and all(line.startswith("universeg-train: ") for line in lines)
    assert "none.yaml" in lines[0] and "--data-root" in lines[1] and "t.npz" in lines[2] and "held out" in lines[3]
    if not torch.cuda.is_available():
        (tmp_path / "g.yaml").write_text("data: {real_probability: 0}")
        assert cli.main([str(tmp_path / "g.yaml"), "--output", str(tmp_path / "o"), "--device", "cuda"]) == 2
        assert "sees no GPU" in capsys.readouterr().err


def test_two_processes_train_as_one(tmp_path):
    """torchrun with two CPU processes ends with the weights of one process that takes all the episodes itself."""
    stage = Stage(samples=16, size=16, entries=(2, 2), queries=1, episodes=4)
    config = tiny(stages=(stage,), checkpoint_samples=8)
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(to_dict(config)))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2",
               "-m", "universeg_rt.training.cli", str(tmp_path / "run.yaml"), "--output", str(tmp_path / "two"),
               "--threads", "1", "--no-progress"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    one = trained(config, tmp_path / "one")
    state = torch.load(tmp_path / "two" / STATE, weights_only=True)
    assert state["samples"] == one.samples == 16
    for key, value in one.model.state_dict().items():
        assert torch.allclose(state["model"][key], value, atol=1e-5), key
