"""Engines and their bundle: killed, crowded, exported anew or out of disk, the bundle is as it was or has one engine
more."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import time

import pytest

onnx = pytest.importorskip("onnx", reason="onnx is not installed: pip install '.[export]'")

from universeg_rt import Bundle
from universeg_rt.bundle.engine import EngineEntry, Fingerprint, Profile
from universeg_rt.errors import BundleError, OutputError
from universeg_rt.export.cli import main
from universeg_rt.export.engine import store
from universeg_rt.runners.gpu.tensorrt.choose import _needed, _plans

from ...conftest import SMALL_SPEC, in_threads, quick_gate, random_weights
from .engines import PROFILE, build, bundle, engine_files, fake, hide_libraries, refused, replace_model, toy_bundle  # noqa: F401  fixtures


def test_a_bundle_exported_anew_during_the_build(fake, bundle, tmp_path):
    fake("10.14.1", f"wait:{tmp_path / 'begun'}")
    process = _start(bundle)
    _wait_for(tmp_path / "begun")
    model = onnx.load(bundle / "model.onnx")
    model.doc_string = "another"
    replace_model(bundle, "model.onnx", model)
    before = (bundle / "manifest.json").read_bytes()
    (tmp_path / "begun").unlink()
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1 and "was exported anew while the engine was being built; build it again" in err
    assert (bundle / "manifest.json").read_bytes() == before and not engine_files(bundle)


def an_entry(sha256: str = "0" * 64):
    return EngineEntry("whole", "", "", Fingerprint("tensorrt", "10", "", "", "9.0", sha256, "", "", "fp32"), PROFILE)


@pytest.mark.parametrize("name", ["manifest.json", ".timing", ".plan"])
def test_a_disk_that_fails_leaves_the_bundle_as_it_was(fake, bundle, monkeypatch, name):
    fake("10.14.1")
    real = store.write_file

    def failing(path):
        if str(path).endswith(name):
            raise OutputError(f"cannot write {path}: no space left on device")
        return real(path)

    monkeypatch.setattr(store, "write_file", failing)
    refused(bundle, "no space left", OutputError)
    Bundle.open(bundle)


def test_a_broken_manifest(tmp_path):
    with pytest.raises(BundleError, match="no bundle at"):
        store.add_engine(tmp_path / "absent", an_entry(), b"", b"")
    with pytest.raises(BundleError, match="manifest.json cannot be read"):
        store.add_engine(tmp_path, an_entry(), b"", b"")


# Killed in the middle -------------------------------------------------------------------------------------------------

def _start(folder) -> subprocess.Popen:
    return subprocess.Popen(
        [
            sys.executable, "-m", "universeg_rt.export.cli", "--bundle",
            str(folder), "--engine", "tensorrt", "--engine-model", "whole", "--profile-entries", "1:4:8"
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell that runs the tests in the background makes its children deaf to SIGINT.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))


def _wait_for(path, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} did not come"
        time.sleep(0.05)


def _children(pid: int) -> list[int]:
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return [int(child) for child in file.read().split()]


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_killed_in_the_middle_nothing_is_left(fake, bundle, tmp_path, how):
    fake("10.14.1", f"wait:{tmp_path / 'begun'}")
    before = {p: p.stat().st_mtime_ns for p in bundle.rglob("*") if p.is_file()}
    process = _start(bundle)
    _wait_for(tmp_path / "begun")
    (child,) = _children(process.pid)
    process.send_signal(how)
    _, err = process.communicate(timeout=60)
    assert process.returncode == (-9 if how == signal.SIGKILL else 130) and "Traceback" not in err
    deadline = time.monotonic() + 20
    while os.path.exists(f"/proc/{child}") and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not os.path.exists(f"/proc/{child}"), "the library's process ends with ours"
    assert {p: p.stat().st_mtime_ns for p in bundle.rglob("*") if p.is_file()} == before


def test_a_copy_with_engines_is_whole_or_not_at_all(fake, bundle, tmp_path, capsys):
    fake("10.14.1", "abort")
    assert main(["--bundle", str(bundle), "--engine", "tensorrt", "--output", str(tmp_path / "copy")]) == 1
    assert "crashed (SIGABRT)" in capsys.readouterr().err and not list(tmp_path.glob("*copy*"))


def test_leftovers_of_a_killed_process_are_swept_and_nothing_else(fake, bundle):
    fake("10.14.1")
    (bundle / "engines").mkdir()
    for name in ("whole-fp32-x.plan", ".whole.plan.abc.tmp", "notes.txt"):
        (bundle / "engines" / name).write_text("x")
    (outcome,) = build(bundle)
    assert engine_files(bundle) == {*outcome.entry.files, "engines/notes.txt"}


# From a checkpoint ----------------------------------------------------------------------------------------------------

@pytest.fixture
def checkpoint(tmp_path):
    pytest.importorskip("safetensors", reason="safetensors is not installed: pip install '.[export]'")
    from universeg_rt.training.network.checkpoint import save_checkpoint

    save_checkpoint(tmp_path / "w.safetensors", SMALL_SPEC, random_weights(SMALL_SPEC))
    with quick_gate():
        yield ["--checkpoint", str(tmp_path / "w.safetensors"), "--output", str(tmp_path / "out"), "--grid", "32", "32",
            "--engine", "tensorrt"]


@pytest.mark.slow
def test_export_and_engines_in_one_command(fake, checkpoint, tmp_path, capsys):
    fake("10.14.1")
    assert main(checkpoint) == 0
    assert [e.model for e in Bundle.open(tmp_path / "out").manifest.engines] == ["prepare", "predict"]
    assert "largest logit error" in capsys.readouterr().out


def test_only_engines_that_a_runner_reads_are_built_unless_others_are_asked_for(fake, toy_bundle, tmp_path):
    fake("10.14.1")
    assert [o.entry.model for o in build(toy_bundle, models=())] == ["prepare", "predict"]
    assert [o.entry.model
            for o in build(toy_bundle, models=(), precisions=("fp16", ))] == ["whole"], "it has no pair in fp16"
    assert [o.entry.model for o in build(toy_bundle, models=("whole",))] == ["whole"]
    bundle = Bundle.open(toy_bundle)
    by_default = [e for e in bundle.manifest.engines if e.fingerprint.precision == "fp32" and e.model != "whole"]
    (plan,) = _needed(_plans(by_default))
    assert [plan.prepare, plan.predict] == by_default


def test_a_missing_library_is_said_before_the_export(hide_libraries, checkpoint, tmp_path, capsys):
    assert main(checkpoint) == 1
    assert "pip install tensorrt-cu13" in capsys.readouterr().err and not (tmp_path / "out").exists()


@pytest.mark.slow
def test_an_engine_that_fails_leaves_the_bundle_that_passed_the_gate(fake, checkpoint, tmp_path, capsys):
    fake("10.14.1", "abort")
    assert main(checkpoint) == 1
    assert "crashed (SIGABRT)" in capsys.readouterr().err and not Bundle.open(tmp_path / "out").manifest.engines


# Two at once ----------------------------------------------------------------------------------------------------------

def test_two_processes_building_the_same_engine_both_end_well(fake, bundle):
    fake("10.14.1")
    processes = [_start(bundle) for _ in range(2)]
    ends = [(p.communicate(timeout=120), p.returncode) for p in processes]
    assert [code for _, code in ends] == [0, 0], ends
    (entry,) = Bundle.open(bundle).manifest.engines
    assert engine_files(bundle) == set(entry.files)
    assert all(entry.file in out for (out, _), _ in ends)


def test_many_threads_adding_different_engines_lose_none(bundle):
    model = Bundle.open(bundle).manifest.files["model.onnx"].sha256
    entries = [
        dataclasses.replace(an_entry(model), profile=Profile(entries=(1, 1, i + 1), image=(32, 32))) for i in range(8)
    ]
    in_threads(lambda n: store.add_engine(bundle, entries[n], entries[n].key.encode(), b""), len(entries))
    found = Bundle.open(bundle).manifest.engines
    assert {e.key for e in found} == {e.key for e in entries} and len(engine_files(bundle)) == 8
