"""The GPU check as one command, with the CPU build in the GPU's place: every step but the launches themselves."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from universeg_rt.kernels.support_mean import reference
from universeg_rt.kernels.support_mean.check import cases, correctness, machine, steps, timing
from universeg_rt.kernels.support_mean.check import main as check
from universeg_rt.kernels.support_mean.host import module as host

ROOT = Path(__file__).resolve().parents[3]


def dry_run(tmp_path, native, *options):
    """The command as a script, with the build folder that the fixture has filled."""
    folder = Path(native.__file__).parents[1]
    out = tmp_path / "result.json"
    done = subprocess.run([
        sys.executable, ROOT / "kernels" / "support_mean" / "check" / "main.py", "--dry-run", "--build-dir", folder,
        "--out", out, *options
    ], capture_output=True, text=True, timeout=300, cwd=tmp_path, env=os.environ)
    return done, json.loads(out.read_text()) if out.exists() else None


@pytest.mark.slow
@pytest.mark.torch
def test_a_dry_run_passes_and_writes_everything(tmp_path, native):
    pytest.importorskip("torch", reason="PyTorch is missing (pip install torch)")
    done, result = dry_run(tmp_path, native, "--steps", "selftest", "sanitizers", "correctness", "large", "bandwidth",
                           "timing")
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert result["passed"] and result["dry_run"] and result["machine"]["python"]
    steps = result["steps"]
    assert list(steps) == list(check.STEPS) and all(step["passed"] is not False for step in steps.values())
    skipped = {name for name, step in steps.items() if step["passed"] is None}
    assert skipped <= {"selftest", "sanitizers"} and all("skipped" in steps[name]["why"] for name in skipped)
    assert steps["correctness"]["runs"] > 150
    served = set(steps["correctness"]["worst"])
    assert {f"{form} {dtype} kernel {kernel}" for form in host.FORMS for dtype in ("float32", "float16", "bfloat16")
            for kernel in host.KERNELS[form] if (form, dtype, kernel) != ("conv_pool", "float32", 3)} <= served
    assert {f"{form} {dtype} kernel {kernel} hwc" for form in ("mean", "pool") for dtype in reference.DTYPES
            for kernel in host.KERNELS[form]} <= served
    assert set(steps["large"]["worst"]) == {f"kernel {n}{layout}" for n in (1, 3, 5) for layout in ("", " hwc")}
    rows = steps["timing"]["rows"]
    assert {(r["form"], r["dtype"], r["layout"], r["variant"]) for r in rows} >= {
        ("conv_pool", "bfloat16", "chw", "kernel 3"), ("mean", "float16", "chw", "pytorch"),
        ("mean", "float16", "hwc", "pytorch"), ("pool", "bfloat16", "hwc", "kernel 3")}
    assert not any(r["layout"] == "hwc" and r["dtype"] == "float32" for r in rows)
    assert all(r["low"] <= r["median"] <= r["high"] for r in rows)
    assert "times mean nothing" in done.stdout and "x PyTorch" in done.stdout


@pytest.mark.slow
@pytest.mark.torch
def test_a_run_out_of_time_fails_and_keeps_what_it_has(tmp_path, native):
    pytest.importorskip("torch", reason="PyTorch is missing (pip install torch)")
    done, result = dry_run(tmp_path, native, "--time-limit", "0.01", "--steps", "bandwidth")
    assert done.returncode == 1 and result["passed"] is False
    assert "time limit" in result["steps"]["bandwidth"]["why"]


@pytest.mark.slow
def test_without_nvcc_the_real_check_fails_by_name(tmp_path):
    """Never a silent pass: where the build is missing, the exit status says so."""
    environment = os.environ | {"CUDACXX": str(tmp_path / "no-nvcc")}
    done = subprocess.run([
        sys.executable, "-m", "universeg_rt.kernels.support_mean.check.main", "--steps", "bandwidth", "--out",
        tmp_path / "r.json", "--build-dir", tmp_path / "b", "--arch", "90"
    ], capture_output=True, text=True, timeout=120, env=environment)
    result = json.loads((tmp_path / "r.json").read_text())
    assert done.returncode == 1 and result["passed"] is False
    assert "nvcc was not found" in result["steps"]["build"]["why"] and list(result["steps"]) == ["build"]


@pytest.mark.slow
def test_an_unwritable_result_is_one_line(tmp_path):
    done = subprocess.run([sys.executable, "-m", "universeg_rt.kernels.support_mean.check.main", "--dry-run", "--out",
                           tmp_path / "none" / "r.json"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 1 and done.stderr.startswith("error: cannot write") and done.stderr.count("\n") == 1


@pytest.mark.torch
def test_a_wrong_kernel_fails_the_check(native):
    """The judge itself: one element off by a few units, an unwritten element, and results that change between runs."""
    pytest.importorskip("torch", reason="PyTorch is missing (pip install torch)")
    from universeg_rt.kernels.support_mean.check.devices import Dry

    device = Dry(native.__file__)
    sizes = cases.Sizes(entries=3, channels=2, height=4, width=8)
    inputs = cases.make_inputs("mean", sizes, "float32")
    problem = host.problem("mean", inputs["support"], inputs["query"])
    tensors = {name: device.tensor(array) for name, array in inputs.items()}
    wanted = cases.expected("mean", inputs)
    right = device.launcher
    turn = iter(range(100))

    def judged(spoil):
        def launcher(values, given):
            def call():
                right(values, given)()
                spoil(given["mean"], next(turn))
            return call

        device.launcher = launcher
        entry = {"worst": {}, "failures": [], "runs": 0}
        correctness._check_one(device, entry, "mean", sizes, problem, tensors, wanted)
        return entry["failures"]

    assert judged(lambda mean, n: None) == []
    assert judged(lambda mean, n: mean.view(-1).__setitem__(7, mean.view(-1)[7] * (1 + 1e-5) + 1e-5))
    assert judged(lambda mean, n: mean.view(-1).__setitem__(0, float("nan")))
    assert any("other bits" in line for line in
               judged(lambda mean, n: mean.view(-1).__setitem__(3, float(np.nextafter(np.float32(mean.view(-1)[3]),
                                                                                     np.float32(100 * (-1) ** n))))))


def test_the_table_is_empty_without_rows():
    assert timing.table({"steps": {}, "dry_run": True}) == []


@pytest.mark.parametrize("left, limit", [(100.0, 50.0), (1000.0, 240.0), (-5.0, 1.0)])
def test_a_self_test_that_hangs_leaves_half_of_the_time(monkeypatch, left, limit):
    seen = []
    monkeypatch.setattr(machine, "_run", lambda command, seconds: seen.append(seconds) or (124, "stopped"))
    monkeypatch.setattr(machine.time, "monotonic", lambda: 7.0)
    state = {"built": SimpleNamespace(selftest=Path("selftest")), "dry": False, "say": print, "deadline": 7.0 + left}
    entry = {}
    machine.run_selftest(state, entry, print)
    assert seen == [limit] and entry["passed"] is False


def test_a_step_that_meets_another_version_of_a_library_does_not_end_the_others(tmp_path):
    report = steps.Report(tmp_path / "result.json", {})
    done = report.run({"old": lambda entry: np.no_such_function(), "next": lambda entry: None}, (), 60)
    found = json.loads((tmp_path / "result.json").read_text())["steps"]
    assert not done and found["next"]["passed"] is True and found["old"]["why"].startswith("AttributeError: ")


def test_half_precision_is_timed_first_for_time_may_end(monkeypatch):
    torch, seen = SimpleNamespace(backends=SimpleNamespace()), []

    def time_one(device, copy, form, sizes, dtype, *given):
        seen.append(dtype)
        return [{"variant": "kernel 1", "median": 1.0, "of_copy": 1.0, "over_pytorch": 1.0}]

    monkeypatch.setattr(timing, "_time_one", time_one)
    state = {"device": SimpleNamespace(torch=torch, free=lambda: None), "copy": 1.0, "dry": True, "say": str,
             "deadline": float("inf")}
    timing.time_kernels(state, {}, lambda: None)
    assert list(dict.fromkeys(seen)) == ["float16", "float32", "bfloat16"]


def test_a_self_test_that_fails_or_hangs_says_at_which_kernel(monkeypatch):
    state = {"built": SimpleNamespace(selftest=Path("selftest")), "dry": False, "say": print}
    for status, last, why in ((124, ["pool float16 kernel 3", "stopped after 5 s"],
                               "exit status 124: pool float16 kernel 3; stopped after 5 s"),
                              (1, ["FAILED mean float32 kernel 1: mean differs", *["pool"] * 3000, "4 runs, 1 wrong"],
                               "exit status 1: FAILED mean float32 kernel 1: mean differs")):
        monkeypatch.setattr(machine, "_run", lambda *_, ended=(status, "\n".join(["mean", *last])): ended)
        entry = {}
        machine.run_selftest(state, entry, print)
        assert entry["why"] == why and entry["output"].endswith(last[-1]) and len(entry["output"]) < 4000


@pytest.mark.torch
def test_without_ml_dtypes_the_other_types_are_checked(native, monkeypatch):
    pytest.importorskip("torch", reason="PyTorch is missing (pip install torch)")
    from universeg_rt.kernels.support_mean.check.devices import Dry

    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    monkeypatch.setattr(correctness, "SMALL", correctness.SMALL[:1])
    state = {"device": Dry(native.__file__), "dry": True, "say": print, "deadline": float("inf")}
    entry = {}
    correctness.check_kernels(state, entry, lambda: None)
    assert entry["passed"] is True and "pip install ml-dtypes" in entry["skipped"]["bfloat16"]
    assert {name.split()[1] for name in entry["worst"]} == {"float32", "float16"}
