"""The OpenVINO runner: the answers of ONNX Runtime, a cache that is used, and what it says where it is not."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("openvino", reason="openvino is not installed: pip install '.[openvino]'")

from universeg_rt import Bundle, Ensemble, RunnerError, Segmenter, SupportSet
from universeg_rt.bundle.model_bytes import ModelBytes
from universeg_rt.runners import open_runner
from universeg_rt.runners.cpu.onnxruntime import StreamedOnnxRuntime
from universeg_rt.runners.cpu.openvino import StreamedOpenVino
from universeg_rt.spec import NetworkSpec
from universeg_rt.storage.cache import VARIABLE

from ....conftest import discs, random_weights


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv(VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache"


def blobs(cache) -> dict:
    return {p: p.read_bytes() for p in sorted(cache.rglob("*.blob"))}


@pytest.mark.parametrize("spec", [
    NetworkSpec("none", (6, 5, 7), (4, 6), "max_pool"), NetworkSpec("leaky_relu", (5, 6, 4), (6, 5), "bilinear"),
    NetworkSpec("none", (9, 4), (5,), "bilinear"),
], ids=["v1", "paper", "averaging"])
def test_every_operation_gives_what_onnx_runtime_gives(spec, tmp_path):
    pytest.importorskip("onnx", reason="emitting stages needs onnx: pip install '.[export]'")
    from universeg_rt.export.emit import emit_stages
    from universeg_rt.export.folds import fold

    files = []
    for position, stage in enumerate(emit_stages(fold(spec, random_weights(spec)), {}, "0")):
        files.append((stage.name, tmp_path / f"{position:02}.onnx"))
        files[-1][1].write_bytes(stage.model.SerializeToString())
    files = [(name, ModelBytes.of_file(path)) for name, path in files]
    rng = np.random.default_rng(0)
    sizes = [(1, 32, 32), (9, 64, 40), (3, 128, 128)]
    expected, found = StreamedOnnxRuntime(files), StreamedOpenVino(files)
    for entries, height, width in sizes:
        support = rng.random((2, entries, 2, height, width), np.float32)
        weights = rng.random((2, entries), np.float32)
        weights /= weights.sum(axis=1, keepdims=True)
        queries = rng.random((2, 1, height, width), np.float32)
        a, b = (r.run(r.prepare(support, weights), queries) for r in (expected, found))
        assert np.abs(a - b).max() < 1e-4 * max(1.0, np.abs(a).max())


def test_predictions_are_those_of_onnx_runtime_and_say_what_ran(small_bundle):
    support, image = SupportSet.from_arrays(*discs(7)), discs(1, 45, 61, seed=9)[0][0]
    ensemble = Ensemble(members=3, support_size=5, seed=1)
    a, b = (Segmenter.open(small_bundle, runner=r).prepare(support, ensemble).predict(image)
            for r in ("onnxruntime", "openvino"))
    assert np.abs(a.probability - b.probability).max() < 1e-5
    assert (b.timing.runner, b.timing.precision, b.timing.notes) == ("openvino", "fp32", ())
    assert a.timing.runner == "onnxruntime"


def test_what_was_compiled_is_used_again(small_bundle, cache, monkeypatch):
    bundle = Bundle.open(small_bundle)
    first = open_runner(bundle, "openvino")
    made = blobs(cache)
    assert len(made) == len(bundle.stages("fp32")) and all(bundle.sha256[:32] in str(p) for p in made)
    times = {p: p.stat().st_mtime_ns for p in made}
    second = open_runner(bundle, "openvino")
    assert blobs(cache) == made and {p: p.stat().st_mtime_ns for p in made} == times
    assert first.notes == second.notes == () and second.reason == "asked for"
    support, weights = np.random.default_rng(0).random((1, 3, 2, 32, 32), np.float32), np.full((1, 3), 1 / 3,
                                                                                               np.float32)
    a, b = (r.run(r.prepare(support, weights), support[:, :1, 0]) for r in (first, second))
    assert np.array_equal(a, b)
    # A cache is only read where it fits: another number of threads compiles its own.
    open_runner(bundle, "openvino", threads=1 if first.threads > 1 else 2)
    assert len(blobs(cache)) == 2 * len(made)


def test_a_cache_of_another_version_is_left_alone_and_said(small_bundle, cache):
    bundle = Bundle.open(small_bundle)
    open_runner(bundle, "openvino")
    (folder,) = {p.parent for p in blobs(cache)}
    old = folder.rename(folder.with_name("2024.9.9-0123456789abcdef"))
    before = blobs(cache)
    runner = open_runner(bundle, "openvino")
    (note,) = runner.notes
    assert "is of OpenVINO 2024.9.9: left as it is, compiled again" in note and note in runner.reason
    assert {p: data for p, data in blobs(cache).items() if p.parent == old} == before
    assert len(blobs(cache)) == 2 * len(before)
    assert open_runner(bundle, "openvino").notes == (), "said once; from then on both versions have theirs"


@pytest.mark.parametrize("damage, said", [
    (lambda data: data[:-100], "damaged"),
    (lambda data: b"", "damaged"),
    (lambda data: data[:40] + b"x" + data[41:], "damaged"),
    (lambda data: __import__("hashlib").sha256(b"no model").digest() + b"no model", "refused"),
])
def test_a_damaged_cache_is_made_again_and_said(small_bundle, cache, damage, said):
    bundle = Bundle.open(small_bundle)
    open_runner(bundle, "openvino")
    path, data = next(iter(blobs(cache).items()))
    path.write_bytes(damage(data))
    (note,) = open_runner(bundle, "openvino").notes
    assert said in note and path.name in note
    assert open_runner(bundle, "openvino").notes == () and path.read_bytes() != damage(data)


def test_a_cache_that_cannot_be_written_is_said_in_the_prediction(small_bundle, cache):
    cache.write_text("a file where the folder should be")
    segmenter = Segmenter.open(small_bundle, runner="openvino")
    prediction = segmenter.prepare(SupportSet.from_arrays(*discs(2))).predict(discs(1, seed=5)[0][0])
    assert any("cannot be written" in note and VARIABLE in note for note in prediction.timing.notes)


def test_what_fails_inside_openvino_is_a_runner_error(small_bundle, tmp_path):
    runner = open_runner(Bundle.open(small_bundle), "openvino")
    odd = runner.prepare(np.zeros((1, 1, 2, 30, 30), np.float32), np.ones((1, 1), np.float32))
    with pytest.raises(RunnerError, match="OpenVINO failed in stage"):
        runner.run(odd, np.zeros((1, 1, 30, 30), np.float32))
    (tmp_path / "no.onnx").write_bytes(b"no model")
    with pytest.raises(RunnerError, match="OpenVINO cannot load"):
        StreamedOpenVino([("x", ModelBytes.of_file(tmp_path / "no.onnx"))])


def test_neither_onnx_nor_torch_is_needed(small_bundle):
    code = ("import sys; sys.modules['onnx'] = sys.modules['torch'] = None\n"
            "from universeg_rt import Segmenter\n"
            f"print(Segmenter.open({str(small_bundle)!r}, runner='openvino').runner.name)")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "openvino", done.stderr


def test_signals_come_through_after_runners_are_gone(small_bundle):
    """Dropped in the order in which they were opened, which leaves OpenVINO's own signal stacks without memory."""
    code = f"""
import gc, os, signal
from universeg_rt import Segmenter

first, second = (Segmenter.open({str(small_bundle)!r}, runner="openvino") for _ in range(2))
del first
gc.collect()
del second
gc.collect()
signal.signal(signal.SIGUSR1, lambda *_: print("alive"))
os.kill(os.getpid(), signal.SIGUSR1)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "alive\n"), done.stderr
