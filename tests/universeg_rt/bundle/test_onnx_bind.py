"""Models with their inputs frozen: equal to the unbound ones in ONNX Runtime, whole for onnx.checker, refused where
they do not fit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

onnx = pytest.importorskip("onnx", reason="onnx is not installed: pip install '.[export]'")
ort = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: pip install onnxruntime")
from onnx import TensorProto, helper, numpy_helper

from universeg_rt import Bundle
from universeg_rt.bundle import onnx_bind, onnx_file
from universeg_rt.bundle.onnx_bind import bind, giving

SAID = {"universeg.kind": "frozen", "task": "discs, größer"}
SIZE = (32, 64)


def session(model: bytes):
    options = ort.SessionOptions()
    options.log_severity_level = 3
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def static_constants(bundle: Bundle, size=SIZE, dtype=np.float32, seed=0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        f"constant_{b.index}": rng.standard_normal(
            (1, b.features, size[0] >> b.level, size[1] >> b.level)).astype(dtype)
        for b in bundle.manifest.spec.blocks()
    }


def support(sets=2, entries=3, size=SIZE) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    weights = rng.random((sets, entries)).astype(np.float32)
    return {"support_images": rng.random((sets, entries, 1, *size)).astype(np.float32),
            "support_labels": (rng.random((sets, entries, 1, *size)) > 0.5).astype(np.float32),
            "weights": weights / weights.sum(1, keepdims=True)}


def queries(count=2, size=SIZE) -> np.ndarray:
    return np.random.default_rng(2).random((count, 1, *size)).astype(np.float32)


def bound(model: bytes, constants, outputs=("probability",), size=SIZE) -> bytes:
    out = bind(model, constants, SAID, outputs=outputs, query_size=size)
    onnx.checker.check_model(onnx.load_model_from_string(out), full_check=True)
    return out


def close(actual: np.ndarray, expected: np.ndarray) -> bool:
    """Equal but for the order of sums: what reads constants alone, ONNX Runtime computes when it loads, otherwise."""
    return actual.shape == expected.shape and np.abs(actual - expected).max() < 1e-5 and expected.std() > 1e-3


def sides(value) -> list[int | str]:
    return [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]


@pytest.mark.parametrize("precision, dtype", [("fp32", np.float32), ("fp16", np.float16)])
def test_a_static_template_becomes_the_same_model_with_one_input(typed_bundle, precision, dtype):
    bundle = Bundle.open(typed_bundle)
    template = bundle.load(precision, "static").whole()
    constants, query = static_constants(bundle, dtype=dtype), queries()
    frozen = bound(template, constants)
    (expected,) = session(template).run(None, {"query": query, **constants})
    (actual,) = session(frozen).run(None, {"query": query})
    assert actual.dtype == np.float32 and (close(actual, expected)
                                           if precision == "fp32" else np.abs(actual - expected).max() < 2e-3)
    model = onnx.load_model_from_string(frozen)
    (given_query,), (probability,) = model.graph.input, model.graph.output
    assert sides(given_query) == sides(probability) == ["B", 1, *SIZE]
    said = onnx_file.metadata(frozen)
    assert said["task"] == SAID["task"] and said["universeg.kind"] == "frozen"
    assert said["universeg.spec"] == bundle.manifest.spec.to_json(), "what is not replaced stays"
    stored = onnx_file.tensors(frozen)
    assert all(np.array_equal(stored[name], value) for name, value in constants.items())


def test_an_exact_task_is_the_whole_model_with_its_support_inside(small_bundle):
    whole, given_support, query = Bundle.open(small_bundle).load("fp32").whole(), support(), queries()
    expected = session(whole).run(["probability"], {"query": query, **given_support})[0]
    frozen = session(bound(whole, given_support))
    assert [i.name for i in frozen.get_inputs()] == ["query"] and [o.name
                                                                   for o in frozen.get_outputs()] == ["probability"]
    assert close(frozen.run(None, {"query": query})[0], expected)
    small = bound(whole, {**given_support, "support_labels": given_support["support_labels"].astype(np.uint8)})
    assert close(session(small).run(None, {"query": query})[0], expected)
    assert len(small) < len(bound(whole, given_support)) - 2 * given_support["support_labels"].size


def test_an_input_with_a_default_keeps_it_and_all_outputs_can_stay(small_bundle):
    whole, query = Bundle.open(small_bundle).load("fp32").whole(), queries()
    given_support = {name: value for name, value in support().items() if name != "weights"}
    frozen = session(bound(whole, given_support, outputs=None))
    assert [i.name for i in frozen.get_inputs()] == ["query"]
    assert [list(o.shape) for o in frozen.get_outputs()] == [["B", 2, 1, *SIZE], ["B", 1, *SIZE]]
    expected = session(whole).run(None, {"query": query, **given_support})
    for ours, theirs in zip(frozen.run(None, {"query": query}), expected):
        assert close(ours, theirs)


def test_a_tensor_in_the_place_of_an_output(small_bundle):
    bundle = Bundle.open(small_bundle)
    template, query = bound(bundle.load("fp32", "static").whole(), static_constants(bundle)), queries()
    changed = giving(template, "head/logits", "probability")
    onnx.checker.check_model(onnx.load_model_from_string(changed), full_check=True)
    left, whole = ([n.op_type for n in onnx.load_model_from_string(m).graph.node] for m in (changed, template))
    assert "Sigmoid" not in left and set(whole) - set(left) == {"Sigmoid"} and whole.count("Conv") == left.count("Conv")
    assert [(o.name, o.shape) for o in session(changed).get_outputs()] == [("head/logits", ["B", 1, *SIZE])]
    ((logits,), (probability,)) = (session(m).run(None, {"query": query}) for m in (changed, template))
    assert np.abs(1 / (1 + np.exp(-logits.astype(np.float64))) - probability).max() < 1e-6 and logits.std() > 0.1
    for tensor, output, message in (("nothing", "probability", "no node of the model gives 'nothing'"),
                                    ("head/logits", "mask", "no outputs called mask; it has probability")):
        with pytest.raises(ValueError, match=message):
            giving(template, tensor, output)


@pytest.mark.parametrize("stored", [np.float16, np.int8, np.uint8])
def test_a_narrower_constant_is_kept_so_and_cast(small_bundle, stored):
    bundle = Bundle.open(small_bundle)
    template = bundle.load("fp32", "static").whole()
    constants = {name: np.abs(3 * value).astype(stored) for name, value in static_constants(bundle).items()}
    frozen, query = bound(template, constants), queries()
    wide = {name: value.astype(np.float32) for name, value in constants.items()}
    (expected,) = session(template).run(None, {"query": query, **wide})
    assert np.abs(session(frozen).run(None, {"query": query})[0] - expected).max() < 1e-5
    kept = onnx_file.tensors(frozen)
    assert all(kept[f"{name}/stored"].dtype == stored for name in constants)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(1, 3), st.integers(1, 4), st.integers(1, 3), st.integers(2, 6), st.integers(2, 6))
def test_any_shape(small_bundle, count, entries, sets, rows, columns):
    bundle = Bundle.open(small_bundle)
    size = (4 * rows, 4 * columns)
    for part, constants in (("static", static_constants(bundle, size)), ("whole", support(sets, entries, size))):
        model, query = bundle.load("fp32", part).whole(), queries(count, size)
        expected = session(model).run(["probability"], {"query": query, **constants})[0]
        assert close(session(bound(model, constants, size=size)).run(None, {"query": query})[0], expected)


@pytest.mark.parametrize("change, message", [
    (lambda c: c.update(other=np.zeros(1, np.float32)), "no constants called other; it has query, constant_0"),
    (lambda c: c.pop("constant_1"), "need a constant: constant_1"),
    (lambda c: c.update(query=np.zeros((1, 1, *SIZE), np.float32)), "no input 'query' that can stay one"),
    (lambda c: c.update(constant_0=c["constant_0"][0]),
     r"'constant_0' has the shape \(6, 32, 64\); expected \(1, 6, 32, 64\)"),
    (lambda c: c.update(constant_0=c["constant_0"][:, :, :-1]), r"has the shape \(1, 6, 31, 64\)"),
    (lambda c: c.update(constant_1=c["constant_1"][:, :-1]), r"expected \(1, 5, 16, 32\)"),
    (lambda c: c.update(constant_1=c["constant_1"][:, :, :8]), r"expected \(1, 5, 16, 32\)"),
    (lambda c: c.update(constant_1=c["constant_1"].astype(np.float64)),
     "'constant_1' is float64; accepted: float32, float16"),
    (lambda c: c.update(constant_1=c["constant_1"].astype(np.int32)), "'constant_1' is int32"),
    (lambda c: c.update(constant_1=c["constant_1"].astype(object)), "'constant_1' is object"),
])
def test_constants_that_do_not_fit_are_refused(small_bundle, change, message):
    bundle = Bundle.open(small_bundle)
    constants = static_constants(bundle)
    change(constants)
    with pytest.raises(ValueError, match=message):
        bind(bundle.load("fp32", "static").whole(), constants, {}, outputs=None, query_size=SIZE)


def test_sides_of_one_name_must_agree(small_bundle):
    whole, given_support = Bundle.open(small_bundle).load("fp32").whole(), support()
    given_support["support_labels"] = given_support["support_labels"][:, :2]
    with pytest.raises(ValueError,
                       match=r"'support_labels' has the shape \(2, 2, 1, 32, 64\); expected \(2, 3, 1, 32, 64\)"):
        bind(whole, given_support, {}, outputs=None, query_size=SIZE)


@pytest.mark.parametrize("options, message", [
    ({"outputs": ["mask"]}, "no outputs called mask; it has probability"),
    ({"query_size": (32, 0)}, "give a height and a width"),
    ({"query_size": (32,)}, "give a height and a width"),
    ({"query_size": (32.0, 64)}, "give a height and a width"),
    ({"query_size": (64, 32)}, r"'constant_0' has the shape \(1, 6, 32, 64\); expected \(1, 6, 64, 32\)"),
    ({"query_size": (30, 64)}, r"expected \(1, 6, 30, 64\)"),
])
def test_outputs_and_sizes_that_do_not_fit_are_refused(small_bundle, options, message):
    bundle = Bundle.open(small_bundle)
    with pytest.raises(ValueError, match=message):
        bind(bundle.load("fp32", "static").whole(), static_constants(bundle), {},
             **{"outputs": None, "query_size": SIZE, **options})


def test_tensors_are_those_that_the_package_reads(typed_bundle):
    bundle = Bundle.open(typed_bundle)
    for precision in ("fp32", "fp16", "int8"):
        model = bundle.load(precision).whole()
        expected = {t.name: numpy_helper.to_array(t) for t in onnx.load_model_from_string(model).graph.initializer}
        found = onnx_file.tensors(model)
        assert list(found) == list(expected)
        for name, value in found.items():
            assert value.dtype == expected[name].dtype and np.array_equal(value, expected[name]), name


def with_tensor(tensor: TensorProto, times=1) -> bytes:
    graph = helper.make_graph([], "g", [helper.make_tensor_value_info("query", TensorProto.FLOAT, ["B", 1, "H", "W"])],
                              [], [tensor] * times)
    return helper.make_model(graph).SerializeToString()


def test_tensors_that_are_not_plain_are_refused(small_bundle):
    plain = numpy_helper.from_array(np.arange(6, dtype=np.float32).reshape(2, 3), "w")
    assert np.array_equal(onnx_file.tensors(with_tensor(plain))["w"], [[0, 1, 2], [3, 4, 5]])
    with pytest.raises(ValueError, match="two tensors are called 'w'"):
        onnx_file.tensors(with_tensor(plain, 2))
    with pytest.raises(ValueError, match="lies in another file"):
        onnx_file.tensors(Bundle.open(small_bundle).load("fp32", "static").data)
    with pytest.raises(ValueError, match="of the type 11"):
        onnx_file.tensors(with_tensor(numpy_helper.from_array(np.zeros(1), "w")))
    with pytest.raises(ValueError, match="0 raw bytes for the shape"):
        onnx_file.tensors(with_tensor(helper.make_tensor("w", TensorProto.FLOAT, [1], [1.0])))
    with pytest.raises(ValueError, match="2 graphs"):
        onnx_file.tensors(2 * with_tensor(plain))


def test_the_fields_are_those_of_onnx():
    def numbers(message) -> dict[str, int]:
        return {field.name: field.number for field in message.DESCRIPTOR.fields}

    graph, value, tensor = numbers(onnx.GraphProto), numbers(onnx.ValueInfoProto), numbers(TensorProto)
    assert (graph["node"], graph["initializer"], graph["input"], graph["output"], graph["value_info"]) == (
        onnx_bind.NODE, onnx_file.INITIALIZER, onnx_bind.INPUT, onnx_bind.OUTPUT, onnx_bind.VALUE_INFO)
    assert (value["name"], value["type"]) == (onnx_bind.VALUE_NAME, onnx_bind.VALUE_TYPE)
    assert (tensor["dims"], tensor["data_type"], tensor["name"]) == (
        onnx_file.DIMS, onnx_file.DATA_TYPE, onnx_file.NAME)
    assert {n: helper.np_dtype_to_tensor_dtype(kind) for n, kind in onnx_file.TYPES.items()} == {
        n: n for n in onnx_file.TYPES}


def test_any_bytes_give_a_model_or_a_value_error(small_bundle):
    rng, bundle = np.random.default_rng(0), Bundle.open(small_bundle)
    template, constants = bundle.load("fp32", "static").whole(), static_constants(bundle)
    structure = [i for i in range(len(template)) if i < 1500 or i > len(template) - 1500]
    for _ in range(800):
        data = bytearray(template)
        for _ in range(rng.integers(1, 4)):
            data[rng.choice(structure)] = rng.integers(256)
        if rng.random() < 0.2:
            del data[rng.integers(len(data)):]
        for read in (onnx_file.tensors, lambda d: bind(d, constants, SAID, outputs=["probability"], query_size=SIZE)):
            try:
                read(bytes(data))
            except ValueError:
                pass
