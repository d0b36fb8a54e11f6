"""Opening a bundle checks it; what is wrong is named, with the cure."""

from __future__ import annotations

import json
import shutil

import pytest

from universeg_rt import Bundle, BundleError, InputError, Segmenter
from universeg_rt.runners import open_runner


@pytest.fixture
def copy(small_bundle, tmp_path):
    return shutil.copytree(small_bundle, tmp_path / "copy")


def edit(bundle, change):
    path = bundle / "manifest.json"
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


def test_a_good_bundle_says_what_it_is(small_bundle):
    bundle = Bundle.open(small_bundle)
    manifest = bundle.manifest
    assert manifest.schema_version == 1 and manifest.precisions == ("fp32",)
    assert set(manifest.files) == {str(p.relative_to(small_bundle)) for p in small_bundle.rglob("*.onnx")}
    assert manifest.parity["fp32"]["models"]["streamed"]["largest_logit_error"] < 1e-3
    assert manifest.licence == {"weights": "none"} and manifest.provenance == {"made": "for tests"}
    assert len(bundle.sha256) == len(manifest.weights_sha256) == 64


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
    ("{", "not whole JSON"), ("[]", "not a universeg_rt manifest"), ('{"schema_version": 1}', "incomplete or altered"),
    ('{"schema_version": 2}', "schema version 2, this installation reads up to 1; upgrade universeg_rt"),
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
    with pytest.raises(BundleError, match="lists models without their files"):
        Bundle.open(copy)


@pytest.mark.parametrize("field", ["spec", "input", "models", "files", "weights_sha256"])
def test_every_field_is_needed(copy, field):
    edit(copy, lambda v: v.pop(field))
    with pytest.raises(BundleError, match=field):
        Bundle.open(copy)


def test_runner_and_precision(small_bundle):
    bundle = Bundle.open(small_bundle)
    assert "default" in open_runner(bundle).reason
    with pytest.raises(InputError, match="runner is 'tpu'; accepted: auto, onnxruntime"):
        open_runner(bundle, "tpu")
    with pytest.raises(InputError, match="precision is 'int3'"):
        open_runner(bundle, precision="int3")
    for threads in (0, -1, 1.5, True):
        with pytest.raises(InputError, match="threads is"):
            Segmenter.open(small_bundle, threads=threads)


def test_the_shipped_bundle_opens():
    bundle = Bundle.open()
    manifest = bundle.manifest
    assert manifest.spec.encoder_features == (64,) * 4 and manifest.licence["weights"]
    for figures in manifest.parity["fp32"]["models"].values():
        assert figures["cases"] == 40 and figures["largest_logit_error"] <= 1e-3
    assert manifest.parity["fp32"]["cases"]["support_size"] == [1, 2, 7, 16, 64]
