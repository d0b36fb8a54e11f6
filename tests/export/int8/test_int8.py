"""Int8: what is quantised and how, that ONNX Runtime fuses it, calibration data good and bad, the same bytes each
time."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

torch = pytest.importorskip("torch", reason="torch is not installed: pip install torch")
ort = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: pip install onnxruntime")

from universeg_rt.export.emit import emit_predict, emit_prepare, emit_stages, emit_whole
from universeg_rt.export.emit.native import native_arrays
from universeg_rt.export.emit.quantise import (
    WEIGHT_LIMIT,
    Quantisation,
    entry_convolutions,
    quantise_weight,
    quantised_convolutions,
)
from universeg_rt.export.folds import fold
from universeg_rt.export.gate.episodes import CalibrationData, Episode
from universeg_rt.export.int8.calibration import (
    best_scale,
    calibrate,
    support_episodes,
    synthetic_episodes,
)
from universeg_rt.export.precisions import runner_model, whole_model

from universeg_rt.bundle.model_bytes import ModelBytes
from universeg_rt.errors import InputError
from universeg_rt.runners.cpu.onnxruntime import StreamedOnnxRuntime
from universeg_rt.spec import NetworkSpec

from ...conftest import SMALL_SPEC, discs, native_model, random_weights

pytestmark = pytest.mark.torch


def noise_episodes(grid=(16, 16), count=2, seed=0) -> CalibrationData:
    """Cheaper than the generator's."""
    rng = np.random.default_rng(seed)

    def maps(*shape):
        return rng.random(shape).astype(np.float32)

    return CalibrationData("noise", seed, tuple(
        Episode(maps(1, 1, *grid), maps(1, 1, *grid).round(), maps(1, 3, 2, *grid)) for _ in range(count)))


@pytest.fixture
def network(small_spec):
    return fold(small_spec, random_weights(small_spec))


@pytest.fixture
def plan(network) -> Quantisation:
    return calibrate(network, noise_episodes())


def constants(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {i.name: numpy_helper.to_array(i) for i in model.graph.initializer}


def producers(model: onnx.ModelProto) -> dict[str, onnx.NodeProto]:
    return {o: n for n in model.graph.node for o in n.output}


def test_weights_of_each_channel_come_back_within_half_a_step():
    weight = np.random.default_rng(0).standard_normal(
        (5, 3, 3, 3)).astype(np.float32) * np.array([1, 10, 0.01, 0, 3], np.float32)[:, None, None, None]
    integers, scales = quantise_weight(weight)
    assert integers.dtype == np.int8 and scales.shape == (5,) and (scales > 0).all()
    assert np.abs(integers).reshape(
        5, -1).max(axis=1).tolist() == [WEIGHT_LIMIT, WEIGHT_LIMIT, WEIGHT_LIMIT, 0, WEIGHT_LIMIT]
    steps = scales[:, None, None, None]
    assert (np.abs(integers * steps - weight) <= steps * 0.5001).all()
    assert 255 * WEIGHT_LIMIT * 2 < 2**15, "two products must fit in 16 bits"


def test_a_bias_fits_in_32_bits_however_small_its_channel_s_weights_are():
    weight = np.ones((4, 2, 3, 3), np.float32) * np.array([1, 1e-9, 0, 0], np.float32)[:, None, None, None]
    bias, scale = np.array([0.5, -0.5, 0.5, 0], np.float32), 0.05
    integers, scales = quantise_weight(weight, bias, scale)
    steps = np.round(bias / (scale * scales.astype(np.float64)))
    assert (np.abs(steps) < 2**31).all() and np.allclose(steps * scale * scales, bias, atol=1e-3)
    assert np.array_equal(integers[0], np.full((2, 3, 3), WEIGHT_LIMIT)) and (scales > 0).all()


def test_the_structure_of_the_models(network, plan):
    names, _ = quantised_convolutions(network)
    assert names
    for model in (emit_whole(network, {}, "0", quantisation=plan), emit_predict(network, {}, "0", quantisation=plan)):
        values, made = constants(model), producers(model)
        convolutions = {n.name: n for n in model.graph.node if n.op_type == "Conv"}
        assert set(names) <= set(convolutions)
        for name, node in convolutions.items():
            if name not in names:
                assert f"{name}/weight" in values, f"{name} must stay in float"
                continue
            data, weight = (made[i] for i in node.input[:2])
            assert data.op_type == weight.op_type == "DequantizeLinear"
            integers, scales, zero_points = (values[i] for i in weight.input)
            assert integers.dtype == np.int8 and scales.shape == zero_points.shape == (len(integers),)
            assert not zero_points.any() and {a.name: a.i for a in weight.attribute} == {"axis": 0}
            rounding = made[data.input[0]]
            assert rounding.op_type == "QuantizeLinear" and list(rounding.input[1:]) == list(data.input[1:])
            scale, zero = (values[i] for i in rounding.input[1:])
            assert scale.shape == () and float(scale) == np.float32(plan.inputs[name])
            assert zero.dtype == np.int8 and zero == 0, "TensorRT takes symmetric int8 only"
            assert all(values[i].dtype == np.float32 for i in node.input[2:])
        kinds = {i.data_type for i in model.graph.initializer}
        assert TensorProto.UINT8 not in kinds and TensorProto.INT32 not in kinds


def test_what_stays_in_float(network):
    names, ends = quantised_convolutions(network)
    first, last = network.blocks[0].label, network.blocks[-1].label
    assert "head" not in names and f"{first}/support_term" not in names and f"{first}/composed" not in names
    assert not any(
        name.startswith((f"{first}/", f"{last}/")) and name.endswith(("query_term", "target", "mean_term"))
        for name in names)
    inner = [b for b in network.blocks[1:-1]]
    assert all(f"{b.label}/{part}" in names for b in inner
               for part in ("support_term", "support", "query_term", "target"))
    assert set(ends) <= set(names)
    assert all((f"{b.label}/support_term" in ends) != b.mean_before_convolution for b in inner)


def test_prepare_holds_nothing_quantised(network, plan):
    model = emit_prepare(network, {}, "0", quantisation=plan)
    assert "QuantizeLinear" not in {n.op_type for n in model.graph.node}


def test_one_calibration_gives_all_forms_the_same_scales(network, plan):
    whole = constants(emit_whole(network, {}, "0", quantisation=plan))
    for stage in emit_stages(network, {}, "0", quantisation=plan):
        for name, value in constants(stage.model).items():
            if name.endswith(("/input/scale", "/weight/integers", "/weight/scales")):
                assert np.array_equal(value, whole[name]), name


def test_entries_pass_between_stages_as_integers_where_an_int8_convolution_reads_them(network, plan):
    seen = set()
    for stage in emit_stages(network, {}, "0", quantisation=plan):
        for value in (*stage.model.graph.input, *stage.model.graph.output):
            integers = value.type.tensor_type.elem_type == TensorProto.UINT8
            name, _, what = value.name.partition(".")
            downsampled = what == "entries_down"
            skip = what == "entries" and name.startswith(
                "enc") and name != f"enc{len(network.spec.encoder_features) - 1}"
            assert integers == (downsampled or skip), value.name
            seen.add(integers)
        rounded = [n.input[0] for n in stage.model.graph.node if n.op_type == "QuantizeLinear"]
        assert not set(rounded) & {
            o
            for n in stage.model.graph.node if n.op_type == "DequantizeLinear" for o in n.output
        }
    assert seen == {True, False}


def optimised(model: onnx.ModelProto, folder) -> list[str]:
    """Operators of a model as ONNX Runtime runs it."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return [n.op_type for n in onnx.load(folder / "optimised.onnx").graph.node]


def test_onnx_runtime_fuses_every_quantised_convolution_of_the_stages(tmp_path, network, plan):
    for stage in emit_stages(network, {}, "0", quantisation=plan):
        quantised = [n.name for n in stage.model.graph.node if n.name in plan.inputs]
        assert optimised(stage.model, tmp_path).count("QLinearConv") == len(quantised), stage.name


def test_all_forms_compute_the_same_within_the_rounding(tmp_path, small_spec, network, plan):
    """The stages round the convolutions' outputs as well; that must be all of the difference to the whole model."""
    (tmp_path / "model.onnx").write_bytes(emit_whole(network, {}, "0", quantisation=plan).SerializeToString())
    stages = []
    for stage in emit_stages(network, {}, "0", quantisation=plan):
        (tmp_path / f"{stage.name}.onnx").write_bytes(stage.model.SerializeToString())
        stages.append((stage.name, ModelBytes.of_file(tmp_path / f"{stage.name}.onnx")))
    (tmp_path / "float.onnx").write_bytes(emit_whole(network, {}, "0").SerializeToString())
    episode = noise_episodes(seed=9).episodes[0]
    inputs = (episode.support, episode.weights, episode.query)
    exact, whole, streamed = (m(*inputs)
                              for m in (whole_model(tmp_path / "float.onnx"), whole_model(tmp_path / "model.onnx"),
                                        runner_model(StreamedOnnxRuntime(stages))))
    assert 0 < np.abs(whole - exact).mean() < 0.1 * np.abs(exact).mean()
    assert np.abs(streamed - exact).mean() < 0.1 * np.abs(exact).mean()


def test_every_channel_of_the_entries_maps_has_its_scale():
    weights = random_weights(SMALL_SPEC)
    weights["enc_blocks.1.support.vmapped.conv.weight"][2] = 0  # a channel that is always zero
    weights["enc_blocks.1.support.vmapped.conv.bias"][2] = 0
    network = fold(SMALL_SPEC, weights)
    plan = calibrate(network, noise_episodes())
    assert set(plan.channels) == set(entry_convolutions(network)) and plan.channels
    assert not any(name.endswith(("query_term", "target", "mean_term")) for name in plan.channels)
    for name, scales in plan.channels.items():
        assert scales.dtype == np.float32 and (scales > 0).all() and np.isfinite(scales).all()
        live = scales[scales != 1]
        assert 0.2 * plan.inputs[name] <= live.max() <= 2 * plan.inputs[name] and live.min() < live.max(), name
    second = network.blocks[2]
    assert plan.channels[f"{second.label}/support_term"][2] == 1 and len(
        plan.channels[f"{second.label}/support_term"]) == 5


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(network):
    def model(data):
        return emit_whole(network, {}, "0", quantisation=calibrate(network, data)).SerializeToString(deterministic=True)

    assert model(noise_episodes()) == model(noise_episodes())
    assert model(noise_episodes()) != model(noise_episodes(seed=5))
    if native_arrays(network) is not None:
        one, again, other = (native_model(native_arrays(network, calibrate(network,
                                                                           noise_episodes(seed=seed)))).external
                             for seed in (0, 0, 5))
        assert one == again != other


def test_synthetic_episodes_are_drawn_from_their_seed():
    one, two, other, fresh = (synthetic_episodes((16, 24), seed, 2, 3, first)
                              for seed, first in ((1, 0), (1, 0), (2, 0), (1, 500)))
    assert one.sha256 == two.sha256 and len({one.sha256, other.sha256, fresh.sha256}) == 3
    for episode in one.episodes:
        assert episode.query.shape == episode.target.shape == (1, 1, 16, 24) and episode.support.shape == (1, 3, 2, 16,
                                                                                                           24)
        assert episode.support[:, :, 0].min() == 0 and episode.support.max() <= 1 and set(
            np.unique(episode.support[:, :, 1])) <= {0, 1}
    provenance = one.provenance()
    assert provenance["seed"] == 1 and provenance["data_sha256"] == one.sha256 and provenance["episodes"] == 2


def test_a_support_set_to_calibrate_on(tmp_path):
    images, labels = discs(4)
    np.savez(tmp_path / "mine.npz", images=images, labels=labels)
    data = support_episodes(tmp_path / "mine.npz", (16, 16), 0)
    assert len(data.episodes) == 4 and data.episodes[0].support.shape == (1, 3, 2, 16, 16)
    assert data.source == "support set mine.npz" and str(tmp_path) not in str(data.provenance())
    assert data.sha256 == support_episodes(tmp_path / "mine.npz", (16, 16), 0).sha256
    for number, episode in enumerate(data.episodes):
        same = [np.array_equal(episode.query[0], entry) for entry in episode.support[0, :, :1]]
        assert not any(same), f"episode {number}: the query is among its own support"


def damaged(kind: str) -> dict[str, np.ndarray]:
    images, labels = discs(4)
    images = images.astype(np.float32)
    if kind == "nan":
        images[1, 2, 3] = np.nan
    elif kind == "constant":
        images[2] = 7
    elif kind == "empty":
        images, labels = images[:0], labels[:0]
    elif kind == "one":
        images, labels = images[:1], labels[:1]
    elif kind == "shapes":
        labels = labels[:, :-1]
    elif kind == "count":
        labels = labels[:-1]
    elif kind == "unmarked":
        labels = np.zeros_like(labels)
    return {"images": images, "labels": labels} if kind != "other" else {"x": images}


@pytest.mark.parametrize("kind, message", [("nan", "support image 1"), ("constant", "support image 2"),
                                           ("empty", "no entries"), ("one", "1 entry; give at least 2"),
                                           ("shapes", "support label 0"), ("count", "4 images but 3 labels"),
                                           ("unmarked", "labels are empty"), ("other", "expected the arrays")])
def test_calibration_data_that_cannot_be_used(tmp_path, kind, message):
    np.savez(tmp_path / "bad.npz", **damaged(kind))
    with pytest.raises(InputError, match=message) as error:
        support_episodes(tmp_path / "bad.npz", (16, 16), 0)
    assert "calibration data" in str(error.value)


def test_other_bad_calibration(tmp_path, network):
    with pytest.raises(InputError, match="calibration data cannot be used"):
        support_episodes(tmp_path / "absent.npz", (16, 16), 0)
    for seed in (-1, True, 0.5):
        with pytest.raises(InputError, match="seed is"):
            synthetic_episodes((16, 16), seed, 1)
    with pytest.raises(InputError, match="no episodes"):
        calibrate(network, CalibrationData("none", 0, ()))
    episode = noise_episodes().episodes[0]
    endless = Episode(np.full_like(episode.query, np.inf), episode.target, episode.support)
    with pytest.raises(InputError, match="not finite on the calibration data"):
        calibrate(network, CalibrationData("inf", 0, (endless,)))


def test_the_scale_cuts_far_values_off_only_where_that_pays():
    rng = np.random.default_rng(0)
    bulk = np.abs(rng.standard_normal(100_000))
    even = rng.random(100_000)
    assert best_scale(np.append(bulk, 20.0), "x") < 0.8 * 20 / 127
    assert best_scale(even, "x") == pytest.approx(even.max() / 127, rel=0.02)
    assert best_scale(np.zeros(5), "x") == 1.0


def test_a_network_of_one_feature_can_be_calibrated():
    spec = NetworkSpec("none", (1, 1), (1,), "max_pool")
    network = fold(spec, random_weights(spec))
    assert calibrate(network, noise_episodes()).inputs
