"""Which files a bundle may read: regular ones that its manifest lists, as they were when they were checked, and no
others."""

from __future__ import annotations

import os
import shutil
import threading

import numpy as np
import pytest

from universeg_rt import Bundle, BundleError, RunnerError
from universeg_rt.bundle import bundle as bundle_module
from universeg_rt.bundle.model_bytes import ModelBytes
from universeg_rt.runners import open_runner

CPU_RUNNERS = ("onnxruntime", "openvino")


@pytest.fixture
def copy(small_bundle, tmp_path):
    return shutil.copytree(small_bundle, tmp_path / "copy")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("UNIVERSEG_RT_CACHE", str(tmp_path / "cache"))


def start(bundle: Bundle, name: str):
    """A runner on the CPU; of the GPU's ONNX Runtime with the CPU provider in its place."""
    if name == "openvino":
        pytest.importorskip("openvino", reason="openvino is not installed: pip install '.[openvino]'")
    if name != "onnxruntime-cuda":
        return open_runner(bundle, name, threads=1)
    from universeg_rt.runners.gpu.onnxruntime import OnnxRuntimeCuda

    return OnnxRuntimeCuda(bundle.load("fp32", "predict"), bundle.load("fp32", "prepare"),
                           provider="CPUExecutionProvider")


def logits(runner) -> np.ndarray:
    rng = np.random.default_rng(0)
    return runner.run(runner.prepare(rng.random((1, 3, 2, 32, 32), np.float32), np.full((1, 3), 1 / 3, np.float32)),
                      rng.random((1, 1, 32, 32), np.float32))


# Data outside the models
# ------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("name", [*CPU_RUNNERS, "onnxruntime-cuda"])
def test_listed_data_beside_the_models_are_read_by_every_runner(small_bundle, copy, name):
    pytest.importorskip("onnx", reason="onnx is not installed: pip install '.[export]'")
    from .external import move_out

    bundle = move_out(copy)
    model = bundle.load("fp32", "predict")
    assert model.external == {"weights.bin": (copy / "weights.bin").read_bytes()}
    assert np.array_equal(logits(start(bundle, name)), logits(start(Bundle.open(small_bundle), name)))


@pytest.mark.parametrize("location, listed", [
    ("other.bin", True),
    ("weights.bin", False),
    ("../weights.bin", True),
    ("/etc/passwd", True),
    ("../../../../../../etc/passwd", True),
    ("x/_ORT_MEM_ADDR_/x", True),
    ("*/_ORT_MEM_ADDR_/*", True),
    ("", True),
    (".", True),
    ("wei\0ghts.bin", True),
])
@pytest.mark.parametrize("name", [*CPU_RUNNERS, "onnxruntime-cuda"])
def test_data_anywhere_else_are_refused_before_a_runtime_sees_the_model(copy, name, location, listed, monkeypatch):
    pytest.importorskip("onnx", reason="onnx is not installed: pip install '.[export]'")
    from .external import move_out

    (copy / "other.bin").write_bytes(bytes(10**5))
    bundle = move_out(copy, location, listed)
    with pytest.raises(BundleError, match="is not among the files that the manifest"):
        start(bundle, name)


def test_a_listed_name_that_means_memory_to_a_runtime_is_refused(copy):
    from universeg_rt.bundle.manifest import sealed

    from .test_bundle import edit

    (copy / "_ORT_MEM_ADDR_").mkdir()
    (copy / "_ORT_MEM_ADDR_" / "x").write_bytes(b"1")
    edit(copy, lambda v: v["files"].update({"_ORT_MEM_ADDR_/x": {"bytes": 1, "sha256": "0" * 64}}))
    with pytest.raises(BundleError, match="names a file outside the bundle"):
        Bundle.open(copy)
    assert sealed({}) == sealed({"sha256": "any"})


# What is no regular file
# ------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("name", ["model.onnx", "manifest.json", "weights.safetensors", "more"])
def test_links_are_refused(copy, tmp_path, name):
    from .external import relist

    (copy / "more").mkdir()
    (copy / "more" / "file").write_bytes(b"x")
    relist(copy, [*Bundle.open(copy).manifest.files, "more/file"])
    os.rename(copy / name, tmp_path / "elsewhere")
    (copy / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BundleError, match="it is a link, or lies in a linked folder.*cp -rL"):
        Bundle.open(copy)


def test_the_bundle_itself_may_be_named_by_a_link(copy, tmp_path):
    (tmp_path / "link").symlink_to(copy)
    assert Bundle.open(tmp_path / "link").manifest == Bundle.open(copy).manifest


@pytest.mark.parametrize("name", ["model.onnx", "manifest.json"])
def test_pipes_and_folders_are_refused_at_once(copy, name):
    (copy / name).unlink()
    os.mkfifo(copy / name)
    done = []
    thread = threading.Thread(target=lambda: done.append(pytest.raises(BundleError, Bundle.open, copy)), daemon=True)
    thread.start()
    thread.join(20)
    assert done and "it is no regular file" in str(done[0].value)
    (copy / name).unlink()
    (copy / name).mkdir()
    with pytest.raises(BundleError, match="it is no regular file"):
        Bundle.open(copy)


def test_devices_are_refused_without_being_opened(copy, monkeypatch):
    if os.geteuid() != 0:
        pytest.skip("only root makes device files")
    (copy / "model.onnx").unlink()
    try:
        os.mknod(copy / "model.onnx", 0o600 | 0o020000, os.makedev(1, 5))  # /dev/zero
    except OSError as error:
        pytest.skip(f"no device file can be made here: {error}")
    with pytest.raises(BundleError, match="it is no regular file"):
        Bundle.open(copy)


def test_a_manifest_beyond_its_bound_is_refused(copy, monkeypatch):
    with open(copy / "manifest.json", "ab") as file:
        file.truncate(2**33)  # a hole: takes no room
    with pytest.raises(BundleError, match="bytes and is no manifest"):
        Bundle.open(copy)


# Between checking and loading
# -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name, part", [("native", "native.json"), ("native", "weights.safetensors"),
                                        ("onnxruntime", "stage"), ("onnxruntime", "weights.safetensors"),
                                        ("openvino", "stage")])
def test_a_file_swapped_after_opening_is_not_loaded(copy, name, part):
    bundle = Bundle.open(copy)
    if name == "native":
        pytest.importorskip("universeg_rt._native", reason="the native part is not built here")
    elif name == "openvino":
        pytest.importorskip("openvino", reason="openvino is not installed: pip install '.[openvino]'")
    path = next(copy.glob("stage.*")) if part == "stage" else copy / part
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(BundleError, match="is altered"):
        open_runner(bundle, name)


def test_what_is_loaded_are_the_bytes_that_were_hashed(copy, monkeypatch):
    """A file that changes right after it was read changes nothing: no runtime opens it again."""
    bundle, real = Bundle.open(copy), bundle_module._read_checked

    def then_spoil(folder, name, entry, cure):
        data = real(folder, name, entry, cure)
        (folder / name).write_bytes(b"spoilt")
        return data

    expected = logits(open_runner(bundle, "onnxruntime", threads=1))
    monkeypatch.setattr(bundle_module, "_read_checked", then_spoil)
    runner = open_runner(bundle, "onnxruntime", threads=1)
    assert {path.read_bytes() for path in (*copy.glob("stage.*"), copy / "weights.safetensors")} == {b"spoilt"}
    assert np.array_equal(logits(runner), expected)


def test_only_listed_files_are_read(copy):
    bundle = Bundle.open(copy)
    (copy / "more").write_bytes(b"x")
    for name in ("more", "../copy/model.onnx", "./model.onnx", "/etc/passwd", "manifest.json"):
        with pytest.raises(BundleError, match="is not among the files"):
            bundle.read(name)
    assert isinstance(bundle.load("fp32"),
                      ModelBytes) and bundle.read("model.onnx") == (copy / "model.onnx").read_bytes()


def test_a_model_of_another_format_is_refused(copy):
    """OpenVINO and ONNX Runtime tell formats by their first bytes; a bundle has ONNX only."""
    from .external import relist

    manifest = Bundle.open(copy).manifest
    (copy / manifest.models["fp32"].stages[0][1]).write_bytes(b'<?xml version="1.0"?><net name="x" version="11"></net>')
    relist(copy, manifest.files)
    with pytest.raises(BundleError, match="is no model of ours"):
        Bundle.open(copy)


def test_a_model_that_does_not_fit_its_listed_data_is_an_error(copy):
    pytest.importorskip("onnx", reason="onnx is not installed: pip install '.[export]'")
    from .external import move_out, relist

    manifest = move_out(copy).manifest
    (copy / "weights.bin").write_bytes(b"short")
    relist(copy, manifest.files)
    for name in CPU_RUNNERS:
        with pytest.raises((BundleError, RunnerError)):
            start(Bundle.open(copy), name)
