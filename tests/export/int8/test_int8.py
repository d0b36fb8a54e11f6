"""Int8: what is quantised and how, that ONNX Runtime fuses it, the same bytes each time."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

torch = pytest.importorskip("torch", reason="torch is not installed: pip install torch")
ort = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: pip install onnxruntime")

from universeg_rt.bundle.model_bytes import ModelBytes
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
    CalibrationData,
    Episode,
    calibrate,
)
from universeg_rt.export.precisions import runner_model, whole_model
from universeg_rt.runners.cpu.onnxruntime import StreamedOnnxRuntime

from ...conftest import SMALL_SPEC, native_model, random_weights

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
    largest = np.abs(integers).reshape(5, -1).max(axis=1)
    assert largest.tolist() == [WEIGHT_LIMIT, WEIGHT_LIMIT, WEIGHT_LIMIT, 0, WEIGHT_LIMIT]
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
            deepest = f"enc{len(network.spec.encoder_features) - 1}"
            skip = what == "entries" and name.startswith("enc") and name != deepest
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
    channels = plan.channels[f"{second.label}/support_term"]
    assert channels[2] == 1 and len(channels) == 5


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(network):
    def model(data):
        return emit_whole(network, {}, "0", quantisation=calibrate(network, data)).SerializeToString(deterministic=True)

    assert model(noise_episodes()) == model(noise_episodes())
    assert model(noise_episodes()) != model(noise_episodes(seed=5))
    if native_arrays(network) is not None:
        plans = (calibrate(network, noise_episodes(seed=seed)) for seed in (0, 0, 5))
        one, again, other = (native_model(native_arrays(network, plan)).external for plan in plans)
        assert one == again != other
