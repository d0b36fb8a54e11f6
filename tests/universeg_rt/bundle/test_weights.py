"""A bundle's numbers lie in one file, each once; graphs, the native runner and the reference network read it."""

from __future__ import annotations

import json
import shutil
import struct

import numpy as np
import pytest

from universeg_rt import Bundle
from universeg_rt.bundle import onnx_file
from universeg_rt.bundle.bundle import SHIPPED
from universeg_rt.bundle.manifest import sealed
from universeg_rt.bundle.model_bytes import ModelBytes
from universeg_rt.bundle.weights import ALIGNMENT, WEIGHTS, read_tensors, reference_weights, split_weights
from universeg_rt.errors import BundleError
from universeg_rt.runners.cpu.native_weights import TABLE, read_weights
from universeg_rt.runners.cpu.onnxruntime import StreamedOnnxRuntime
from universeg_rt.spec import NetworkSpec

from ...conftest import SMALL_GRID, SMALL_SPEC, native_model, random_weights

INLINE = 64  # values of a tensor in a graph
LARGEST_BUNDLE = 9_000_000  # bytes of the shipped bundle


def safetensors(header: object, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def entry(shape, begin, end, dtype="F32") -> dict:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


# The shipped bundle ---------------------------------------------------------------------------------------------------

def test_the_shipped_bundle_is_small():
    manifest = Bundle.open().manifest
    assert set(manifest.precisions) == {"fp32", "fp16", "int8"}
    assert sum(path.stat().st_size for path in SHIPPED.rglob("*")) < LARGEST_BUNDLE
    assert {path.name for path in SHIPPED.iterdir()} == {*manifest.files, "manifest.json"}


@pytest.mark.parametrize("bundle", ["shipped", "typed"])
def test_every_number_lies_in_the_file_and_once(bundle, request):
    onnx = pytest.importorskip("onnx", reason="onnx is not installed: pip install '.[export]'")
    opened = Bundle.open(None if bundle == "shipped" else request.getfixturevalue("typed_bundle"))
    graphs = [name for name in opened.manifest.files if name.endswith(".onnx")]
    listed = [name for models in opened.manifest.models.values() for name in models.listed]
    assert sorted(graphs) == sorted(name for name in listed if name.endswith(".onnx"))
    for name in graphs:
        data = opened.read(name)
        for tensor in onnx.load_model_from_string(data).graph.initializer:
            inside = tensor.data_location != onnx.TensorProto.EXTERNAL
            small = np.prod(tensor.dims) <= INLINE and not tensor.name.endswith(("/weight", "/bias"))
            assert not inside or small, (name, tensor.name)
        assert onnx_file.external_locations(data) <= {WEIGHTS}
    tensors = read_tensors(opened.read(WEIGHTS))
    derived = [
        v.dtype.str.encode() + v.tobytes() for name, v in tensors.items()
        if not name.startswith(("enc_blocks", "dec_blocks", "out_conv"))
    ]
    assert len(derived) == len(set(derived))
    reference = {v.tobytes() for v in split_weights(opened.weights(), opened.manifest.spec).values()}
    assert not reference & {v.tobytes() for name, v in tensors.items() if "/" in name and v.dtype == np.float32}


def test_the_reference_network_is_the_one_that_was_exported():
    pytest.importorskip("safetensors", reason="safetensors is not installed: pip install '.[export]'")
    from universeg_rt.training.network.checkpoint import load_checkpoint, weights_sha256

    bundle = Bundle.open()
    spec, weights, _ = load_checkpoint(SHIPPED)
    assert weights_sha256(weights) == bundle.manifest.weights_sha256 and spec == bundle.manifest.spec


# The file -------------------------------------------------------------------------------------------------------------

def test_a_flipped_byte_is_refused_wherever_it_is(small_bundle, tmp_path):
    copy = shutil.copytree(small_bundle, tmp_path / "copy")
    good = (copy / WEIGHTS).read_bytes()
    for place in (0, 9, len(good) // 2, len(good) - 1):
        bad = bytearray(good)
        bad[place] ^= 1
        (copy / WEIGHTS).write_bytes(bad)
        with pytest.raises(BundleError, match=f"{WEIGHTS} is altered: its sha256"):
            Bundle.open(copy)


def test_a_manifest_without_the_weights_is_refused(small_bundle, tmp_path):
    copy = shutil.copytree(small_bundle, tmp_path / "copy")
    values = json.loads((copy / "manifest.json").read_text())
    del values["files"][WEIGHTS]
    (copy / "manifest.json").write_text(sealed({**values, "parity": {}}))
    with pytest.raises(BundleError, match=f"without their files .{WEIGHTS}"):
        Bundle.open(copy)


def test_weights_of_another_network_are_refused(small_bundle, typed_bundle, tmp_path):
    copy = shutil.copytree(small_bundle, tmp_path / "copy")
    data = (copy / WEIGHTS).read_bytes().replace(b'"universeg.kind":"weights"', b'"universeg.kind":"weight_"')
    (copy / WEIGHTS).write_bytes(data)
    from .external import relist

    relist(copy, Bundle.open(small_bundle).manifest.files)
    with pytest.raises(BundleError, match="its universeg.kind is 'weight_', the manifest's 'weights'"):
        Bundle.open(copy)


def test_the_library_reads_the_file_as_we_do(typed_bundle):
    library = pytest.importorskip("safetensors.numpy", reason="safetensors is not installed: pip install '.[export]'")
    data = (typed_bundle / WEIGHTS).read_bytes()
    ours, theirs = read_tensors(data), library.load(data)
    assert set(ours) == set(theirs) and {value.dtype.kind for value in ours.values()} == {"f", "i"}
    for name, value in ours.items():
        assert value.dtype == theirs[name].dtype and np.array_equal(value, theirs[name]) and not value.flags.writeable
    assert (8 + struct.unpack_from("<Q", data)[0]) % ALIGNMENT == 0


@pytest.mark.parametrize("data, message", [
    (b"", "cannot be used"),
    (b"1234567", "cannot be used"),
    (struct.pack("<Q", 2**60) + b"{}", "its header should have"),
    (safetensors(b"{"), "cannot be used"),
    (safetensors([]), "no mapping"),
    (safetensors(b"[" * 10**5), "cannot be used"),
    (safetensors({"a": entry([2], 0, 8)}, bytes(7)), "does not lie where"),
    (safetensors({"a": entry([2], 0, 8)}, bytes(9)), "has .* bytes"),
    (safetensors({"a": entry([2], 4, 12)}, bytes(12)), "does not lie where"),
    (safetensors({"a": entry([-2], 0, 8)}, bytes(8)), "odd shape"),
    (safetensors({"a": entry([2**40, 2**40], 0, 8)}, bytes(8)), "does not lie where"),
    (safetensors({"a": entry([True], 0, 4)}, bytes(4)), "odd"),
    (safetensors({"a": entry([1], 0, 4), "b": entry([1], 0, 4)}, bytes(4)), "does not lie where"),
    (safetensors({"a": 3}), "cannot be used"),
    (safetensors({"a": entry([1], 0, 8, "F64")}, bytes(8)), "is of type F64; accepted"),
    (safetensors({"a": {}}), "cannot be used"),
])
def test_what_is_no_such_file_is_a_bundle_error(data, message):
    with pytest.raises(BundleError, match=message):
        read_tensors(data)


@pytest.mark.parametrize("spec", [SMALL_SPEC, NetworkSpec("leaky_relu", (5, 6, 4), (6, 5), "bilinear")])
def test_the_reference_is_put_together_again(spec):
    weights = random_weights(spec)
    tensors = split_weights(weights, spec)
    again = reference_weights(tensors, spec)
    assert list(again) == list(spec.weight_shapes())
    assert all(np.array_equal(again[key], weights[key]) for key in weights)
    for name in tensors:
        with pytest.raises(BundleError, match="export the bundle again"):
            reference_weights({key: value for key, value in tensors.items() if key != name}, spec)
        with pytest.raises(BundleError, match="export the bundle again"):
            reference_weights({**tensors, name: tensors[name][:0]}, spec)


def test_the_stages_of_every_precision_share_the_one_files_bytes(typed_bundle):
    bundle = Bundle.open(typed_bundle)
    for precision in bundle.manifest.precisions:
        stages = bundle.load_stages(precision)
        shared = {id(model.external[WEIGHTS]) for _, model in stages if model.external}
        assert len(shared) == 1


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_outside_data_give_what_the_same_data_inside_a_graph_give(typed_bundle, precision):
    bundle, rng = Bundle.open(typed_bundle), np.random.default_rng(0)
    support, query = rng.random((1, 3, 2, 32, 32), np.float32), rng.random((1, 1, 32, 32), np.float32)
    outside = bundle.load_stages(precision)
    inside = [(name, ModelBytes(model.name, model.whole())) for name, model in outside]
    assert any(model.external
               for _, model in outside) and not any(onnx_file.external_locations(m.data) for _, m in inside)
    runners = [StreamedOnnxRuntime(stages, 1) for stages in (outside, inside)]
    weights = np.full((1, 3), 1 / 3, np.float32)
    one, two = (runner.run(runner.prepare(support, weights), query) for runner in runners)
    assert np.array_equal(one, two) and np.isfinite(one).all()


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_the_native_runner_gets_the_arrays_of_the_folded_network(typed_bundle, precision):
    pytest.importorskip("torch", reason="the folds need torch's reference: pip install '.[export]'")
    from universeg_rt.export.emit.native import native_arrays
    from universeg_rt.export.folds import fold
    from universeg_rt.export.int8.calibration import calibrate, synthetic_episodes

    network = fold(SMALL_SPEC, random_weights(SMALL_SPEC))
    plan = calibrate(network, synthetic_episodes(SMALL_GRID, 0, episodes=2, entries=2)) if precision == "int8" else None
    found, made = (read_weights(model, SMALL_SPEC) for model in (
        Bundle.open(typed_bundle).load(precision, "native"), native_model(native_arrays(network, plan))))
    assert set(found) == set(made) and (TABLE in made) == (precision == "int8")
    for name, value in made.items():
        assert found[name].dtype == value.dtype and np.array_equal(found[name], value), name
