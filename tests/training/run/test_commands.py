"""The commands of training: killed, asked to stop, in two processes, for short loans, and wrongly called."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install torch")
yaml = pytest.importorskip("yaml", reason="pyyaml is not installed: pip install '.[train]'")
pytest.importorskip("safetensors", reason="safetensors is not installed: pip install '.[train]'")

from universeg_rt.training.episodes.config import Stage
from universeg_rt.training.network.checkpoint import load_checkpoint
from universeg_rt.training.run import cli
from universeg_rt.training.run.train import FINISHED, LATEST, STATE
from universeg_rt.training.settings.values import to_dict

pytestmark = pytest.mark.torch


def wait_for(path, process, seconds=60):
    end = time.monotonic() + seconds
    while not path.exists() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.02)
    assert path.exists(), "the run wrote nothing"


def with_workers(file):
    """Let two processes draw the run's episodes."""
    file.write_text(yaml.safe_dump({**yaml.safe_load(file.read_text()), "workers": 2}))


def unpack(output):
    """What train_for.sh left, beside its folder."""
    subprocess.run(f"cat {output}/run.tar.part* | tar -x", shell=True, check=True, cwd=output.parent)


def test_killed_at_any_moment_it_goes_on(kit, tmp_path):
    """The state is written at every step, so most kills fall into a write."""
    command, seen = kit.write_run(tmp_path), 0
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


def test_asked_to_stop_it_saves_and_ends_well(kit, tmp_path):
    process = subprocess.Popen(kit.write_run(tmp_path), stdout=subprocess.PIPE, text=True)
    wait_for(tmp_path / "out" / STATE, process)
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=30)
    assert process.returncode == 0 and "beginning at 0 samples" in out
    rows = list(csv.DictReader(open(tmp_path / "out" / "log.csv")))
    assert torch.load(tmp_path / "out" / STATE, weights_only=True)["samples"] == int(rows[-1]["samples"])


def test_the_script_for_short_loans_goes_on_from_what_it_left(kit, tmp_path, training_folder):
    kit.write_run(tmp_path)
    script, environment = training_folder / "run" / "train_for.sh", {**os.environ, "PYTHON": sys.executable}
    for previous, output in (("", "first"), ("first", "second")):
        done = subprocess.run(
            ["bash", script, "1", tmp_path / "run.yaml", tmp_path / output, tmp_path / previous if previous else "",
             "--stop-after", "5", "--threads", "1", "--no-progress"], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert not (tmp_path / output / "run").exists() and 1 <= len(list((tmp_path / output).iterdir())) <= 8
    unpack(tmp_path / "second")
    assert (tmp_path / STATE).is_file() and (tmp_path / LATEST).is_file()
    rows = list(csv.DictReader(open(tmp_path / "log.csv")))
    assert [int(r["samples"]) for r in rows] == list(range(1, 11))


def test_the_script_runs_on_a_bare_checkout_and_stops_at_its_time(kit, tmp_path, training_folder):
    """With nothing of the project on the path, and two processes that draw episodes, which no signal may end first."""
    kit.write_run(tmp_path)
    with_workers(tmp_path / "run.yaml")
    (tmp_path / "bare.py").write_text(  # runs a script as python does, without the finder of an editable installation
        "import os, runpy, sys\n"
        "sys.meta_path[:] = [f for f in sys.meta_path if 'editable' not in str(f).lower()]\n"
        "del sys.argv[0]\n"
        "sys.path[0] = os.path.dirname(sys.argv[0])\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')\n")
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\nexec {sys.executable} {tmp_path / 'bare.py'} \"$@\"\n")
    python.chmod(0o755)
    done = subprocess.run([
        "bash", training_folder / "run" / "train_for.sh", "0.4", tmp_path / "run.yaml", tmp_path / "out", "",
        "--threads", "1", "--no-progress"
    ], env={**os.environ, "PYTHON": str(python)}, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    unpack(tmp_path / "out")
    rows = list(csv.DictReader(open(tmp_path / "log.csv")))
    assert torch.load(tmp_path / STATE, weights_only=True)["samples"] == int(rows[-1]["samples"]) > 0


@pytest.mark.slow
def test_the_script_brings_the_run_to_an_end_and_goes_on_after_kills(kit, tmp_path, training_folder):
    """Killed with all its processes while it trains, then called again with a time to finish in."""
    kit.write_run(tmp_path)
    environment = {**os.environ, "PYTHON": sys.executable, "FINISH_MINUTES": "0.3"}
    call = ["bash", training_folder / "run" / "train_for.sh", "0.7", tmp_path / "run.yaml", tmp_path / "out", "",
            "--threads", "1", "--no-progress"]
    process = subprocess.Popen(call, env=environment, stdout=subprocess.DEVNULL, start_new_session=True)
    wait_for(tmp_path / "out" / "run" / LATEST, process)
    twice = subprocess.run(call, env=environment, capture_output=True, text=True)
    assert twice.returncode == 1 and "is still being trained" in twice.stderr
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    # The others of the group hold the lock until they have ended too.
    subprocess.run(["flock", tmp_path / "out" / "lock", "true"], check=True, timeout=60)
    seen = torch.load(tmp_path / "out" / "run" / STATE, weights_only=True)["samples"]
    done = subprocess.run(call, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    unpack(tmp_path / "out")
    assert torch.load(tmp_path / STATE, weights_only=True)["samples"] > seen > 0
    load_checkpoint(tmp_path / FINISHED)
    rows = list(csv.DictReader(open(tmp_path / "log.csv")))
    assert float(rows[-1]["learning_rate"]) < 0.2 * max(float(r["learning_rate"]) for r in rows)


def test_a_signal_to_the_whole_group_saves_too(kit, tmp_path):
    """As `timeout` sends it: to the run and to the processes that draw its episodes."""
    command = kit.write_run(tmp_path)
    with_workers(tmp_path / "run.yaml")
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                               start_new_session=True)
    wait_for(tmp_path / "out" / STATE, process)
    os.killpg(process.pid, signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 0, said
    rows = list(csv.DictReader(open(tmp_path / "out" / "log.csv")))
    assert torch.load(tmp_path / "out" / STATE, weights_only=True)["samples"] == int(rows[-1]["samples"])


def test_a_run_that_fails_leaves_what_it_had(kit, tmp_path, training_folder):
    kit.write_run(tmp_path)
    script, environment = training_folder / "run" / "train_for.sh", {**os.environ, "PYTHON": sys.executable}
    call = [
        "bash", script, "1", tmp_path / "run.yaml", tmp_path / "first", "", "--stop-after", "2", "--threads", "1",
        "--no-progress"
    ]
    assert subprocess.run(call, env=environment, capture_output=True).returncode == 0
    call[4], call[5] = tmp_path / "second", tmp_path / "first"
    done = subprocess.run([*call, "--device", "cuda:99"], env=environment, capture_output=True, text=True)
    assert done.returncode != 0
    unpack(tmp_path / "second")
    assert torch.load(tmp_path / STATE, weights_only=True)["samples"] == 2


def test_errors_are_one_line_and_status_1(kit, tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("UNIVERSEG_RT_DATA", raising=False)
    assert cli.main([str(tmp_path / "none.yaml"), "--output", str(tmp_path / "o")]) == 1
    (tmp_path / "d.yaml").write_text("{name: d, licence: x, tasks: [{name: t, file: t.npz}]}")
    (tmp_path / "c.yaml").write_text("data: {datasets: [d.yaml]}")
    assert cli.main([str(tmp_path / "c.yaml"), "--output", str(tmp_path / "o")]) == 1
    assert cli.main([str(tmp_path / "c.yaml"), "--output", str(tmp_path / "o"), "--data-root", str(tmp_path)]) == 1
    (tmp_path / "h.yaml").write_text("data: {datasets: [d.yaml]}\nvalidation: {datasets: [d.yaml]}")
    task = kit.real_task()
    np.savez(tmp_path / "t.npz", images=task.images, labels=task.labels, ids=task.subjects)
    assert cli.main([str(tmp_path / "h.yaml"), "--output", str(tmp_path / "o"), "--data-root", str(tmp_path)]) == 1
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 4 and all(line.startswith("universeg-train: ") for line in lines)
    assert "none.yaml" in lines[0] and "--data-root" in lines[1] and "t.npz" in lines[2] and "held out" in lines[3]
    if not torch.cuda.is_available():
        (tmp_path / "g.yaml").write_text("data: {real_probability: 0}")
        assert cli.main([str(tmp_path / "g.yaml"), "--output", str(tmp_path / "o"), "--device", "cuda"]) == 1
        assert "sees no GPU" in capsys.readouterr().err


def test_two_processes_train_as_one(kit, tmp_path):
    """torchrun with two CPU processes ends with the weights of one process that takes all the episodes itself."""
    stage = Stage(samples=16, size=16, entries=(2, 2), queries=1, episodes=4)
    config = kit.tiny(stages=(stage,), checkpoint_samples=8)
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(to_dict(config)))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2",
               "-m", "universeg_rt.training.run.cli", str(tmp_path / "run.yaml"), "--output", str(tmp_path / "two"),
               "--threads", "1", "--no-progress"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120,
                          env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    one = kit.trained(config, tmp_path / "one")
    state = torch.load(tmp_path / "two" / STATE, weights_only=True)
    assert state["samples"] == one.samples == 16
    for key, value in one.model.state_dict().items():
        assert torch.allclose(state["model"][key], value, atol=1e-5), key
