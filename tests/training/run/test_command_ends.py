"""How universeg-train ends where it cannot write, where its reader is gone, and where it is interrupted while it is
imported."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install torch")
yaml = pytest.importorskip("yaml", reason="pyyaml is not installed: pip install '.[train]'")

from universeg_rt.errors import OutputError
from universeg_rt.training.run import cli
from universeg_rt.training.run.log import STEPS, RunLog
from universeg_rt.training.settings.values import to_dict

pytestmark = pytest.mark.torch


@pytest.fixture
def config(kit, tmp_path):
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(to_dict(kit.tiny())))
    return tmp_path / "c.yaml"


@pytest.mark.parametrize("output", ["file", "file/below", "/proc/none", "a\0b"])
def test_a_target_that_cannot_be_written_is_said_before_anything_is_read(config, tmp_path, capsys, monkeypatch, output):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr("universeg_rt.training.run.train.Trainer.run", lambda *_, **__: pytest.fail("the run began"))
    assert cli.main([str(config), "--output", str(tmp_path / output)]) == 1
    said = capsys.readouterr().err
    assert said.startswith("universeg-train: cannot write") and said.count("\n") == 1


@pytest.mark.parametrize("words, message", [
    (["--threads", "-1"], "threads is -1; give an integer from 1 to"),
    (["--stop-after", "0"], "give at least 1 sample"),
    (["--device", "meta"], "--device 'meta': accepted are cpu"),
    (["--device", "cuda:999"], "torch sees no GPU"),
])
def test_options_out_of_range(config, tmp_path, capsys, words, message):
    assert cli.main([str(config), "--output", str(tmp_path / "o"), *words]) == 1
    assert message in capsys.readouterr().err


def test_an_environment_that_torchrun_did_not_make(config, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "two")
    assert cli.main([str(config), "--output", str(tmp_path / "o")]) == 1
    assert "WORLD_SIZE='two'" in capsys.readouterr().err
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert cli.main([str(config), "--output", str(tmp_path / "o")]) == 1
    assert "start them with torchrun" in capsys.readouterr().err


def test_logs_that_are_no_files_and_hold_no_text(tmp_path):
    os.mkfifo(tmp_path / STEPS)
    with pytest.raises(OutputError, match="is a pipe or a device"):
        RunLog(tmp_path)
    (tmp_path / STEPS).unlink()
    (tmp_path / STEPS).write_bytes(b"step,loss\n1,0.5\n\xff\xfe,1\n")
    RunLog(tmp_path, step=1).close()
    assert (tmp_path / STEPS).read_text() == "step,loss\n1,0.5\n"


def test_a_reader_that_is_gone_ends_it_quietly(config, tmp_path):
    process = subprocess.Popen([
        sys.executable, "-W", "ignore", "-m", "universeg_rt.training.run.cli",
        str(config), "--output",
        str(tmp_path / "o"), "--no-progress"
    ], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    assert process.stderr.read() == b"" and process.wait(60) == 128 + signal.SIGPIPE


def test_an_interruption_while_torch_is_imported_is_one_line(config, tmp_path):
    (tmp_path /
     "torch.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\nimport time\ntime.sleep(30)\n")
    done = subprocess.run(
        [sys.executable, "-m", "universeg_rt.training.run.cli",
         str(config), "--output",
         str(tmp_path / "o")], capture_output=True, text=True, timeout=60,
        env={**os.environ, "PYTHONPATH": str(tmp_path)})
    assert done.returncode == 128 + signal.SIGINT and done.stderr == "universeg-train: interrupted\n"
