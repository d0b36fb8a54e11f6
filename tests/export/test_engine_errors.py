"""Whatever goes wrong in building an engine is a typed error in one line, ends no process of ours, and leaves nothing."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

onnx = pytest.importorskip("onnx", reason="onnx is not installed: pip install 'universeg_rt[export]'")

from universeg_rt import Bundle
from universeg_rt.engine import EngineEntry, Fingerprint, Profile
from universeg_rt.errors import BundleError, EngineError, InputError, OutputError
from universeg_rt.export.cli import main
from universeg_rt.export.engine import store
from universeg_rt.export.engine.build import EngineOptions
from universeg_rt.export.engine.process import memory_needed

from ..conftest import SMALL_SPEC, random_weights
from .engines import PROFILE, build, bundle, engine_files, fake, replace_model, toy_bundle  # noqa: F401  fixtures


def refused(folder, message: str, kind=EngineError, **options) -> str:
    """The build raises this error, on one line, and leaves the bundle as it was."""
    before = (folder / "manifest.json").read_bytes()
    with pytest.raises(kind, match=message) as error:
        build(folder, **options)
    assert "\n" not in str(error.value)
    assert (folder / "manifest.json").read_bytes() == before and not engine_files(folder)
    return str(error.value)


# The library ------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("builder, package", [("tensorrt", "pip install tensorrt-cu13"), ("tensorrt-rtx", "tensorrt_rtx")])
def test_a_missing_library_names_the_package(bundle, monkeypatch, tmp_path, builder, package):
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    refused(bundle, f"{builder}: the Python package .* cannot be imported .*{package}", builder=builder)


@pytest.mark.parametrize("fault, message", [
    ("library", "not its libraries .libnvinfer.so.10: cannot open.*pip install tensorrt-cu13"),
    ("driver", "needs an NVIDIA GPU and its driver"),
    ("abort", r"crashed \(SIGABRT\) in its own process; it said last: .*std::bad_alloc.*nothing was written"),
    ("kill", r"was killed \(SIGKILL\), most likely for want of main memory"),
    ("exit", "ended with status 7 in its own process; it said last: a licence could not be found"),
    ("raise", "failed with ValueError: unexpected"),
    ("memory", r"not enough GPU memory \(17 GB were asked for\).*fewer entries.*--workspace"),
])
def test_a_library_that_fails_is_an_error_with_its_last_words(fake, bundle, fault, message):
    fake("10.14.1", fault)
    refused(bundle, message)


@pytest.mark.parametrize("text, expected", [
    ("Requested amount of GPU memory (17179869184 bytes) could not be allocated.", " (17 GB were asked for)"),
    ("Error Code 2: OutOfMemory (Requested size was 1080156676 bytes.)", " (1.1 GB were asked for)"),
    ("Skipping tactic 0 due to insufficient memory on requested size of 11580055552 detected", " (12 GB were asked for)"),
    ("no tactics to implement the operation within workspace limit", ""), ("Cuda Error in allocate: 2 (out of memory)", ""),
    ("API Usage Error: wrong dimensions 17179869184", None), ("", None),
])
def test_what_the_library_says_of_memory(text, expected):
    assert memory_needed(text) == expected


def test_a_plugin_library_that_is_none_or_of_another_version(fake, bundle, tmp_path):
    fake("10.14.1")
    (tmp_path / "plugin.so").write_bytes(b"no library")
    refused(bundle, "plugin.so is not a universeg_rt plugin library", plugin=tmp_path / "plugin.so")
    if sys.platform != "linux":
        return
    source = 'extern "C" { int universeg_rt_plugin_generation() { return 8; } const char* universeg_rt_plugin_headers() { return "8.6"; } }'
    (tmp_path / "p.cpp").write_text(source)
    try:
        subprocess.run(["c++", "-shared", "-fPIC", tmp_path / "p.cpp", "-o", tmp_path / "old.so"], check=True)
    except FileNotFoundError:
        pytest.skip("no C++ compiler was found")
    refused(bundle, "old.so was built against TensorRT 8.6 and TensorRT 10.14.1 runs here", plugin=tmp_path / "old.so")


# The model --------------------------------------------------------------------------------------------------------------

def test_an_onnx_file_that_is_not_ours(fake, bundle):
    fake("10.14.1")
    model = onnx.load(bundle / "model.onnx")
    del model.metadata_props[:]
    replace_model(bundle, "model.onnx", model)
    refused(bundle, "model.onnx is not a model of ours .*universeg.kind")
    replace_model(bundle, "model.onnx", b"PK no model at all")
    refused(bundle, "model.onnx is no(t a model of ours| ONNX file)")


def test_a_model_of_other_weights(fake, bundle):
    fake("10.14.1")
    model = onnx.load(bundle / "model.onnx")
    next(p for p in model.metadata_props if p.key == "universeg.weights_sha256").value = "0" * 64
    replace_model(bundle, "model.onnx", model)
    refused(bundle, "exported from other weights .sha256 000000000000. than the bundle says")


@pytest.mark.parametrize("version, named", [("10.14.1", "node middle (Blur)"), ("8.6.1", "node number")])
def test_an_operator_that_the_parser_does_not_know_names_the_node(fake, toy_bundle, version, named):
    fake(version)
    model = onnx.load(toy_bundle / "fp16.onnx")
    model.graph.node.add(op_type="Blur", domain="elsewhere", name="middle", input=["wide"], output=["blurred"])
    model.opset_import.add(domain="elsewhere", version=1)
    replace_model(toy_bundle, "fp16.onnx", model, "fp16")
    message = refused(toy_bundle, "the parser does not take the model", precisions=("fp16",))
    assert named in message and "No importer registered" in message


def test_an_input_that_no_profile_covers(fake, toy_bundle):
    fake("10.14.1")
    model = onnx.load(toy_bundle / "fp16.onnx")
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "channels"
    replace_model(toy_bundle, "fp16.onnx", model, "fp16")
    refused(toy_bundle, "input query has a dimension 'channels' that no profile covers", precisions=("fp16",))


@pytest.mark.parametrize("options, message", [
    ({"precisions": ("int8",)}, "holds no int8 models; it has fp32"),
    ({"profile": Profile(image=(64, 64))}, "the profile is for images of 64x64, the bundle's network for 32x32"),
])
def test_what_the_bundle_has_not(fake, bundle, options, message):
    fake("10.14.1")
    refused(bundle, message, InputError, **options)


def test_a_model_part_that_the_bundle_has_not(fake, toy_bundle):
    fake("10.14.1")
    refused(toy_bundle, "holds no fp16 model predict; it has whole", InputError, precisions=("fp16",), models=("predict",))


@pytest.mark.parametrize("options, message", [
    ({"builder": "trtexec"}, "accepted: tensorrt, tensorrt-rtx"), ({"models": ("half",)}, "accepted: whole, prepare, predict"),
    ({"hardware": "all"}, "accepted: none, ampere"), ({"workspace": 0}, "positive number"), ({"level": 6}, "0 to 5"),
    ({"capabilities": ("8.6",)}, "for tensorrt-rtx"), ({"builder": "tensorrt-rtx", "hardware": "same"}, "for tensorrt;"),
    ({"plugin": Path("absent.so")}, "no plugin library at absent.so; build it"),
    ({"timing_cache": Path("absent/x")}, "its folder does not exist"),
])
def test_options_that_cannot_be(options, message):
    with pytest.raises(InputError, match=message):
        EngineOptions(**{"builder": "tensorrt", **options})


# The bundle -------------------------------------------------------------------------------------------------------------

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


# Killed in the middle ----------------------------------------------------------------------------------------------------

def _start(folder, *more) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "universeg_rt.export.cli", "--bundle", str(folder), "--engine", "tensorrt", "--engine-model", "whole",
         "--profile-entries", "1:4:8", *more], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


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


# From a checkpoint ------------------------------------------------------------------------------------------------------

@pytest.fixture
def checkpoint(tmp_path, monkeypatch):
    pytest.importorskip("safetensors", reason="safetensors is not installed: pip install 'universeg_rt[export]'")
    from universeg_rt.export import parity
    from universeg_rt.training.checkpoint import save_checkpoint

    monkeypatch.setattr(parity, "SUPPORT_SIZES", (1, 3))
    monkeypatch.setattr(parity, "IMAGE_SIZES", ((32, 32),))
    save_checkpoint(tmp_path / "w.safetensors", SMALL_SPEC, random_weights(SMALL_SPEC))
    return ["--checkpoint", str(tmp_path / "w.safetensors"), "--output", str(tmp_path / "out"), "--grid", "32", "32",
            "--engine", "tensorrt"]


def test_export_and_engines_in_one_command(fake, checkpoint, tmp_path, capsys):
    fake("10.14.1")
    assert main(checkpoint) == 0
    assert [e.model for e in Bundle.open(tmp_path / "out").manifest.engines] == ["whole", "prepare", "predict"]
    assert "largest logit error" in capsys.readouterr().out


def test_a_missing_library_is_said_before_the_export(checkpoint, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert main(checkpoint) == 1
    assert "pip install tensorrt-cu13" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_an_engine_that_fails_leaves_the_bundle_that_passed_the_gate(fake, checkpoint, tmp_path, capsys):
    fake("10.14.1", "abort")
    assert main(checkpoint) == 1
    assert "crashed (SIGABRT)" in capsys.readouterr().err and not Bundle.open(tmp_path / "out").manifest.engines


# Two at once ------------------------------------------------------------------------------------------------------------

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
    entries = [dataclasses.replace(an_entry(model), profile=Profile(entries=(1, 1, i + 1), image=(32, 32))) for i in range(8)]
    threads = [threading.Thread(target=store.add_engine, args=(bundle, e, f"plan {i}".encode(), b"")) for i, e in enumerate(entries)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = Bundle.open(bundle).manifest.engines
    assert {e.key for e in found} == {e.key for e in entries} and len(engine_files(bundle)) == 8


# The command ------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("arguments, message", [
    (["--bundle", "{b}"], "say which with --engine"),
    (["--bundle", "absent", "--engine", "tensorrt"], "no bundle at absent"),
    (["--bundle", "shipped", "--engine", "tensorrt"], "the shipped bundle is not changed; give --output"),
    (["--bundle", "{b}", "--checkpoint", "x", "--engine", "tensorrt"], "not both"),
    (["--bundle", "{b}", "--engine", "tensorrt", "--profile-entries", "8:4:16"], "min (8) is above opt (4)"),
    (["--bundle", "{b}", "--engine", "tensorrt", "--profile-sets", "2:4:3"], "opt (4) is above max (3)"),
    (["--bundle", "{b}", "--engine", "tensorrt", "--profile-queries", "x"], "--profile-queries x: give min:opt:max"),
    (["--bundle", "{b}", "--engine", "tensorrt", "--workspace", "much"], "--workspace much: give a size as 4G"),
    (["--bundle", "{b}", "--engine", "tensorrt-rtx", "--compute-capability", "nine"], "--compute-capability nine: give it as 8.9"),
    (["--bundle", "{b}", "--engine", "tensorrt", "--precision", "fp16"], "holds no fp16 models"),
    (["--bundle", "{b}/model.onnx", "--engine", "tensorrt"], "it is not a folder"),
])
def test_errors_of_the_command_are_one_line(bundle, capsys, arguments, message):
    assert main([a.replace("{b}", str(bundle)) for a in arguments]) == 1
    err = capsys.readouterr().err.strip()
    assert message in err and "\n" not in err
