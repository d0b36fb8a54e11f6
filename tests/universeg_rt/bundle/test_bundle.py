"""Opening a bundle checks it; what is wrong is named, with the cure."""

from __future__ import annotations

import json
import shutil
import sys

import numpy as np
import pytest

from universeg_rt import Bundle, BundleError, InputError, RunnerError, Segmenter
from universeg_rt.bundle.manifest import sealed
from universeg_rt.bundle.model_bytes import ModelBytes
from universeg_rt.runners import RUNNERS, open_runner
from universeg_rt.runners.cpu.onnxruntime import StreamedOnnxRuntime


@pytest.fixture
def copy(small_bundle, tmp_path):
    return shutil.copytree(small_bundle, tmp_path / "copy")


def edit(bundle, change):
    path = bundle / "manifest.json"
    values = json.loads(path.read_text())
    change(values)
    path.write_text(sealed(values))


def test_a_good_bundle_says_what_it_is(small_bundle):
    bundle = Bundle.open(small_bundle)
    manifest = bundle.manifest
    assert manifest.schema_version == 3 and manifest.precisions == ("fp32",)
    assert set(manifest.files) == {
        str(p.relative_to(small_bundle))
        for p in small_bundle.rglob("*.*") if p.name != "manifest.json"
    }
    assert manifest.parity["fp32"]["models"]["streamed"]["largest_logit_error"] < 1e-3
    assert manifest.licence == {"weights": "none"} and manifest.provenance == {"made": "for tests"}
    assert len(bundle.sha256) == len(manifest.weights_sha256) == 64


def test_parts_of_a_precision(small_bundle):
    bundle = Bundle.open(small_bundle)
    for part, name in (("whole", "model.onnx"), ("prepare", "prepare.onnx"), ("predict", "predict.onnx")):
        assert bundle.model("fp32", part) == small_bundle / name
    with pytest.raises(BundleError, match="holds no int8 models; it has fp32: .*universeg-export --precision int8"):
        bundle.model("int8")


def test_a_manifest_from_before_the_pair_still_opens(copy):
    edit(copy, lambda v: [v["parity"].clear(), *(v["models"]["fp32"].pop(part) for part in ("prepare", "predict"))])
    bundle = Bundle.open(copy)
    assert bundle.manifest.models["fp32"].prepare is None and len(bundle.stages("fp32")) > 5
    with pytest.raises(BundleError, match="no predict model of fp32.*export it again"):
        bundle.model("fp32", "predict")


def test_missing(tmp_path):
    with pytest.raises(BundleError, match="no bundle at .*nothing is there; export it again"):
        Bundle.open(tmp_path / "absent")
    (tmp_path / "file").write_text("")
    with pytest.raises(BundleError, match="not a folder"):
        Bundle.open(tmp_path / "file")
    with pytest.raises(BundleError, match="manifest.json cannot be read"):
        Bundle.open(tmp_path)


def test_a_model_missing_truncated_or_altered(copy):
    model = copy / "model.onnx"
    content = model.read_bytes()
    model.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(BundleError, match="model.onnx is altered: its sha256"):
        Bundle.open(copy)
    model.write_bytes(content[:-9])
    with pytest.raises(BundleError, match="model.onnx is truncated"):
        Bundle.open(copy)
    model.unlink()
    with pytest.raises(BundleError, match="model.onnx is missing; export it again"):
        Bundle.open(copy)


@pytest.mark.parametrize("text, message", [
    ("{", "not whole JSON"), ("[]", "not a universeg_rt manifest"), ('{"schema_version": 3}', "incomplete or altered"),
    ('{"schema_version": 4}', "schema version 4, this installation reads 3; upgrade universeg_rt"),
    ('{"schema_version": 2}', "schema version 2, this installation reads 3; export or install the bundle again"),
    (b"\xff\xfe\x00", "not text"),
])
def test_bad_manifests(copy, text, message):
    (copy / "manifest.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(BundleError, match=message):
        Bundle.open(copy)


def test_files_outside_the_bundle_are_refused(copy):
    edit(copy, lambda v: v["files"].update({"../x": {"sha256": "0", "bytes": 1}}))
    with pytest.raises(BundleError, match="outside the bundle"):
        Bundle.open(copy)


def test_models_without_files_are_refused(copy):
    edit(copy, lambda v: v["files"].pop("model.onnx"))
    with pytest.raises(BundleError, match="lists models or engines without their files"):
        Bundle.open(copy)


@pytest.mark.parametrize("field", ["spec", "input", "models", "files", "weights_sha256"])
def test_every_field_is_needed(copy, field):
    edit(copy, lambda v: v.pop(field))
    with pytest.raises(BundleError, match=field):
        Bundle.open(copy)


@pytest.mark.parametrize("height", [30, 0, "32"])
def test_a_grid_that_the_network_cannot_take(copy, height):
    edit(copy, lambda v: v["input"].update(height=height))
    with pytest.raises(BundleError, match="no multiple of 4"):
        Bundle.open(copy)


@pytest.mark.parametrize("support, weights, query, message", [
    ((1, 2, 2, 32, 32), [[1.0, 0.5]], (1, 1, 32, 32), "sum to"),
    ((1, 2, 2, 32, 32), [[0.0, 0.0]], (1, 1, 32, 32), "sum to"),
    ((1, 2, 2, 32, 32), [[2.0, -1.0]], (1, 1, 32, 32), "sum to"),
    ((1, 2, 2, 32, 32), [[1.0]], (1, 1, 32, 32), "weights have shape"),
    ((1, 1, 3, 32, 32), [[1.0]], (1, 1, 32, 32), "support has shape"),
    ((1, 0, 2, 32, 32), [[]], (1, 1, 32, 32), "support has shape"),
    ((1, 1, 2, 32, 32), [[1.0]], (1, 32, 32), "queries have shape"),
    ((1, 1, 2, 32, 32), [[1.0]], (1, 1, 16, 32), "prepared at"),
])
def test_the_runner_refuses_what_does_not_fit(small_bundle, support, weights, query, message):
    runner = open_runner(Bundle.open(small_bundle))
    with pytest.raises(InputError, match=message):
        runner.run(runner.prepare(np.zeros(support, np.float32), np.array(weights, np.float32)),
                   np.zeros(query, np.float32))


def test_what_fails_inside_onnx_runtime_is_a_runner_error(small_bundle):
    runner = open_runner(Bundle.open(small_bundle), "onnxruntime")
    odd = runner.prepare(np.zeros((1, 1, 2, 30, 30), np.float32), np.ones((1, 1), np.float32))
    with pytest.raises(RunnerError, match="failed in stage"):
        runner.run(odd, np.zeros((1, 1, 30, 30), np.float32))
    (small := small_bundle.parent / "no.onnx").write_bytes(b"no model")
    with pytest.raises(RunnerError, match="cannot load"):
        StreamedOnnxRuntime([("x", ModelBytes.of_file(small))])


def test_runner_and_precision(small_bundle):
    bundle = Bundle.open(small_bundle)
    assert "fastest" in open_runner(bundle).reason
    with pytest.raises(InputError, match="runner is 'tpu'; accepted: auto, tensorrt, .*onnxruntime"):
        open_runner(bundle, "tpu")
    with pytest.raises(BundleError, match="holds no int8 models; it has fp32: choose one of these"):
        open_runner(bundle, precision="int8")
    with pytest.raises(InputError, match="precision is 'int3'"):
        open_runner(bundle, precision="int3")
    for runner in ("auto", *RUNNERS):
        with pytest.raises(BundleError,
                           match="holds no int8 models; it has fp32: choose one of these, or export the bundle again"):
            open_runner(bundle, runner, precision="int8")
    for threads in (0, -1, 1.5, True):
        with pytest.raises(InputError, match="threads is"):
            Segmenter.open(small_bundle, threads=threads)


def test_a_missing_openvino_is_an_error_with_the_cure(small_bundle, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    monkeypatch.delitem(sys.modules, "openvino.frontend.onnx", raising=False)
    with pytest.raises(RunnerError, match=r"pip install '\.\[openvino\]' in a clone"):
        open_runner(Bundle.open(small_bundle), "openvino")
    assert open_runner(Bundle.open(small_bundle)).name in ("native", "onnxruntime")


def test_the_shipped_bundle_opens():
    bundle = Bundle.open()
    manifest = bundle.manifest
    assert manifest.spec.encoder_features == (64,) * 4 and manifest.licence["weights"]
    for figures in manifest.parity["fp32"]["models"].values():
        assert figures["cases"] == 40 and figures["largest_logit_error"] <= 1e-3
    assert manifest.parity["fp32"]["cases"]["support_size"] == [1, 2, 7, 16, 64]
