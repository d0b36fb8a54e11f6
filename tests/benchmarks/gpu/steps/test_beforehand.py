"""What the steps send fits, is counted as it is sent, and the steps fit the time that a GPU is lent for."""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("torch", reason="the steps need torch")

from universeg_rt.benchmarks.gpu import chosen
from universeg_rt.benchmarks.gpu.steps import a1, b7, beforehand, plan, short, step
from universeg_rt.checkout import ROOT

PIECES = 4  # commands that bring runtimes, of a minute each


def sized(path: Path, mebibytes: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as file:
        file.truncate(int(mebibytes * 2**20))


def test_the_tree_leaves_room_in_an_upload():
    assert beforehand.size_of(beforehand.tracked(ROOT)) < beforehand.UPLOAD // 3


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_files_that_git_does_not_ignore_count_whether_it_knows_them_or_not(tmp_path):
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    for name in ("known.py", "new.py", "library.so"):
        (tmp_path / name).write_text(name)
    (tmp_path / ".gitignore").write_text("*.so\n")
    subprocess.run(["git", "add", "known.py"], cwd=tmp_path, check=True)
    assert {path.name for path in beforehand.tracked(tmp_path)} == {".gitignore", "known.py", "new.py"}


def test_each_step_says_what_to_send_and_fails_where_it_is_too_much(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(beforehand, "ROOT", tmp_path)
    sized(tmp_path / "tree.py", 12)
    upload = tmp_path / "upload"
    for name, size in (("data/one.npz", 20), ("data/deep/two.npz", 5), ("kernels/lib/library.so", 8),
                       ("references.npz", 1), ("task.onnx", 8), ("task_fp16.onnx", 8),
                       ("trt.tar.xz.00of02", 40), ("trt.tar.xz.01of02", 30)):
        sized(upload / name, size)
    assert beforehand.main([str(upload), "--only", "data"]) == 0
    said = {line.split("  ")[0].strip(): line for line in capsys.readouterr().out.splitlines() if "MiB" in line}
    sizes = {name: (float(line.split(" MiB")[0].split()[-1]), json.loads(line[line.index("["):]))
             for name, line in said.items()}
    assert sizes == {
        "short": (54.0, ["upload/kernels", "upload/references.npz", "upload/task_fp16.onnx", "upload/data"]),
        "a1": (46.0, ["upload/kernels", "upload/references.npz", "upload/data"]),
        "b1": (37.0, ["upload/data"]),
        "b6": (12.0, []),
        "b7": (37.0, ["upload/kernels", "upload/references.npz", "upload/task.onnx", "upload/task_fp16.onnx"]),
        "b2 trt.tar.xz.00of02": (52.0, ["upload/trt.tar.xz.00of02"]),
        "b2 trt.tar.xz.01of02": (50.0, ["upload/trt.tar.xz.01of02", "upload/task.onnx"]),
    }
    sized(upload / "data" / "three.npz", 20)
    assert beforehand.main([str(upload), "--only", "data"]) == 1
    over = [line.split()[0] for line in capsys.readouterr().out.splitlines() if "TOO MUCH" in line]
    assert over == ["short", "a1"]


def test_a_piece_with_the_largest_task_fits():
    largest = beforehand.size_of(beforehand.tracked(ROOT)) + beforehand.PIECE_BYTES + (8 << 20)
    assert largest <= beforehand.UPLOAD


def test_both_orders_fit_the_time():
    seconds = {name: planned.seconds for name, planned in plan.STEPS.items()}
    assert max(seconds.values()) < 600  # of a command
    assert seconds["short"] + 180 < 15 * 60  # a machine takes minutes to start
    assert 300 + 7 * 60 + plan.SAVING < 15 * 60 - 90  # short with training, as the page has it
    assert seconds["a1"] + seconds["b1"] + 60 * PIECES + seconds["b6"] + seconds["b7"] + 300 < 45 * 60
    assert plan.TRAINING * 60 < seconds["b1"] + 60 * PIECES + seconds["b6"] - plan.SAVING
    assert 0 < plan.FINISH < plan.TRAINING / 2


def options(name: str, data_root: Path) -> argparse.Namespace:
    return argparse.Namespace(config="config.yaml", weights="none", data_root=data_root, no_training=False,
                              seconds=plan.STEPS[name].seconds)


@pytest.mark.parametrize("module", [short, a1, b7])
def test_the_parts_of_a_step_fit_its_time(module, tmp_path, monkeypatch):
    """As on a GPU; and what a part reads of the upload folder is planned to be there."""
    asked, read, name = [], set(), module.__name__.rpartition(".")[2]

    def part(run, name, module, *words, seconds: float, limit="") -> bool:
        asked.append(seconds)
        if name == "kernels":
            (run.out / "kernels.json").write_text('{"steps": {"selftest": {"passed": true}}}')
        read.update(Path(word).relative_to(run.upload).parts[0] for word in map(str, words)
                    if Path(word).is_relative_to(run.upload))
        return True

    monkeypatch.setattr(step.Step, "part", part)
    upload = tmp_path / "upload"
    for each in (plan.KERNELS, plan.DATA):
        (upload / each).mkdir(parents=True)
    for each in (plan.REFERENCES, plan.TASK, plan.HALF_TASK):
        if each in plan.STEPS[name].reads:
            (upload / each).touch()
    run = step.Step(name, tmp_path / "out", tmp_path / "work", 60, "cuda", upload)
    assert module.body(run, options(name, upload / plan.DATA))
    run.close()
    assert 0 < sum(asked) <= plan.STEPS[name].seconds - 2 * step.GRACE
    assert read == set(plan.STEPS[name].reads)


def test_the_page_says_the_minutes_that_are_planned():
    page = (ROOT / "benchmarks" / "gpu" / "steps" / "README.md").read_text()
    minutes = {name: float(said) for name, said in re.findall(r"^\| `(\w+)\.py .*\| ([\d.]+) \|", page, re.MULTILINE)}
    assert {name: -(-planned.seconds // 60) for name, planned in plan.STEPS.items()} == minutes


@pytest.mark.parametrize("selftest", ['{"steps": {"selftest": {"passed": true}}}', '{"steps": {"build": {}}}',
                                      '{"steps": {"selftest": {"passed": false}}}', ""])
@pytest.mark.parametrize("module", [short, a1])
def test_kernels_of_ours_have_a_process_of_their_own_after_their_self_test(module, selftest, tmp_path, monkeypatch):
    """An access outside a buffer ends all other work on the GPU in its process."""
    asked = {}

    def part(run, name, module, *words, seconds: float, limit="") -> bool:
        asked[name] = list(map(str, words))
        if name == "kernels":
            (run.out / "kernels.json").write_text(selftest)
        return True

    monkeypatch.setattr(step.Step, "part", part)
    name = module.__name__.rpartition(".")[2]
    run = step.Step(name, tmp_path / "out", tmp_path / "work", 60, "cuda", tmp_path)
    passed = module.body(run, options(name, tmp_path))
    run.close()
    words = asked["compare"]
    left_out = SimpleNamespace(contenders=None, leave_out=words[words.index("--leave-out") + 1:][:2])
    for name in ("folded torch fp16 kernels", "tensorrt fp16 plugin"):
        assert chosen.left_out(left_out, name)
    assert not chosen.left_out(left_out, "folded torch fp16")
    assert passed is ("ours" in asked) is ("true" in selftest)
    said = [json.loads(line) for line in (tmp_path / "out" / f"{run.name}.jsonl").read_text().splitlines()]
    assert [line["ended"] for line in said if line["what"] == "ours"] == (
        [] if passed else ["not begun: the kernels' self-test did not pass"])


def test_what_the_machine_lacks_is_said_at_the_beginning(tmp_path, monkeypatch):
    planned = plan.Planned(60, needs=("torch", "universeg_nowhere", "universeg_brought"))
    monkeypatch.setitem(plan.STEPS, "short", planned)
    monkeypatch.setitem(plan.WANTS, "universeg_nowhere", "a part")
    brought = tmp_path / "work" / "runtimes" / "one"
    brought.mkdir(parents=True)
    (brought / "universeg_brought.py").touch()
    step.Step("short", tmp_path / "out", tmp_path / "work", 60, "cpu", tmp_path).close()
    first = json.loads((tmp_path / "out" / "short.jsonl").read_text().splitlines()[0])
    assert first["what"] == "begin" and first["missing"] == {"universeg_nowhere": "a part"}


def test_the_page_names_what_the_machine_needs():
    page = (ROOT / "benchmarks" / "gpu" / "steps" / "README.md").read_text()
    assert all(f"`{name}`" in page for name in plan.WANTS)
    assert {name for planned in plan.STEPS.values() for name in planned.needs} == set(plan.WANTS)
