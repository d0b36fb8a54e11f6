"""Bundles with several precisions: their files, reports and provenance, what runs from them, and gates that fail."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="onnx is not installed: pip install '.[export]'")
torch = pytest.importorskip("torch", reason="torch is not installed: pip install torch")

from universeg_rt import Bundle, Segmenter, SupportSet
from universeg_rt.bundle.manifest import Manifest
from universeg_rt.bundle.weights import WEIGHTS, read_tensors
from universeg_rt.errors import BundleError, InputError, ParityError
from universeg_rt.export import build
from universeg_rt.export.cli import main
from universeg_rt.export.gate import parity
from universeg_rt.export.gate.held_out import HeldOutTolerance
from universeg_rt.export.gate.parity import HalfTolerance, MaskTolerance, Tolerance
from universeg_rt.export.int8 import sensitivity
from universeg_rt.export.int8.calibration import support_episodes, synthetic_episodes
from universeg_rt.training.network.checkpoint import save_checkpoint

from ..conftest import SMALL_GRID, SMALL_SPEC, discs, quick_gate, random_weights

pytestmark = [pytest.mark.torch, pytest.mark.slow]

# A network of a few features with random weights has nothing that would even errors out, and no task that it can solve.
LAX = {"int8_tolerance": MaskTolerance(0.2, 0.1), "held_out_tolerance": HeldOutTolerance(0.1, 0.1)}
NATIVE = importlib.util.find_spec("universeg_rt._native") is not None


@pytest.fixture(scope="module")
def quick():
    """A small gate, and the reference network run once on each of its inputs for all exports of this file."""
    run, known = parity.Reference._run, {}

    def once(self, *given):
        weights = b"".join(value.tobytes() for value in self.weights.values())
        key = hashlib.sha256(b"".join((repr(self.spec).encode(), weights, *(np.asarray(x).tobytes() for x in given))))
        if key.digest() not in known:
            known[key.digest()] = run(self, *given)
        return known[key.digest()]

    with quick_gate() as patch:
        patch.setattr(parity.Reference, "_run", once)
        patch.setattr(build, "HELD_OUT_TASKS", 2)
        yield


def make(folder, precisions=("int8", "fp16"), **options):
    options = {"calibration": synthetic_episodes(SMALL_GRID, 3, 2, 3), **LAX, **options}
    return build.build_bundle(SMALL_SPEC, random_weights(SMALL_SPEC), folder, name="b", grid=SMALL_GRID,
                              precisions=precisions, **options)


@pytest.fixture(scope="module")
def bundle(quick, tmp_path_factory) -> Bundle:
    return make(tmp_path_factory.mktemp("bundles") / "all").bundle


def test_files_and_manifest(bundle):
    manifest = bundle.manifest
    assert sorted(manifest.precisions) == ["fp16", "fp32", "int8"], "fp32 is always there"
    assert set(manifest.files) == {
        str(p.relative_to(bundle.path))
        for p in bundle.path.rglob("*.*") if p.name != "manifest.json"
    }
    for precision in ("fp16", "int8"):
        assert bundle.model(precision) == bundle.path / f"{precision}.model.onnx"
        assert bundle.model(precision, "prepare").name == f"{precision}.prepare.onnx"
        assert bundle.model(precision, "predict").is_file()
        assert all(path.parent == bundle.path and path.name.startswith(f"{precision}.stage.")
                   for _, path in bundle.stages(precision))
        assert [name for name, _ in bundle.stages(precision)] == [name for name, _ in bundle.stages("fp32")]
        assert (bundle.manifest.models[precision].native is None) == (precision == "fp16")
        assert (bundle.manifest.models[precision].static is None) == (precision == "int8")
        metadata = {p.key: p.value for p in onnx.load(bundle.model(precision), load_external_data=False).metadata_props}
        assert metadata["universeg.precision"] == precision
    assert bundle.model("int8", "native") == bundle.path / "int8.native.json"
    assert [bundle.model(p, "static").name for p in ("fp32", "fp16")] == ["static.onnx", "fp16.static.onnx"]
    with pytest.raises(BundleError, match="no static model of int8; take fp32 or fp16"):
        bundle.model("int8", "static")
    assert Manifest.from_json(manifest.to_json(), "m") == manifest


def test_every_precision_has_its_report(bundle):
    reports = bundle.manifest.parity
    assert {p: reports[p]["tolerance"]["kind"] for p in reports} == {
        "fp32": "Tolerance", "fp16": "HalfTolerance", "int8": "MaskTolerance"}
    for precision, report in reports.items():
        native = {"native"} if precision != "fp16" and NATIVE else set()
        static = {"static"} if precision != "int8" else set()
        assert set(report["models"]) == {"whole", "pair", "streamed"} | native | static
        for figures in report["models"].values():
            assert {"largest_logit_error", "flipped_pixels", "pixels", "smallest_dice"} <= set(figures)
            assert ("largest_logit_error_over_plain_half" in figures) == (precision == "fp16")
    errors = [reports[p]["models"]["whole"]["largest_logit_error"] for p in ("fp32", "fp16", "int8")]
    assert errors == sorted(errors) and errors[0] < 1e-4
    held_out = reports["int8"]["held_out"]
    assert set(held_out["models"]) == set(reports["int8"]["models"])
    assert held_out["tasks"] == 2
    assert set(held_out["models"]["streamed"]) >= {"dice", "dice_float32", "mean_dice_loss", "flipped"}
    calibration = bundle.manifest.provenance["calibration"]
    assert calibration["seed"] == 3 and calibration["method"] and calibration["entries"] == [3]
    assert len(calibration["data_sha256"]) == 64
    assert calibration["data_sha256"] != held_out["data_sha256"]


def test_every_precision_runs_from_the_bundle_and_auto_is_float32(bundle):
    images, labels = discs(3)
    masks = {}
    for precision in ("fp32", "fp16", "int8", "auto"):
        segmenter = Segmenter.open(bundle.path, precision=precision)
        masks[precision] = segmenter.prepare(SupportSet.from_arrays(images[:2],
                                                                    labels[:2])).predict(images[2]).probability
        assert segmenter.runner.precision == ("fp32" if precision == "auto" else precision)
    assert np.array_equal(masks["auto"], masks["fp32"])
    assert 0 < np.abs(masks["fp16"] - masks["fp32"]).max() < 0.02
    assert 0 < np.abs(masks["int8"] - masks["fp32"]).mean() < 0.1


def test_the_same_seed_gives_the_same_bundle(bundle, quick, tmp_path):
    assert make(tmp_path / "again").bundle.manifest.files == bundle.manifest.files


@pytest.mark.parametrize("options, message", [
    ({"half_tolerance": HalfTolerance(logit_error=0, times=0.01)
      }, "over tolerance.*times 0.01.*plain half precision.*in float32"),
    ({"int8_tolerance": MaskTolerance(flipped=0.0)}, "over tolerance.*flipped 0, .*pixels flipped.*--calibration"),
    ({"int8_tolerance": MaskTolerance(0.2, flipped_in_all=0.0)
      }, "pixels flipped in all, accepted is a share of 0; .*--calibration"),
    ({"held_out_tolerance": HeldOutTolerance(flipped=-1)
      }, "held-out tasks.*accepted -1.*images like yours .--calibration"),
])
def test_a_precision_that_fails_leaves_the_others(quick, tmp_path, options, message):
    exported = make(tmp_path / "b", **options)
    failed, = exported.failed
    left = {"fp32", "fp16", "int8"} - {failed}
    assert re.search(
        message, exported.failed[failed]) and exported.failed[failed].endswith(f"export without --precision {failed}")
    assert "\n" not in exported.failed[failed]
    manifest = Bundle.open(tmp_path / "b").manifest
    assert set(manifest.precisions) == set(manifest.parity) == set(exported.reports) == left
    left_over = [path.name for path in (tmp_path / "b").iterdir() if path.name.startswith(failed)]
    assert not left_over and not any(name.startswith(failed) for name in manifest.files)
    numbers = read_tensors((tmp_path / "b" / WEIGHTS).read_bytes())
    assert any(value.dtype == np.int8 for value in numbers.values()) == ("int8" in left)
    assert ("calibration" in manifest.provenance) == ("int8" in left)


def test_float32_that_fails_leaves_nothing_behind(quick, tmp_path):
    with pytest.raises(ParityError, match="over tolerance"):
        make(tmp_path / "b", tolerance=Tolerance(logit_error=-1))
    assert list(tmp_path.iterdir()) == []


def test_the_cheapest_gate_comes_first_and_the_reference_runs_once_for_all(quick, tmp_path, monkeypatch):
    """int8's held-out tasks before any run of the reference;
    then one run of it for each input, and one in half precision."""
    ran = []
    run, held_out = parity.Reference._run, build.check_held_out
    monkeypatch.setattr(parity.Reference, "_run", lambda self, *given: ran.append(given[-1]) or run(self, *given))
    monkeypatch.setattr(build, "check_held_out", lambda *given: ran.append("held out") or held_out(*given))
    make(tmp_path / "b")
    inputs = len(parity.KINDS) * len(parity.IMAGE_SIZES) * len(parity.SUPPORT_SIZES)
    assert ran[0] == "held out" and ran.count("held out") == 1
    assert ran.count(False) == ran.count(True) == inputs


def test_other_images_are_calibrated_on_and_synthetic_tasks_judge_too(quick, tmp_path, monkeypatch):
    images, labels = discs(3)
    np.savez(tmp_path / "mine.npz", images=images, labels=labels)
    judged = []
    spare = sensitivity.spare_blocks
    monkeypatch.setattr(sensitivity, "spare_blocks",
                        lambda n, q, episodes, limit: judged.append(len(episodes)) or spare(n, q, episodes, limit))
    exported = make(tmp_path / "b", ("int8",), calibration=support_episodes(tmp_path / "mine.npz", SMALL_GRID, 0),
                    held_out_tolerance=HeldOutTolerance(mean_dice_loss=-1, flipped=0.1))
    assert judged == [3 + sensitivity.EPISODES]
    assert "leave it out (then synthetic tasks" in exported.failed["int8"]


def test_unknown_precision(tmp_path):
    with pytest.raises(InputError, match="precisions int4; accepted: fp32, fp16, int8"):
        make(tmp_path / "b", precisions=("int4",), calibration=None)


def test_a_precision_that_was_not_exported(small_bundle):
    with pytest.raises(BundleError,
                       match="holds no fp16 models; it has fp32: choose one of these, or export .*--precision fp16"):
        Segmenter.open(small_bundle, precision="fp16")


def test_the_command(quick, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(build.build_bundle, "__kwdefaults__", {**build.build_bundle.__kwdefaults__, **LAX})
    save_checkpoint(tmp_path / "w.safetensors", SMALL_SPEC, random_weights(SMALL_SPEC))
    images, labels = discs(3)
    np.savez(tmp_path / "mine.npz", images=images, labels=labels)
    base = ["--checkpoint", str(tmp_path / "w.safetensors"), "--output", str(tmp_path / "out"), "--grid", "32", "32"]
    assert main([*base, "--calibration", str(tmp_path / "mine.npz")]) == 1
    assert "--calibration is for int8 only" in capsys.readouterr().err
    assert main([*base, "--precision", "int8", "--calibration", str(tmp_path / "absent.npz")]) == 1
    err = capsys.readouterr().err.strip()
    assert "calibration data cannot be used" in err and "\n" not in err and not (tmp_path / "out").exists()
    good = ["--precision", "int8", "--calibration", str(tmp_path / "mine.npz")]
    with monkeypatch.context() as patch:
        patch.setitem(build.build_bundle.__kwdefaults__, "held_out_tolerance",
                      HeldOutTolerance(mean_dice_loss=-1, flipped=0.1))
        assert main([*base, *good]) == 1
    said = capsys.readouterr()
    assert said.err.strip().splitlines()[-1].startswith(
        "universeg-export: the bundle is without int8. int8: ") and "fp32\n" in said.out
    assert Bundle.open(tmp_path / "out").manifest.precisions == ("fp32",)
    assert main([*base, *good]) == 0
    out = capsys.readouterr().out
    assert "int8 streamed on 2 held-out tasks" in out and "fp32\n" in out
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert sorted(manifest["models"]) == ["fp32", "int8"]
    assert manifest["provenance"]["calibration"]["source"] == "support set mine.npz"
