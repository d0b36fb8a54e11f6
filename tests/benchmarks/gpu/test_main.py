"""The GPU benchmark's whole program at toy sizes on the CPU; no figure is judged, only that all is there and right."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="the benchmark needs torch")
pytest.importorskip("onnx", reason="emitting the models needs onnx")

from universeg_rt import checkout
from universeg_rt.benchmarks.gpu import main as gpu

pytestmark = pytest.mark.torch
ROOT = Path(__file__).resolve().parents[3]


def test_the_command_runs_whole_on_the_cpu(tmp_path, capsys):
    out = tmp_path / "gpu.json"
    steps = [s for s in gpu.STEPS if s != "kernels"]  # its build has a test of its own
    assert gpu.main([
        "--device", "cpu", "--out",
        str(out), "--work",
        str(tmp_path / "work"), "--support-sizes", "2", "--members", "2", "--rounds", "1", "--steps", *steps
    ]) == 0
    said, result = capsys.readouterr().out, json.loads(out.read_text())
    assert result["passed"] is True and list(result["steps"]) == steps
    assert result["steps"]["machine"]["machine"]["torch"] and result["steps"]["machine"]["packages"]["onnxruntime"]
    assert set(result["steps"]["ceilings"]["matrix_flop_per_second"]) == {"fp32", "tf32", "fp16"}
    assert "engines run on a GPU only" in result["steps"]["engines"]["why"]
    started = set(result["steps"]["contenders"]["started"])
    assert {"reference fp32", "reference tf32", "reference fp16", "reference fp16 nhwc", "folded torch fp32",
            "folded torch fp16 nhwc",
            "plain onnxruntime fp32", "onnxruntime fp32", "onnxruntime fp16"} <= started
    skipped = result["steps"]["contenders"]["skipped"]
    assert set(skipped) == {
        "folded torch fp32 kernels", "folded torch tf32 kernels", "folded torch fp16 kernels",
        "folded torch fp16 nhwc kernels", "onnxruntime int8",
        "tensorrt", "tensorrt-rtx", "torch.compile tf32", "torch.compile fp16"
    }
    assert "(--compile)" in skipped["torch.compile fp16"]
    checked = result["steps"]["parity"]["contenders"]
    assert set(checked) | set(result["steps"]["parity"]["skipped"]) == started - {"reference fp32"}
    assert all(c["within"] for c in checked.values())
    rows = result["steps"]["timing"]["rows"]
    assert {(r["contender"], r["prepared"]) for r in rows} == {(name, p) for name in started for p in (True, False)}
    for row in rows:
        assert 0 < row["p50"] <= row["p90"] <= row["p99"] and row["runs"] == 1 and row["right"]
        assert row["flop_per_second"] > 0 and row["bytes_per_second"] > 0 and row["over reference fp16"] > 0
    assert "times mean nothing" in said and "skipped tensorrt: " in said and "parity with the reference" in said
    assert sum(line.startswith("   2  2 yes") for line in said.splitlines()) == len(started)


def test_without_a_gpu_the_run_ends_with_the_reason(tmp_path):
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    out = tmp_path / "gpu.json"
    done = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / "gpu" / "main.py", "--out", out, "--work", tmp_path / "work"],
        cwd=tmp_path, capture_output=True, text=True, timeout=300, env=os.environ)
    assert done.returncode == 1 and "FAILED" in done.stdout
    result = json.loads(out.read_text())
    assert result["passed"] is False and "PyTorch sees no GPU" in result["steps"]["machine"]["why"]


def test_processes_started_from_a_checkout_find_the_package(tmp_path, monkeypatch):
    """As the builder of engines does, where nothing is installed; also from the top of the checkout."""
    monkeypatch.setenv("PYTHONPATH", "elsewhere")
    monkeypatch.setenv("PYTHONSAFEPATH", "")
    checkout.make_importable_for_children(tmp_path / "site")
    checkout.make_importable_for_children(tmp_path / "site")
    code = (
        "import universeg_rt.export.engine.worker as w, universeg_rt.kernels.support_mean.library, "
        "universeg_rt.errors; "
        "print(w.__file__)")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.startswith(str(tmp_path / "site")), done.stderr


def test_out_of_time_is_a_failure_that_keeps_what_it_has(tmp_path):
    out = tmp_path / "gpu.json"
    assert gpu.main([
        "--device", "cpu", "--out",
        str(out), "--work",
        str(tmp_path / "w"), "--time-limit", "0.000001", "--steps", "timing"
    ]) == 1
    assert "time limit" in json.loads(out.read_text())["steps"]["machine"]["why"]


def test_bad_options_are_one_line(tmp_path, capsys):
    assert gpu.main(["--device", "cpu", "--out", str(tmp_path / "a.json"), "--members", "0"]) == 1
    assert capsys.readouterr().err.count("\n") == 1
    assert gpu.main(["--device", "cpu", "--out", str(tmp_path / "none" / "a.json"), "--work", str(tmp_path)]) == 1
    assert "cannot write" in capsys.readouterr().err


def test_no_onnx_is_no_hindrance_to_what_pytorch_runs():
    """On a machine without it all but the bundle and the plain export is compared."""
    code = "import sys; sys.modules['onnx'] = None; import universeg_rt.benchmarks.gpu.main"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-500:]
