"""Freezing a task: the same answers where they must be the same, a price that no label leaks into, and bad input."""

import os
import pickle

import numpy as np
import pytest

from universeg_rt import Ensemble, InputError, RunnerError, Segmenter, SupportSet, frozen_files, proxies
from universeg_rt.bundle.onnx_file import tensors
from universeg_rt.ensemble import Draw
from universeg_rt.frozen.runners import open_frozen_runner
from universeg_rt.frozen_task import FrozenTask
from universeg_rt.imaging.metrics import dice

from ..conftest import discs, native_part

COUNT = 6
ENSEMBLES = [Ensemble(), Ensemble(3, 2, replacement=True, seed=1), Ensemble(2, 1)]


@pytest.fixture(scope="module")
def segmenter(small_bundle):
    native_part()
    return Segmenter.open(small_bundle, runner="native")


@pytest.fixture(scope="module")
def support():
    return SupportSet.from_arrays(*discs(COUNT))


@pytest.fixture(scope="module")
def images():
    return discs(3, seed=5)[0]


@pytest.mark.parametrize("runner", ["native", "onnxruntime"])
@pytest.mark.parametrize("ensemble", ENSEMBLES, ids=str)
def test_exact_is_the_task_itself_and_its_file_gives_the_same(segmenter, support, images, ensemble, runner, tmp_path):
    task = segmenter.prepare(support, ensemble)
    frozen = task.freeze(kind="exact")
    frozen.save(tmp_path / "task.onnx")
    opened = FrozenTask.open(tmp_path / "task.onnx", runner=runner)
    assert opened.kind == frozen.kind == "exact" and opened.record == frozen.record
    for image in images:
        wanted = task.predict(image)
        np.testing.assert_array_equal(frozen.predict(image).probability, wanted.probability)
        np.testing.assert_allclose(opened.predict(image).probability, wanted.probability, atol=1e-5)


@pytest.mark.parametrize("runner", ["native", "onnxruntime", "openvino"])
def test_with_the_query_as_its_only_proxy_static_is_exact(segmenter, support, images, runner, tmp_path, monkeypatch):
    if runner == "openvino":
        pytest.importorskip("openvino", reason="openvino is not installed: pip install '.[openvino]'")
    monkeypatch.setattr(proxies, "SMOOTH", 0)
    task = segmenter.prepare(support)
    for image in images:
        frozen = task.freeze([image], kind="static", half=False)
        frozen.save(tmp_path / "task.onnx")
        opened = FrozenTask.open(tmp_path / "task.onnx", runner=runner)
        wanted = task.predict(image, logits=True)
        got = opened.predict(image, logits=True)
        assert got.timing.runner == runner
        np.testing.assert_allclose(got.logits, wanted.logits, atol=2e-4)


@pytest.mark.parametrize("ensemble", ENSEMBLES, ids=str)
def test_constants_are_the_mean_over_the_members_as_often_as_they_were_drawn(segmenter, support, images, ensemble,
                                                                             monkeypatch):
    task = segmenter.prepare(support, ensemble)
    query = task.on_grid(images[:1])[0]
    runner, draw = segmenter.runner, task.draw
    entries = support.on_grid(segmenter.grid, "stretch")[draw.used]
    single = [runner.mean_constants(runner.prepare(entries, row[None]), query, np.ones(1))[1] for row in draw.weights]
    wanted = [np.mean([single[place][i] for place in draw.places], axis=0) for i in range(len(single[0]))]
    for shared in (False, True):
        if shared:  # sets too large to be held written out, prepared one by one
            monkeypatch.setattr("universeg_rt.runners.shared.GROUP_BYTES", 1)
        prepared = runner.prepare(entries, draw.weights)
        logits, maps = runner.mean_constants(prepared, query, draw.shares)
        np.testing.assert_array_equal(logits, runner.run(prepared, query[None])[0])
        for got, each in zip(maps, wanted, strict=True):
            np.testing.assert_allclose(got, each, atol=1e-5)


def test_batches_of_every_size_give_what_single_images_give(segmenter, support):
    frozen = segmenter.prepare(support).freeze(kind="static")
    images = discs(9, seed=8)[0]
    together = frozen.predict_batch(images)
    for image, each in zip(images, together, strict=True):
        np.testing.assert_array_equal(frozen.predict(image).probability, each.probability)


def test_what_stands_in_the_file_is_the_mean_over_the_proxies_and_the_price_is_by_the_mate(segmenter, support):
    task = segmenter.prepare(support)
    entries = support.on_grid(segmenter.grid, "stretch")
    order, runner = np.random.default_rng(0).permutation(COUNT), segmenter.runner
    spec, single, losses = segmenter.bundle.manifest.spec, {}, []
    for pair in order.reshape(-1, 2):
        rest = np.setdiff1d(np.arange(COUNT), pair)
        prepared = runner.prepare(entries[None, rest], np.full((1, len(rest)), 1 / len(rest), np.float32))
        for member in pair:
            single[member] = runner.mean_constants(prepared, entries[member, :1], np.ones(1))
        for member, mate in (pair, pair[::-1]):
            model = frozen_files.with_constants(task, proxies.constants_of([single[mate][1]], task), True)
            static = open_frozen_runner(model, "static", spec, "native", segmenter.options)
            masks = [logits[0, 0] >= 0 for logits in (single[member][0], static.run(entries[member, None, :1]))]
            losses.append([dice(mask, entries[member, 1] > 0) for mask in masks])
    frozen = task.freeze(kind="static", half=False)
    assert [frozen.price.exact_at_half, frozen.price.static_at_half] == pytest.approx(np.mean(losses, 0), abs=1e-3)
    held, turned = tensors(frozen.model), proxies.turned(entries[order, 0], 0)
    whole = [runner.mean_constants(task.prepared, image[None], np.ones(1))[1] for image in turned]
    for block in spec.blocks():
        alone = np.mean([constants[block.index] for _, constants in single.values()], axis=0)
        wanted = (alone + np.mean([constants[block.index] for constants in whole], axis=0)) / 2
        if not block.is_first and not block.is_decoder:
            wanted = proxies.smoothed(wanted.astype(np.float32))
        np.testing.assert_allclose(held[f"constant_{block.index}"][0], wanted, atol=1e-5)


def test_entries_that_are_all_the_same_cannot_be_left_out(segmenter):
    images, labels = discs(1)
    task = segmenter.prepare(SupportSet.from_arrays([images[0]] * 5, [labels[0]] * 5))
    assert task.freeze().kind == "exact"
    with pytest.raises(InputError, match="1 different support image:"):
        task.freeze(kind="static")


def test_auto_takes_exact_on_a_runner_without_constant_maps(small_bundle, support):
    frozen = Segmenter.open(small_bundle, runner="onnxruntime").prepare(support).freeze()
    assert frozen.kind == "exact" and "constant maps" in frozen.reason


@pytest.mark.parametrize("entries", [1, 2])
def test_a_support_of_which_none_can_be_left_out(segmenter, images, entries):
    task = segmenter.prepare(SupportSet.from_arrays(*discs(entries)))
    frozen = task.freeze()
    assert frozen.kind == "exact" and "cannot be measured" in frozen.reason and frozen.price.loss is None
    with pytest.raises(InputError, match="give images as proxies, or take kind='exact'"):
        task.freeze(kind="static")
    given = task.freeze(images, kind="static")
    assert given.kind == "static" and given.price.loss is None
    assert "cannot be measured on" in given.price.note and given.threshold == 0.5


def test_a_network_with_a_cross_activation_has_no_static_form(tmp_path):
    pytest.importorskip("torch", reason="exporting needs torch: pip install '.[export]'")
    from universeg_rt.export.build import build_bundle
    from universeg_rt.spec import NetworkSpec

    from ..conftest import quick_gate, random_weights

    spec = NetworkSpec("leaky_relu", (4, 4), (4,), "max_pool")
    with quick_gate():
        build_bundle(spec, random_weights(spec), tmp_path / "paper", name="paper", grid=(16, 16))
    task = Segmenter.open(tmp_path / "paper").prepare(SupportSet.from_arrays(*discs(4)))
    with pytest.raises(InputError, match="activation in the cross convolution.*kind='exact'"):
        task.freeze(kind="static")
    frozen = task.freeze()
    assert frozen.kind == "exact" and "activation" in frozen.reason


@pytest.mark.parametrize("options, message", [
    ({"kind": "fast"}, "kind is 'fast'; accepted: auto, static, exact"), ({"max_loss": -0.1}, "max_loss is -0.1"),
    ({"max_loss": True}, "max_loss is True"), ({"seed": -1}, "seed is -1"), ({"proxies": "mine"}, "proxies is 'mine'"),
    ({"proxies": []}, "proxies are no images at all"), ({"proxies": [np.zeros((9, 9))]}, "constant"),
    ({"proxies": np.zeros((9, 9))}, r"expected \(N,H,W\)"), ({"threshold": 1.0}, "threshold is 1.0"),
    ({"threshold": "0.5"}, "threshold is '0.5'"),
])
def test_bad_options(segmenter, support, options, message):
    with pytest.raises(InputError, match=message):
        segmenter.prepare(support).freeze(**options)


def test_a_closed_task_and_a_closed_frozen_task(segmenter, support, images):
    task = segmenter.prepare(support)
    frozen = task.freeze(kind="static")
    task.close()
    with pytest.raises(RunnerError, match="closed"):
        task.freeze()
    assert frozen.predict(images[0]).mask.shape == images[0].shape, "a static task needs its task no more"
    with frozen:
        pass
    with pytest.raises(RunnerError, match="closed"):
        frozen.predict(images[0])
    with pytest.raises(RunnerError, match="closed"):
        pickle.dumps(frozen)


def test_a_runner_without_constant_maps_says_what_to_do(small_bundle, support, images):
    task = Segmenter.open(small_bundle, runner="onnxruntime").prepare(support)
    with pytest.raises(RunnerError, match="runner='native' to freeze, or take kind='exact'"):
        task.freeze(images, kind="static")


def test_pickles(segmenter, support, images):
    frozen = segmenter.prepare(support).freeze(kind="static")
    again = pickle.loads(pickle.dumps(frozen))
    np.testing.assert_array_equal(again.predict(images[0]).probability, frozen.predict(images[0]).probability)


def test_half_constants_change_little_and_halve_the_file(segmenter, support, images, tmp_path):
    task = segmenter.prepare(support)
    sizes, masks = [], []
    for half in (True, False):
        frozen = task.freeze(kind="static", half=half)
        frozen.save(tmp_path / "task.onnx")
        sizes.append(os.path.getsize(tmp_path / "task.onnx"))
        masks.append(np.stack([frozen.predict(image).mask for image in images]))
    assert sizes[0] < 0.8 * sizes[1] and dice(*masks) > 0.99


def test_draw_counts_members_that_drew_the_same():
    draw = Draw.of(1, Ensemble(4, 1))
    assert draw.weights.shape == (1, 1) and draw.places.tolist() == [0] * 4 and draw.shares.tolist() == [1.0]
    draw = Draw.of(3, Ensemble(5, 2, seed=3))
    assert draw.shares.sum() == pytest.approx(1) and np.allclose(draw.weights.sum(1), 1)


def test_an_exact_file_too_large_for_onnx_is_refused_before_it_is_made(segmenter, support, monkeypatch):
    monkeypatch.setattr(frozen_files, "LARGEST_ONNX", 10**5)
    with pytest.raises(InputError, match="would hold 12 entries.*GB.*fewer members"):
        segmenter.prepare(support, Ensemble(2, 6)).freeze(kind="exact")
