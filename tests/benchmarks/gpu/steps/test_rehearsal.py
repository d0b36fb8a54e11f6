"""Every step on the CPU at toy sizes: from a bare copy of the tree in processes of its own, killed at random moments
too; those whose parts are rehearsed so already, in this process. What a1 has alone: test_convolutions.py."""

from __future__ import annotations

import importlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="the steps need torch")
pytest.importorskip("yaml", reason="the steps need pyyaml")
pytest.importorskip("onnx", reason="emitting the models needs onnx")

from universeg_rt.benchmarks.gpu.steps import b2, b7, beforehand, parts, session, step
from universeg_rt.training.network.checkpoint import load_checkpoint

from .conftest import check, lines

pytestmark = [pytest.mark.torch, pytest.mark.slow]
# As python starts a script, without the finder of an editable installation.
BARE = """import os, runpy, sys
sys.meta_path[:] = [f for f in sys.meta_path if 'editable' not in str(f).lower()]
sys.path[0] = os.path.dirname(sys.argv[1])
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name='__main__')
"""


def start(tree: Path, name: str, out: Path, *words: object) -> subprocess.Popen:
    (tree / "bare.py").write_text(BARE)
    return subprocess.Popen([sys.executable, tree / "bare.py", tree / "benchmarks" / "gpu" / "steps" / f"{name}.py",
                             "--out", out, "--work", out.parent / "work", "--device", "cpu", *map(str, words)],
                            cwd=tree, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                            env={**os.environ, "OMP_NUM_THREADS": "1"})


@pytest.fixture
def here(monkeypatch):
    """Runs a step whose parts are calls in this process, in place of processes."""

    def part(run, name, module, *words, seconds, limit="--time-limit"):
        words = [*map(str, words), *([limit, str(seconds)] if limit else [])]
        monkeypatch.setattr(sys, "argv", [module, *words])
        loaded = importlib.import_module("universeg_rt.__main__" if module == "universeg_rt" else module)
        status = loaded.main(*([words] if words else [])) if hasattr(loaded, "main") else 0
        run.note(name, status=status)
        return status == 0

    def run(module, out: Path, *words: object) -> int:
        monkeypatch.setattr(step.Step, "part", part)
        name = module.__name__.rpartition(".")[2]
        given = ["--out", out, "--work", out.parent / "work", "--device", "cpu", *words]
        return step.main(name, "", module.body, getattr(module, "add", parts.add_training), list(map(str, given)))

    return run


def test_the_short_order_runs_whole_from_a_bare_copy(tree, upload, training, tmp_path):
    process = start(tree, "short", tmp_path / "out", *training, "--upload", upload)
    assert process.wait(600) == 0, (lines(tmp_path / "out", "short"), process.stderr.read())
    check(tmp_path / "out")
    stage = json.loads((tmp_path / "out" / "training.json").read_text())["stages"][0]
    assert stage["steps"] and stage["operators"]
    rows = json.loads((tmp_path / "out" / "compare.json").read_text())["steps"]["timing"]["rows"]
    assert {"reference fp16 nhwc", "folded torch fp16 nhwc"} <= {row["contender"] for row in rows}
    ours = json.loads((tmp_path / "out" / "ours.json").read_text())["steps"]
    assert "not built" in ours["contenders"]["skipped"]["folded torch fp16 nhwc kernels"] and ours["timing"]["rows"]
    frozen = json.loads((tmp_path / "out" / "frozen.json").read_text())["tasks"]
    assert set(frozen) == {"task.onnx", "task_fp16.onnx"}
    assert {"native", "onnxruntime", "torch nchw", "torch nhwc"} <= set(frozen["task.onnx"]["right"])
    assert {row["batch"] for row in frozen["task_fp16.onnx"]["rows"] if row["runner"] == "torch nhwc"} == {1, 2}


def test_training_outlives_its_step_and_its_checkout_and_comes_home(tree, training, tmp_path):
    process = start(tree, "b1", tmp_path / "one", *training, "--minutes", 5, "--finish", 0.1, "--seconds", 60)
    state, home = tmp_path / "work" / "training" / "run" / "state.pt", tmp_path / "two"
    while not state.exists() and process.poll() is None:
        time.sleep(0.05)
    time.sleep(random.random())
    process.kill()  # at a random moment; the training goes on
    process.wait()
    assert lines(tmp_path / "one", "b1")["begin"]
    seen = torch.load(state, weights_only=True)["samples"]
    gone = tree.rename(tree.with_name("gone"))  # as the next command's checkout takes this one's place
    try:
        again = start(gone, "b6", home, "--seconds", 60, "--wait", 1)
        assert again.wait(90) == 0, again.stderr.read()
    finally:
        gone.rename(tree)
    check(home)
    said = lines(home, "b6")["training"]
    assert said["ended"] == "asked to" and any("run.tar.part00" in line for line in said["said"])  # by train_for.sh
    assert not session.members(int((tmp_path / "work" / "training.pid").read_text()))
    subprocess.run(f"cat {home}/run.tar.part* | tar -x", shell=True, check=True, cwd=tmp_path)
    assert torch.load(tmp_path / "state.pt", weights_only=True)["samples"] >= seen > 0
    load_checkpoint(tmp_path / "latest.safetensors")


def test_what_was_not_packed_is_packed_by_b6(tree, tmp_path):
    run = tmp_path / "work" / "training" / "run"
    run.mkdir(parents=True)
    (run / "state.pt").write_bytes(b"state")
    (run / "half.tmp").write_bytes(b"half")
    (run.parent / "run.tar.part00").write_bytes(b"cut off")
    process = start(tree, "b6", tmp_path / "home")
    assert process.wait(60) == 0, process.stderr.read()
    subprocess.run(f"tar -x -f {tmp_path}/home/run.tar.part", shell=True, check=True, cwd=tmp_path)
    assert (tmp_path / "state.pt").read_bytes() == b"state" and not (tmp_path / "half.tmp").exists()


def test_all_that_starts_is_compared(here, upload, tmp_path):
    assert here(b7, tmp_path / "out", "--upload", upload) == 0
    check(tmp_path / "out")
    rows = json.loads((tmp_path / "out" / "compare.json").read_text())["steps"]["timing"]["rows"]
    assert {"onnxruntime fp32", "folded torch fp16 nhwc"} <= {row["contender"] for row in rows}


def test_a_runtime_comes_in_pieces_and_is_tried(here, upload, tmp_path, monkeypatch):
    runtime = tmp_path / "runtime"
    runtime.mkdir()
    (runtime / "brought_along.py").write_text("VALUE = 1\n" + f"# {random.random()}\n" * 200)
    monkeypatch.setattr(beforehand, "PIECE_BYTES", 200)
    pieces = beforehand.pack(runtime, tmp_path / "own.tar.xz")
    assert len(pieces) > 1
    for number, some in enumerate((pieces[:1], pieces[1:])):
        assert here(b2, tmp_path / f"out{number}", "--upload", upload, *some) == 0
        check(tmp_path / f"out{number}")
    assert (tmp_path / "work" / "runtimes" / "own" / "brought_along.py").is_file()
    assert not (tmp_path / "out0" / "own.json").exists() and (tmp_path / "out1" / "own.json").is_file()


def test_killed_at_any_moment_what_was_written_is_whole_and_nothing_runs_on(tree, training, tmp_path):
    process = start(tree, "a1", tmp_path / "out", *training, "--seconds", 100)
    end = time.monotonic() + 1 + 5 * random.random()
    while time.monotonic() < end and process.poll() is None:
        time.sleep(0.1)
    process.kill()
    process.wait()
    lines(tmp_path / "out", "a1")
    check(tmp_path / "out")
    running = [""]
    end = time.monotonic() + 10
    while running and time.monotonic() < end:
        time.sleep(0.2)
        running = subprocess.run(["pgrep", "-f", str(tmp_path / "out")], capture_output=True, text=True).stdout.split()
    for pid in running:
        os.kill(int(pid), signal.SIGKILL)
    assert not running


def test_a_link_to_a_checkout_that_is_gone_is_made_anew(tree, tmp_path):
    """As a work folder holds them where the machine has put the checkout elsewhere."""
    site = tmp_path / "work" / "site" / "universeg_rt"
    site.mkdir(parents=True)
    for name in ("export", "errors.py"):
        (site / name).symlink_to(tmp_path / "gone" / name)
    process = start(tree, "b6", tmp_path / "home")
    assert process.wait(60) == 1, process.stderr.read()
    assert (site / "export").resolve() == tree / "export" and (site / "errors.py").exists()


def test_too_many_files_become_one(tmp_path):
    run = step.Step("b1", tmp_path / "out", tmp_path / "work", 60, "cpu", tmp_path)
    for number in range(20):
        (run.out / f"{number}.json").write_text("{}")
    (run.out / "large.bin").write_bytes(os.urandom(step.BYTES + 1))
    run.close()
    check(run.out)
    assert lines(run.out, "b1")["end"]["files"] == 3
    subprocess.run(f"cat {run.out}/results.tar.* | tar -x", shell=True, check=True, cwd=tmp_path)
    assert (tmp_path / "19.json").is_file() and (tmp_path / "large.bin").stat().st_size == step.BYTES + 1


def test_a_part_that_is_ended_by_a_fault_takes_no_other_with_it(tmp_path):
    """As a kernel's fault ends the process of the contenders with our kernels."""
    brought = tmp_path / "work" / "runtimes" / "one"
    brought.mkdir(parents=True)
    (brought / "faulty.py").write_text("import os\nprint('before', flush=True)\nos.abort()\n")
    run = step.Step("b7", tmp_path / "out", tmp_path / "work", 60, "cpu", tmp_path)
    assert run.part("ours", "faulty", seconds=30, limit="") is False
    assert run.part("next", "json.tool", "--help", seconds=30, limit="") is True
    run.close()
    said = lines(run.out, "b7")
    assert said["ours"]["status"] == -signal.SIGABRT and said["ours"]["said"][0] == "before"
