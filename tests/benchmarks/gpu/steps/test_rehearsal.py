"""Every step of the sequence on the CPU at toy sizes, from a bare copy of the tree, killed at random moments too."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="the steps need torch")
yaml = pytest.importorskip("yaml", reason="the steps need pyyaml")
pytest.importorskip("onnx", reason="emitting the models needs onnx")

from universeg_rt.benchmarks.gpu.steps import beforehand, step
from universeg_rt.checkout import ROOT
from universeg_rt.training.episodes.config import DataConfig, Stage
from universeg_rt.training.episodes.synthetic import SyntheticConfig
from universeg_rt.training.network.checkpoint import load_checkpoint
from universeg_rt.training.settings.values import to_dict

from ....training.conftest import kit  # noqa: F401  fixture

pytestmark = [pytest.mark.torch, pytest.mark.slow]
# As python starts a script, without the finder of an editable installation.
BARE = """import os, runpy, sys
sys.meta_path[:] = [f for f in sys.meta_path if 'editable' not in str(f).lower()]
sys.path[0] = os.path.dirname(sys.argv[1])
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name='__main__')
"""


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    """What is uploaded of the project."""
    target = tmp_path_factory.mktemp("bare")
    for path in beforehand.tracked(ROOT):
        to = target / path.relative_to(ROOT)
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, to)
    return target


@pytest.fixture(scope="module")
def config(tmp_path_factory, kit) -> Path:
    values = kit.tiny(stages=(Stage(samples=10**6, size=16, entries=(1, 2), queries=2, episodes=1),), static_weight=0.5,
                      checkpoint_samples=2, data=DataConfig(real_probability=0.0, synthetic=SyntheticConfig(
                          families={"layers": 1.0})))
    path = tmp_path_factory.mktemp("config") / "tiny.yaml"
    path.write_text(yaml.safe_dump(to_dict(values)))
    return path


def start(tree: Path, name: str, out: Path, *words: object) -> subprocess.Popen:
    (tree / "bare.py").write_text(BARE)
    return subprocess.Popen([sys.executable, tree / "bare.py", tree / "benchmarks" / "gpu" / "steps" / f"{name}.py",
                             "--out", out, "--work", out.parent / "work", "--device", "cpu", *map(str, words)],
                            cwd=out.parent, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                            env={**os.environ, "OMP_NUM_THREADS": "1"})


def lines(out: Path, name: str) -> dict[str, dict]:
    """The last line of each kind; all of them must be whole."""
    return {line["what"]: line for line in map(json.loads, (out / f"{name}.jsonl").read_text().splitlines())}


def check(out: Path) -> None:
    found = [path for path in out.rglob("*") if path.is_file()]
    assert 1 <= len(found) <= step.FILES and all(path.stat().st_size <= step.BYTES for path in found)
    for path in out.glob("*.json"):
        json.loads(path.read_text())


def training(config: Path) -> list[object]:
    return ["--config", config, "--weights", "none", "--data-root", "unused"]


def test_the_tree_leaves_room_in_an_upload():
    assert beforehand.size_of(beforehand.tracked(ROOT)) < beforehand.UPLOAD // 3


def test_a1_measures_and_ends_in_time(tree, config, tmp_path):
    began = time.monotonic()
    process = start(tree, "a1", tmp_path / "out", *training(config), "--seconds", 120)
    assert process.wait(150) == 0, (lines(tmp_path / "out", "a1"), process.stderr.read())
    check(tmp_path / "out")
    said = lines(tmp_path / "out", "a1")
    assert {"compare", "convolutions", "training"} <= set(said) and time.monotonic() - began < 125
    stage = json.loads((tmp_path / "out" / "training.json").read_text())["stages"][0]
    assert stage["steps"] and stage["operators"]
    rows = json.loads((tmp_path / "out" / "compare.json").read_text())["steps"]["timing"]["rows"]
    assert {"reference fp16 nhwc", "folded torch fp16 nhwc"} <= {row["contender"] for row in rows}


def test_training_starts_outlives_its_step_and_comes_home(tree, config, tmp_path):
    process = start(tree, "b1", tmp_path / "one", *training(config), "--minutes", 5, "--finish", 0.1, "--seconds", 60)
    state, home = tmp_path / "work" / "training" / "run" / "state.pt", tmp_path / "two"
    while not state.exists() and process.poll() is None:
        time.sleep(0.05)
    time.sleep(random.random())
    process.kill()  # at a random moment; the training goes on
    process.wait()
    assert lines(tmp_path / "one", "b1")["begin"]
    seen = torch.load(state, weights_only=True)["samples"]
    again = start(tree, "b6", home, "--seconds", 45)
    assert again.wait(60) == 0, again.stderr.read()
    check(home)
    assert lines(home, "b6")["training"]["ended"] == "asked to"
    subprocess.run(f"cat {home}/run.tar.part* | tar -x", shell=True, check=True, cwd=tmp_path)
    assert torch.load(tmp_path / "state.pt", weights_only=True)["samples"] >= seen > 0
    load_checkpoint(tmp_path / "latest.safetensors")


def test_a_runtime_comes_in_pieces_and_all_is_compared(tree, tmp_path, monkeypatch):
    upload, runtime = tmp_path / "upload", tmp_path / "runtime"
    runtime.mkdir()
    (runtime / "brought_along.py").write_text("VALUE = 1\n" + f"# {random.random()}\n" * 200)
    upload.mkdir()
    monkeypatch.setattr(beforehand, "PIECE_BYTES", 200)
    pieces = beforehand.pack(runtime, upload / "own.tar.xz")
    assert len(pieces) > 1
    beforehand.PARTS["tasks"](type("Options", (), {"upload": upload}))
    for number, some in enumerate((pieces[:1], pieces[1:])):
        process = start(tree, "b2", tmp_path / f"out{number}", "--upload", upload, "--seconds", 110, *some)
        assert process.wait(130) == 0, process.stderr.read()
        check(tmp_path / f"out{number}")
    assert (tmp_path / "work" / "runtimes" / "own" / "brought_along.py").is_file()
    process = start(tree, "b7", tmp_path / "b7", "--upload", upload, "--seconds", 100)
    assert process.wait(120) == 0, (lines(tmp_path / "b7", "b7"), process.stderr.read())
    check(tmp_path / "b7")
    frozen = json.loads((tmp_path / "b7" / "frozen.json").read_text())["tasks"]
    assert set(frozen) == {"task.onnx", "task_fp16.onnx"}
    assert {"native", "onnxruntime"} <= set(frozen["task.onnx"]["right"])


def test_killed_at_any_moment_what_was_written_is_whole_and_nothing_runs_on(tree, config, tmp_path):
    process = start(tree, "a1", tmp_path / "out", *training(config), "--seconds", 100)
    end = time.monotonic() + 1 + 5 * random.random()
    while time.monotonic() < end and process.poll() is None:
        time.sleep(0.1)
    process.kill()
    process.wait()
    lines(tmp_path / "out", "a1")
    check(tmp_path / "out")
    time.sleep(0.5)
    running = subprocess.run(["pgrep", "-f", str(tmp_path / "out")], capture_output=True, text=True).stdout.split()
    for pid in running:
        os.kill(int(pid), signal.SIGKILL)
    assert not running


def test_a_part_that_does_not_end_is_ended_and_too_many_files_become_one(tmp_path, monkeypatch):
    (tmp_path / "endless.py").write_text("import time\nprint('begun', flush=True)\ntime.sleep(600)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(step, "GRACE", 0.5)
    run = step.Step("x", tmp_path / "out", tmp_path / "work", 60, "cpu", tmp_path)
    assert not run.part("endless", "endless", seconds=3, limit="")
    for number in range(20):
        (run.out / f"{number}.json").write_text("{}")
    (run.out / "large.bin").write_bytes(os.urandom(step.BYTES + 1))
    run.close()
    check(run.out)
    assert lines(run.out, "x")["endless"]["said"] == ["begun"] and lines(run.out, "x")["end"]["files"] == 3
    subprocess.run(f"cat {run.out}/results.tar.* | tar -x", shell=True, check=True, cwd=tmp_path)
    assert (tmp_path / "19.json").is_file() and (tmp_path / "large.bin").stat().st_size == step.BYTES + 1
