"""Exact files on the native runner: the task's answers, and what it refuses."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from universeg_rt import Ensemble, InputError, RunnerError, Segmenter, SupportSet
from universeg_rt.bundle.onnx_file import tensors
from universeg_rt.frozen import native
from universeg_rt.frozen.record import EXACT, STATIC
from universeg_rt.frozen_task import FrozenTask
from universeg_rt.runners.options import Options

from ...conftest import discs, native_part, quick_gate, random_weights
from ..runners.conftest import queries


@pytest.fixture(autouse=True)
def built():
    native_part()


@pytest.mark.parametrize("members", [1, 3])
def test_an_exact_file_gives_the_answers_of_the_task_to_its_bits_where_there_is_one_member(small_bundle, tmp_path,
                                                                                           members):
    task = Segmenter.open(small_bundle, runner="native", threads=1).prepare(
        SupportSet.from_arrays(*discs(5)), Ensemble(members, 4))
    task.freeze(kind=EXACT).save(tmp_path / "task.onnx")
    opened = FrozenTask.open(tmp_path / "task.onnx", threads=1)
    assert (opened.runner.name, opened.runner.threads) == ("native", 1)
    for image, asked in zip(discs(2, seed=5)[0], queries(2)):
        np.testing.assert_allclose(opened.predict(image).probability, task.predict(image).probability, atol=1e-6)
        if members == 1:
            np.testing.assert_array_equal(opened.runner.run(asked[None]), task._run(asked[None])[:, 0])


def test_members_that_drew_the_same_set_share_it(small_bundle, tmp_path):
    """As in a Task: eight members of all three entries are one set, and twenty of one entry each are at most three."""
    for ensemble, sets in ((Ensemble(8), 1), (Ensemble(20, 1, seed=2), 3)):
        task = Segmenter.open(small_bundle, runner="native", threads=1).prepare(
            SupportSet.from_arrays(*discs(3)), ensemble)
        task.freeze(kind=EXACT).save(tmp_path / "task.onnx")
        opened = FrozenTask.open(tmp_path / "task.onnx", runner="native")
        assert opened.runner._prepared.sets == sets and opened.runner._shares.sum() == pytest.approx(1)
        image = discs(1, seed=5)[0][0]
        np.testing.assert_allclose(opened.predict(image).probability, task.predict(image).probability, atol=1e-6)


def test_a_file_in_half_precision_is_computed_in_float32_and_says_so(typed_bundle, tmp_path):
    support = SupportSet.from_arrays(*discs(4))
    half = Segmenter.open(typed_bundle, runner="onnxruntime", precision="fp16").prepare(support)
    half.freeze(kind=EXACT).save(tmp_path / "task.onnx")
    wanted = Segmenter.open(typed_bundle, runner="native", precision="fp32").prepare(support)
    opened, other = (FrozenTask.open(tmp_path / "task.onnx", runner=name) for name in ("native", "onnxruntime"))
    for image in discs(2, seed=5)[0]:
        exactly, found = wanted.predict(image).probability, opened.predict(image)
        assert found.timing.precision == "fp32" and other.predict(image).timing.precision == "fp16"
        assert np.abs(found.probability - exactly).max() < 1e-6
        assert np.abs(other.predict(image).probability - exactly).max() > 1e-5


def test_int8_is_left_to_onnx_runtime(typed_bundle, tmp_path):
    task = Segmenter.open(typed_bundle, runner="onnxruntime", precision="int8").prepare(
        SupportSet.from_arrays(*discs(4)))
    task.freeze(kind=EXACT).save(tmp_path / "task.onnx")
    with pytest.raises(RunnerError, match="not in int8; use runner='onnxruntime'"):
        FrozenTask.open(tmp_path / "task.onnx", runner="native")
    assert FrozenTask.open(tmp_path / "task.onnx").runner.name == "onnxruntime"


@pytest.mark.parametrize("variant", [{"cross_activation": "leaky_relu"}, {"downsample": "bilinear"}], ids=str)
def test_a_network_that_the_native_runner_lacks_is_left_to_onnx_runtime(tmp_path, variant):
    """The tensors of such a file may have the names of the others': run all the same, it would give another mask."""
    pytest.importorskip("torch", reason="exporting needs torch: pip install '.[export]'")
    from universeg_rt.export.build import build_bundle
    from universeg_rt.spec import NetworkSpec

    spec = NetworkSpec(**{"cross_activation": "none", "downsample": "max_pool", **variant}, encoder_features=(4, 4),
                       decoder_features=(4,))
    with quick_gate():
        build_bundle(spec, random_weights(spec), tmp_path / "other", name="other", grid=(16, 16))
    task = Segmenter.open(tmp_path / "other").prepare(SupportSet.from_arrays(*discs(4)))
    task.freeze(kind=EXACT).save(tmp_path / "task.onnx")
    with pytest.raises(RunnerError, match="the native runner cannot run this file .its .*; use runner='onnxruntime'"):
        FrozenTask.open(tmp_path / "task.onnx", runner="native")
    opened = FrozenTask.open(tmp_path / "task.onnx")
    assert opened.runner.name == "onnxruntime" and "not native" in opened.runner.reason
    image = discs(1, seed=5)[0][0]
    np.testing.assert_allclose(opened.predict(image).probability, task.predict(image).probability, atol=1e-4)


@pytest.mark.parametrize("kind", [EXACT, STATIC])
def test_errors_on_opening_name_their_cure(small_bundle, tmp_path, monkeypatch, kind):
    task = Segmenter.open(small_bundle, runner="native").prepare(SupportSet.from_arrays(*discs(4)))
    task.freeze(kind=kind).save(tmp_path / "task.onnx")
    with pytest.raises(InputError, match="instructions are 'sse'; accepted here: auto"):
        FrozenTask.open(tmp_path / "task.onnx", instructions="sse")
    for error, said in ((MemoryError(), "not enough memory for this frozen file; give this process more"),
                        (KeyError("enc0/target/bias"), "has no tensor 'enc0/target/bias'")):
        def fails(*_, error=error):
            raise error
        monkeypatch.setattr(native, f"_{kind}_arrays", fails)
        with pytest.raises(RunnerError, match=said):
            FrozenTask.open(tmp_path / "task.onnx", runner="native")
        assert FrozenTask.open(tmp_path / "task.onnx").runner.name == "onnxruntime"


def test_a_support_that_holds_nan_is_refused_on_opening(small_bundle):
    frozen = Segmenter.open(small_bundle).prepare(SupportSet.from_arrays(*discs(4))).freeze(kind=EXACT)
    images = tensors(frozen.model)["support_images"]
    damaged = frozen.model.replace(images.tobytes(), np.full_like(images, np.nan).tobytes())
    with pytest.raises(RunnerError, match="its support holds NaN"):
        native.open_native(damaged, EXACT, frozen.spec, Options())


def test_a_static_file_of_another_downsampling_is_refused(small_bundle):
    frozen = Segmenter.open(small_bundle, runner="native").prepare(SupportSet.from_arrays(*discs(4))).freeze(
        kind=STATIC)
    with pytest.raises(RunnerError, match="its downsampling is bilinear"):
        native.open_native(frozen.model, STATIC, replace(frozen.spec, downsample="bilinear"), Options())
