"""The SDK's surface: closing, pickling, options, thresholds, logs, short texts, colour, windows."""

from __future__ import annotations

import logging
import multiprocessing
import pickle
from importlib import resources

import numpy as np
import pytest

import universeg_rt
from universeg_rt import (
    BundleError,
    Ensemble,
    InputError,
    Percentiles,
    RunnerError,
    Segmenter,
    SupportSet,
    Window,
    available_runners,
)
from universeg_rt.runners import RUNNERS, Options, choose
from universeg_rt.runners.cpu.onnxruntime import StreamedOnnxRuntime

from ..conftest import discs


@pytest.fixture(scope="module")
def segmenter(small_bundle):
    return Segmenter.open(small_bundle, runner="onnxruntime", threads=1)


@pytest.fixture(scope="module")
def support():
    return SupportSet.from_arrays(*discs(5))


@pytest.fixture(scope="module")
def image():
    return discs(1, seed=3)[0][0]


def predict_elsewhere(task, image, out):
    out.put((task.predict(image).probability, repr(task), task.support.sha256, task.segmenter.runner.threads))


def test_a_spawned_child_gives_the_same_masks(segmenter, support, image):
    task = segmenter.prepare(support, Ensemble(3, 2, seed=4), aspect="pad", normalise=Percentiles(1, 99))
    context = multiprocessing.get_context("spawn")
    out = context.Queue()
    child = context.Process(target=predict_elsewhere, args=(task, image, out))
    child.start()
    probability, text, sha256, threads = out.get(timeout=120)
    child.join(20)
    assert child.exitcode == 0 and text == repr(task) and sha256 == support.sha256 and threads == 1
    assert np.array_equal(probability, task.predict(image).probability)


def test_pickles_are_paths_and_options(segmenter, support):
    assert len(pickle.dumps(segmenter)) < 2000
    again = pickle.loads(pickle.dumps(support))
    assert again.sha256 == support.sha256 and again.names == support.names and not again.images[0].flags.writeable
    with pytest.raises(InputError, match="make it with Segmenter.open"):
        pickle.dumps(Segmenter(segmenter.bundle, segmenter.runner))


def test_another_bundle_at_the_same_path_is_refused(small_bundle, tmp_path):
    import shutil

    folder = shutil.copytree(small_bundle, tmp_path / "bundle")
    pickled = pickle.dumps(Segmenter.open(folder, runner="onnxruntime", threads=1))
    (folder / "manifest.json").write_text((folder / "manifest.json").read_text() + "\n")
    with pytest.raises(BundleError, match="is not the one that was pickled"):
        pickle.loads(pickled)


def test_closing_gives_back_and_says_so(small_bundle, support, image):
    import gc
    import weakref

    with Segmenter.open(small_bundle, runner="onnxruntime", threads=1) as segmenter:
        runner = weakref.ref(segmenter.runner)
        with segmenter.prepare(support) as task:
            expected = task.predict(image).probability
        with pytest.raises(RunnerError, match="this Task is closed; prepare it again"):
            task.predict(image)
        with pytest.raises(RunnerError, match="closed"):
            pickle.dumps(task)
        task = segmenter.prepare(support)
        assert np.array_equal(task.predict(image).probability, expected)
    segmenter.close()
    gc.collect()
    assert runner() is None, "nobody holds the runner any more"
    for call in (
        lambda: task.predict(image),
        lambda: segmenter.prepare(support),
        segmenter.warm_up,
        lambda: pickle.dumps(segmenter),
        lambda: segmenter.estimate(4),
    ):
        with pytest.raises(RunnerError, match="this Segmenter is closed|a closed Segmenter cannot be pickled"):
            call()
    assert "closed" in repr(segmenter) and segmenter.runner.name == "onnxruntime"


def test_threshold_and_logits(segmenter, support, image):
    task = segmenter.prepare(support, Ensemble(3, 2))
    plain, low = task.predict(image), task.predict(image, threshold=0.2, logits=True)
    assert plain.logits is None and low.threshold == 0.2
    assert np.array_equal(low.probability, plain.probability) and np.array_equal(low.mask, plain.probability >= 0.2)
    assert low.logits.shape == (3, *segmenter.grid) and low.logits.dtype == np.float32
    from universeg_rt.imaging.preprocess import Placement

    mean = (1 / (1 + np.exp(-low.logits.astype(np.float64)))).mean(axis=0)
    assert np.abs(Placement.of(image.shape, segmenter.grid, "stretch").back(mean) - low.probability).max() < 1e-6


@pytest.mark.parametrize("threshold", [0, 1, -0.5, float("nan"), "0.5", True])
def test_thresholds_out_of_range(segmenter, support, image, threshold):
    with pytest.raises(InputError, match="threshold is"):
        segmenter.prepare(support).predict(image, threshold=threshold)


def test_warming_up_runs_the_runner(segmenter, support, monkeypatch):
    runs = []
    real = StreamedOnnxRuntime._run
    monkeypatch.setattr(
        StreamedOnnxRuntime, "_run", lambda self, *given: runs.append(given[1].shape) or real(self, *given)
    )
    segmenter.warm_up()
    segmenter.prepare(support).warm_up()
    assert runs == [(1, 1, *segmenter.grid)] * 3


def test_confidence_is_the_expected_dice(segmenter, support, image):
    prediction = segmenter.prepare(support).predict(image)
    p, m = prediction.probability.astype(np.float64), prediction.mask
    assert prediction.confidence == pytest.approx(2 * (p * m).sum() / (p.sum() + m.sum()))
    assert 0 <= prediction.confidence <= 1


def test_colour_is_its_luminance_as_in_the_command(segmenter, tmp_path):
    from PIL import Image

    from universeg_rt.imaging.files import read_image

    rng = np.random.default_rng(0)
    images, labels = discs(3)
    colour = (images[..., None] * rng.uniform(0.3, 1, 3)).astype(np.uint8)
    Image.fromarray(colour[0]).save(tmp_path / "colour.png")
    grey = read_image(tmp_path / "colour.png")
    support = SupportSet.from_arrays(colour, labels)
    assert np.array_equal(support.images[0], grey)
    task = segmenter.prepare(support)
    with_alpha = np.concatenate([colour[0], np.full((*grey.shape, 1), 9, np.uint8)], axis=2)
    for given in (colour[0], with_alpha):
        assert np.array_equal(task.predict(given).probability, task.predict(grey).probability)
    assert len(task.predict_batch(colour)) == 3
    with pytest.raises(InputError, match="as one colour image; give image"):
        task.predict_batch(colour[0])
    with pytest.raises(InputError, match="or colour of uint8 .*, not float32"):
        task.predict(colour[0].astype(np.float32))


def test_windows_and_percentiles_hold_for_support_and_query(segmenter):
    images, labels = discs(4)
    images = images.astype(np.float64)
    clean = segmenter.prepare(SupportSet.from_arrays(np.clip(images, 50, 200), labels)).predict(
        np.clip(images[0], 50, 200)
    )
    hot = images.copy()
    hot[:, 0, 0] = 1e6
    windowed = (np.clip(hot, 50, 200) - 50) / 150
    window = segmenter.prepare(SupportSet.from_arrays(hot, labels), normalise=Window(50, 200)).predict(hot[0])
    asked = segmenter.prepare(SupportSet.from_arrays(windowed, labels), normalise=Window(0, 1)).predict(windowed[0])
    assert np.array_equal(window.probability, asked.probability)
    assert np.abs(window.probability - clean.probability).mean() < 0.1
    low, high = (np.percentile(hot[0], q, method="nearest") for q in (1, 99))
    by_hand = [np.clip(i, *(np.percentile(i, q, method="nearest") for q in (1, 99))) for i in hot]
    ours = segmenter.prepare(SupportSet.from_arrays(hot, labels), normalise=Percentiles(1, 99)).predict(hot[0])
    assert high < 1e6 and low < high
    assert np.array_equal(
        ours.probability, segmenter.prepare(SupportSet.from_arrays(by_hand, labels)).predict(by_hand[0]).probability
    )


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: Window(3, 3), "the first below the second"),
        (lambda: Window(0, float("inf")), "finite"),
        (lambda: Window("a", 2), "finite"),
        (lambda: Percentiles(-1, 50), "accepted are 0 to 100"),
        (lambda: Percentiles(60, 40), "the first below"),
    ],
)
def test_ranges_that_cannot_be(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_a_window_beside_all_values_is_refused(segmenter, support, image):
    with pytest.raises(InputError, match="normalise is 'zscore'; accepted: 'minmax'"):
        segmenter.prepare(support, normalise="zscore")
    with pytest.raises(InputError, match="is constant within window 1000 to 2000 .its values lie from"):
        segmenter.prepare(support, normalise=Window(1000, 2000))


@pytest.mark.parametrize(
    "options, message",
    [
        ({"device": -1}, "device is -1"),
        ({"device": "0"}, "device is '0'"),
        ({"tf32": 1}, "tf32 is 1"),
        ({"plugin": 3}, "plugin is a int"),
        ({"cache": 3}, "the path is a int"),
        ({"instructions": 3}, "instructions is 3"),
        ({"threads": 0}, "threads is 0"),
    ],
)
def test_options_of_a_wrong_kind(small_bundle, options, message):
    with pytest.raises(InputError, match=message):
        Segmenter.open(small_bundle, **options)


def test_options_go_before_variables_and_variables_before_defaults(monkeypatch, tmp_path):
    for name in ("TF32", "PLUGIN", "CACHE", "INSTRUCTIONS"):
        monkeypatch.delenv(f"UNIVERSEG_RT_{name}", raising=False)
    plain = Options()
    assert not plain.use_tf32 and plain.plugins == () and plain.instruction_set == "auto"
    for name, value in (("TF32", "1"), ("PLUGIN", "a:b"), ("CACHE", str(tmp_path)), ("INSTRUCTIONS", "plain")):
        monkeypatch.setenv(f"UNIVERSEG_RT_{name}", value)
    assert plain.use_tf32 and [str(p) for p in plain.plugins] == ["a", "b"]
    assert plain.cache_folder == tmp_path and plain.instruction_set == "plain"
    given = Options(tf32=False, plugin="c", cache=tmp_path / "d", instructions="avx2")
    assert not given.use_tf32 and [str(p) for p in given.plugins] == ["c"]
    assert given.cache_folder == tmp_path / "d" and given.instruction_set == "avx2"


def test_available_runners_say_why_not(monkeypatch):
    class Fails:
        @classmethod
        def check_here(cls, options):
            raise RunnerError("it is not here; install it")

    class Starts:
        @classmethod
        def check_here(cls, options):
            return "Some GPU (cuda-bindings)"

    real, instead = choose.backend, {"tensorrt": Fails, "tensorrt-rtx": Starts}
    monkeypatch.setattr(choose, "backend", lambda name: instead.get(name) or real(name))
    states = {state.name: state for state in available_runners()}
    assert tuple(states) == RUNNERS and states["onnxruntime"].starts and states["onnxruntime"].reason == ""
    assert not states["tensorrt"].starts and states["tensorrt"].reason == "it is not here; install it"
    assert str(states["tensorrt-rtx"]) == "tensorrt-rtx: starts here on Some GPU (cuda-bindings)"
    assert str(states["onnxruntime"]) == "onnxruntime: starts here"


def test_what_falls_back_is_logged_and_nothing_is_printed(small_bundle, support, image, monkeypatch, caplog, capfd):
    segmenter = Segmenter.open(small_bundle, runner="onnxruntime", threads=1)
    task = segmenter.prepare(support)
    with caplog.at_level(logging.WARNING, "universeg_rt"):
        task.predict(image)
        assert not caplog.records
        segmenter.runner.notes = ("no CUDA graphs: a reason",)
        task.predict(image)
        task.predict(image)
    assert [record.getMessage() for record in caplog.records] == ["onnxruntime (fp32): no CUDA graphs: a reason"]
    assert capfd.readouterr() == ("", "")


def test_texts_are_short(segmenter, support, image):
    task = segmenter.prepare(support, Ensemble(2, 3))
    prediction = task.predict(image)
    for value, start in (
        (support, "SupportSet(5 entries, 40x36 uint8, labels mark "),
        (segmenter, "Segmenter(small, onnxruntime fp32, CPU"),
        (task, "Task(small, 5 entries, 2 members of 3"),
        (prediction, "Prediction(40x36, mask "),
    ):
        assert repr(value).startswith(start) and len(repr(value)) < 140 and "\n" not in repr(value)


def test_a_notebook_shows_a_prediction_as_a_picture(segmenter, support, image):
    import io

    from PIL import Image

    png = segmenter.prepare(support).predict(image)._repr_png_()
    assert Image.open(io.BytesIO(png)).size == image.shape[::-1]


def test_types_come_with_the_package():
    assert resources.files(universeg_rt).joinpath("py.typed").is_file()
