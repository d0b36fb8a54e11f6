"""Pre-processing inside a frozen file: the answers of FrozenTask.predict, in plain ONNX Runtime."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("onnx", reason="onnx is not installed: pip install '.[export]'")
ort = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")

from universeg_rt import Segmenter, SupportSet
from universeg_rt.bundle import onnx_file
from universeg_rt.errors import BundleError, InputError
from universeg_rt.export.cli import main
from universeg_rt.export.emit.preprocess import with_preprocessing
from universeg_rt.export.frozen import int8_task
from universeg_rt.frozen import seal
from universeg_rt.frozen_task import FrozenTask
from universeg_rt.imaging.normalisation import Percentiles, Window
from universeg_rt.imaging.preprocess import resize

from ...conftest import discs

SIZES = ((128, 128), (200, 150), (57, 300))


@pytest.fixture(scope="module")
def segmenter():
    with Segmenter.open() as opened:
        yield opened


@pytest.fixture(scope="module")
def support():
    return SupportSet.from_arrays(*discs(5, 32, 32))


def of_size(height: int, width: int) -> np.ndarray:
    """A query (height, width) float32 that the support's network marks something in."""
    return resize(discs(1, 32, 32, seed=3)[0][0].astype(np.float32), (height, width))


def ran(model: bytes, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    assert [each.name for each in session.get_inputs()] == ["image"]
    mask, probability = session.run(["mask", "probability"], {"image": image})
    return mask, probability


def agrees(model: bytes, frozen: FrozenTask, image: np.ndarray) -> None:
    mask, probability = ran(model, image)
    expected = frozen.predict(image)
    assert mask.dtype == np.uint8 and mask.shape == probability.shape == image.shape
    assert probability.dtype == np.float32
    assert np.abs(probability - expected.probability).max() < 1e-4
    near = np.abs(expected.probability - frozen.threshold) < 1e-4
    assert np.array_equal(mask[~near], expected.mask[~near])
    assert np.array_equal(mask, probability >= np.float32(frozen.threshold)) and 0 < mask.mean() < 1


@pytest.mark.parametrize("kind", ["static", "exact"])
@pytest.mark.parametrize("image_type", ["float32", "uint8"])
def test_it_answers_as_predict_does_at_any_size(segmenter, support, kind, image_type):
    frozen = segmenter.prepare(support).freeze(kind=kind, threshold=0.4)
    model = with_preprocessing(frozen, image_type)
    for size in SIZES if kind == "static" else SIZES[1:2]:
        agrees(model, frozen, of_size(*size).astype(image_type))
    said = onnx_file.metadata(model)
    assert said["universeg.image"] == image_type and said["universeg.frozen"]
    seal.check(model)


def test_a_window_is_a_constant_in_it(segmenter, support):
    image = 3 * discs(1, 90, 140, seed=5)[0][0].astype(np.float32)
    low, high = (float(np.quantile(image, share)) for share in (0.2, 0.8))
    wide = segmenter.prepare(support, normalise=Window(-1000, 1000)).freeze(kind="static")
    frozen = FrozenTask.of_bytes(wide.model, "onnxruntime", segmenter.options)
    narrow = segmenter.prepare(
        SupportSet.from_arrays([image] * 3, [image > high] * 3), normalise=Window(low, high)
    ).freeze([image], kind="static")
    for task in (frozen, narrow):
        _, probability = ran(with_preprocessing(task), image)
        assert np.abs(probability - task.predict(image).probability).max() < 1e-4
    plain = FrozenTask(narrow.model, narrow.record, narrow.spec, narrow.runner)
    plain.normalise = "minmax"
    assert np.abs(plain.predict(image).probability - probability).max() > 1e-2, "the window changes the answer"


def test_int8_takes_it_too(segmenter, support):
    task = segmenter.prepare(support)
    frozen = int8_task(segmenter.bundle, task.freeze(kind="static"), task.on_grid(support.images))
    image = of_size(70, 61)
    mask, probability = ran(with_preprocessing(frozen), image)
    # A map's value that lies between two steps may round to either.
    assert np.mean(np.abs(probability - frozen.predict(image).probability)) < 1e-3
    assert mask.any()


@pytest.mark.parametrize("how", ["minmax", Window(-50, 50)])
def test_an_image_without_contrast_has_an_empty_mask(segmenter, support, how):
    frozen = segmenter.prepare(support, normalise=how).freeze(kind="static", threshold=0.1)
    image = np.full((50, 40), 7, np.float32)
    mask, probability = ran(with_preprocessing(frozen), image)
    assert not mask.any() and not probability.any() and not frozen.predict(image).mask.any()
    assert frozen.predict(of_size(50, 40)).mask.any()


@pytest.mark.parametrize("options, message", [
    ({"normalise": Percentiles(1, 99)}, "normalises by percentiles 1 to 99"),
    ({"aspect": "pad"}, "the aspect 'pad'"),
])
def test_what_it_cannot_do_is_refused(segmenter, support, options, message):
    with pytest.raises(InputError, match=message):
        with_preprocessing(segmenter.prepare(support, **options).freeze(kind="exact"))


def test_an_unknown_type_is_refused(segmenter, support):
    with pytest.raises(InputError, match="accepted: float32, uint8"):
        with_preprocessing(segmenter.prepare(support).freeze(kind="exact"), "int16")


def test_the_command_writes_it_and_the_sdk_says_why_it_does_not_read_it(tmp_path, capsys):
    images, labels = discs(4, 128, 128)
    np.savez(tmp_path / "support.npz", images=images, labels=labels)
    arguments = ["--freeze", str(tmp_path / "support.npz"), "--kind", "static", "--output", str(tmp_path / "task.onnx")]
    assert main([*arguments, "--image-type", "uint8"]) == 1
    assert "only for --include-preprocessing" in capsys.readouterr().err
    assert main([*arguments, "--include-preprocessing", "--image-type", "uint8"]) == 0
    model = (tmp_path / "task.onnx").read_bytes()
    assert f"({len(model):,} bytes)" in capsys.readouterr().out
    assert ran(model, np.arange(3000, dtype=np.uint16).reshape(50, 60).astype(np.uint8))[0].shape == (50, 60)
    with pytest.raises(BundleError, match="prepares the image itself"):
        FrozenTask.open(tmp_path / "task.onnx")
