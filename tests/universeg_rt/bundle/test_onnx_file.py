"""The little that is read of ONNX files without the package `onnx`, held against that package."""

from __future__ import annotations

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="onnx is not installed: pip install '.[export]'")
from onnx import TensorProto, helper, numpy_helper

from universeg_rt.bundle import onnx_file, protobuf
from universeg_rt.bundle.model_bytes import ModelBytes
from universeg_rt.errors import BundleError

from .external import outside


def test_every_way_to_a_tensor_is_followed():
    """The table against onnx.proto itself: it has every message that leads to a TensorProto,
    with each field that does."""
    messages, leads, waiting = {}, {"TensorProto"}, [onnx.ModelProto.DESCRIPTOR]
    while waiting:
        message = waiting.pop()
        if message.name not in messages:
            messages[message.name] = {f.number: f.message_type for f in message.fields if f.message_type is not None}
            waiting += messages[message.name].values()
    while True:
        more = {name for name, fields in messages.items() if any(m.name in leads for m in fields.values())} - leads
        if not more:
            break
        leads |= more
    expected = {
        name: {n: m.name
               for n, m in messages[name].items() if m.name in leads}
        for name in leads - {"TensorProto"}
    }
    assert {name: dict(fields) for name, fields in onnx_file.CHILDREN.items()} == expected
    tensor = {f.name: f.number for f in onnx.TensorProto.DESCRIPTOR.fields}
    assert (tensor["raw_data"], tensor["external_data"], tensor["data_location"]) == (
        onnx_file.RAW_DATA, onnx_file.EXTERNAL_DATA, onnx_file.DATA_LOCATION)
    model = {f.name: f.number for f in onnx.ModelProto.DESCRIPTOR.fields}
    assert (model["ir_version"], model["graph"], model["metadata_props"]) == (
        onnx_file.IR_VERSION, onnx_file.GRAPH, onnx_file.METADATA)


def a_model(places: dict[str, TensorProto]) -> bytes:
    """A model with a tensor in each of these places: graph, subgraph, attribute, list, sparse, function, training."""
    node, info = helper.make_node, helper.make_tensor_value_info
    inner = helper.make_graph([], "inner", [], [], [places["subgraph"]] if "subgraph" in places else [])
    nodes = [node("If", ["c"], ["d"], then_branch=inner, else_branch=inner)]
    if "attribute" in places:
        nodes.append(node("Constant", [], ["a"], value=places["attribute"]))
    if "list" in places:
        nodes.append(node("Odd", [], ["b"], domain="x", several=[places["list"]]))
    graph = helper.make_graph(nodes, "g", [info("x", TensorProto.FLOAT, [1])], [],
                              [places["graph"]] if "graph" in places else [])
    if "sparse" in places:
        graph.sparse_initializer.add().values.CopyFrom(places["sparse"])
    model = helper.make_model(graph)
    if "function" in places:
        model.functions.append(
            helper.make_function("x", "F", [], ["y"], [node("Constant", [], ["y"], value=places["function"])],
                                 [helper.make_opsetid("", 17)]))
    if "training" in places:
        model.training_info.add().algorithm.initializer.append(places["training"])
    helper.set_model_props(model, {"one": "1", "zwei": "ü"})
    return model.SerializeToString()


PLACES = ("graph", "subgraph", "attribute", "list", "sparse", "function", "training")


@pytest.mark.parametrize("place", PLACES)
def test_data_outside_is_found_and_put_inside(place):
    values = np.arange(12, dtype=np.float32).reshape(3, 4)
    file = b"before" + values.tobytes() + b"after"
    model = a_model({place: outside(values, "w/e.bin", 6)})
    assert onnx_file.metadata(model) == {"one": "1", "zwei": "ü"}
    assert onnx_file.external_locations(model) == {"w/e.bin"}
    whole = onnx_file.with_data_inside(model, {"w/e.bin": file})
    assert onnx_file.external_locations(whole) == frozenset()
    plain = numpy_helper.from_array(values, "w")
    assert onnx.load_model_from_string(whole) == onnx.load_model_from_string(a_model({place: plain}))


def test_a_model_without_data_outside_stays_as_it_is():
    model = a_model({place: numpy_helper.from_array(np.ones(3, np.float32), "w") for place in PLACES})
    assert onnx_file.with_data_inside(model, {}) is model


@pytest.mark.parametrize("change, message", [
    (lambda t: t.external_data.add(key="offset", value="1"), "twice"),
    (lambda t: t.external_data[1].__setattr__("value", "-1"), "no number"),
    (lambda t: t.external_data[1].__setattr__("value", "9" * 30), "no number"),
    (lambda t: t.external_data[1].__setattr__("value", "40"), "has 54 bytes"),
    (lambda t: t.external_data[0].__setattr__("value", "other"), "not among the model's files"),
])
def test_data_that_do_not_fit_are_refused(change, message):
    tensor = outside(np.zeros((3, 4), np.float32), "e", 6)
    change(tensor)
    model = ModelBytes("m.onnx", a_model({"graph": tensor, "function": outside(np.zeros(1, np.float32), "e", 0)}),
                       {"e": b"x" * 54})
    with pytest.raises(BundleError, match=message):
        model.whole()


def test_what_is_no_model_is_refused():
    good = a_model({"graph": outside(np.zeros(1, np.float32), "e", 0)})
    for data in (b"", b"<?xml version='1.0'?>", b"\0\0\0\0ORTM" + bytes(40), good[:-1], b"\x0b" + good, b"\xff" * 40,
                 b"\x3a\xff\xff\x03"):
        with pytest.raises(ValueError):
            onnx_file.metadata(data)
    nested = b""
    for _ in range(100):  # a graph in an attribute of a node of a graph
        nested = protobuf.field(1, protobuf.field(5, protobuf.field(6, nested)))
    with pytest.raises(ValueError, match="deep in one another"):
        onnx_file.external_locations(protobuf.field(7, nested) + protobuf.field(99, b"location"))


def test_any_bytes_give_a_value_or_a_value_error():
    rng, good = np.random.default_rng(0), a_model({place: outside(np.zeros(2, np.float32), "e", 0) for place in PLACES})
    for _ in range(3000):
        data = bytearray(good)
        for _ in range(rng.integers(1, 4)):
            data[rng.integers(len(data))] = rng.integers(256)
        for read in (onnx_file.metadata, onnx_file.external_locations,
                     lambda d: onnx_file.with_data_inside(d, {"e": b"x" * 8})):
            try:
                read(bytes(data))
            except ValueError:
                pass
