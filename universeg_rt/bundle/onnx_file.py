"""What a bundle's check and the runners need of an ONNX file, read from its bytes without the package `onnx`: its
metadata, its tensors, and which other files these lie in.

A file is a protobuf message of onnx.proto. Only the fields that lead to tensors are followed; everything else is
stepped over, and bytes that are no such message raise ValueError.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import numpy as np

from . import protobuf

# Of each message, the fields that lead to tensors and the message that stands in them.
CHILDREN: Mapping[str, Mapping[int, str]] = {
    "ModelProto": {7: "GraphProto", 20: "TrainingInfoProto", 25: "FunctionProto"},
    "GraphProto": {1: "NodeProto", 5: "TensorProto", 15: "SparseTensorProto"},
    "NodeProto": {5: "AttributeProto"},
    "AttributeProto": {5: "TensorProto", 6: "GraphProto", 10: "TensorProto", 11: "GraphProto", 22: "SparseTensorProto",
                       23: "SparseTensorProto"},
    "FunctionProto": {7: "NodeProto", 11: "AttributeProto"},
    "TrainingInfoProto": {1: "GraphProto", 2: "GraphProto"},
    "SparseTensorProto": {1: "TensorProto", 2: "TensorProto"},
}
IR_VERSION, GRAPH, METADATA = 1, 7, 14  # fields of ModelProto
INITIALIZER = 5  # field of GraphProto
DIMS, DATA_TYPE, NAME, RAW_DATA, EXTERNAL_DATA, DATA_LOCATION = 1, 2, 8, 9, 13, 14  # fields of TensorProto
# The types that are read and written, by TensorProto.DataType.
TYPES: Mapping[int, np.dtype] = {number: np.dtype(name).newbyteorder("<") for number, name in (
    (1, "float32"), (2, "uint8"), (3, "int8"), (6, "int32"), (7, "int64"), (10, "float16"))}
DEEPEST = 60  # messages within one another; protobuf itself stops at 100


def metadata(model: bytes) -> dict[str, str]:
    """Its metadata_props; ValueError where these bytes are no ONNX model or a key stands twice."""
    out: dict[str, str] = {}
    seen = set()
    for number, wire, start, end, _ in protobuf.fields(model, 0, len(model)):
        seen.add((number, wire))
        if number == METADATA:
            key, value = protobuf.entry(model, wire, start, end)
            if key in out:
                raise ValueError(f"the metadata hold {key!r} twice")
            out[key] = value
    if not {(IR_VERSION, protobuf.VARINT), (GRAPH, protobuf.LENGTH)} <= seen:
        raise ValueError("there is no version or no graph in it")
    return out


def external_locations(model: bytes) -> frozenset[str]:
    """Names of the files that hold its tensors, those of functions, subgraphs and attributes too.

    ValueError as in `metadata`.
    """
    if b"location" not in model:  # the key of every such name
        return frozenset()
    return frozenset(_locations(model, 0, len(model), "ModelProto", 0))


def tensors(model: bytes) -> dict[str, np.ndarray]:
    """The initialisers of its graph by name, read-only views of these bytes, in the order in which they stand.

    ValueError where the bytes are no ONNX model, a name stands twice, or a tensor lies in another file, is of a type
    that is not in `TYPES`, or does not hold its data as raw bytes.
    """
    out: dict[str, np.ndarray] = {}
    for start, end in messages(model, *graph(model), INITIALIZER):
        name, value = _array(model, start, end)
        if name in out:
            raise ValueError(f"two tensors are called {name!r}")
        out[name] = value
    return out


def graph(model: bytes) -> tuple[int, int]:
    """Where its graph begins and ends in the bytes; ValueError where they are no ONNX model with one graph."""
    metadata(model)
    found = messages(model, 0, len(model), GRAPH)
    if len(found) != 1:
        raise ValueError(f"there are {len(found)} graphs in it")
    return found[0]


def messages(data: bytes, start: int, end: int, number: int) -> list[tuple[int, int]]:
    """Begin and end of each message that stands in this field; ValueError where something else stands there."""
    out = []
    for found, wire, first, last, _ in protobuf.fields(data, start, end):
        if found == number:
            protobuf.needs_length(wire)
            out.append((first, last))
    return out


def with_data_inside(model: bytes, files: Mapping[str, bytes]) -> bytes:
    """The model with the data of its tensors in itself. files: contents by the name that the tensors give.

    ValueError where a tensor lies in no such file, or beyond its end.
    """
    if not external_locations(model):
        return model
    return _rewritten(model, 0, len(model), "ModelProto", files, 0)


def _locations(data: bytes, start: int, end: int, message: str, depth: int) -> Iterator[str]:
    if depth > DEEPEST:
        raise ValueError(f"messages lie more than {DEEPEST} deep in one another")
    children = CHILDREN.get(message, {})
    for number, wire, first, last, _ in protobuf.fields(data, start, end):
        if message == "TensorProto" and number == EXTERNAL_DATA:
            key, value = protobuf.entry(data, wire, first, last)
            if key == "location":
                yield value
        elif number in children:
            protobuf.needs_length(wire)
            yield from _locations(data, first, last, children[number], depth + 1)


def _rewritten(data: bytes, start: int, end: int, message: str, files: Mapping[str, bytes], depth: int) -> bytes:
    if message == "TensorProto":
        return _tensor(data, start, end, files)
    if depth > DEEPEST:
        raise ValueError(f"messages lie more than {DEEPEST} deep in one another")
    children, pieces = CHILDREN[message], []
    for number, wire, first, last, tag in protobuf.fields(data, start, end):
        if number in children:
            protobuf.needs_length(wire)
            pieces.append(protobuf.field(number, _rewritten(data, first, last, children[number], files, depth + 1)))
        else:
            pieces.append(data[tag:last])
    return b"".join(pieces)


def _tensor(data: bytes, start: int, end: int, files: Mapping[str, bytes]) -> bytes:
    entries, kept = {}, []
    for number, wire, first, last, tag in protobuf.fields(data, start, end):
        if number == EXTERNAL_DATA:
            key, value = protobuf.entry(data, wire, first, last)
            if key in entries:
                raise ValueError(f"a tensor says its {key} twice")
            entries[key] = value
        elif number not in (RAW_DATA, DATA_LOCATION):
            kept.append(data[tag:last])
    if not entries:
        return data[start:end]
    location = entries.get("location")
    if location is None or location not in files:
        raise ValueError(f"a tensor lies in {location!r}, which is not among the model's files")
    content = files[location]
    begin = _count(entries.get("offset", "0"))
    length = _count(entries["length"]) if "length" in entries else len(content) - begin
    if length < 0 or begin + length > len(content):
        raise ValueError(f"a tensor lies at {begin} of {location!r}, which has {len(content)} bytes")
    return b"".join(kept) + protobuf.field(RAW_DATA, content[begin : begin + length])


def _array(data: bytes, start: int, end: int) -> tuple[str, np.ndarray]:
    """Name and values of a tensor."""
    name, kind = "", 0
    dims: list[int] = []
    raw: bytes | memoryview = b""
    for number, wire, first, last, _ in protobuf.fields(data, start, end):
        if number == DIMS:
            dims += protobuf.numbers(data, wire, first, last)
        elif number == DATA_TYPE:
            (kind,) = protobuf.numbers(data, wire, first, last)
        elif number in (NAME, RAW_DATA):
            protobuf.needs_length(wire)
            if number == NAME:
                name = data[first:last].decode()
            else:
                raw = memoryview(data)[first:last]
        elif number in (EXTERNAL_DATA, DATA_LOCATION):
            raise ValueError(f"the tensor {name!r} lies in another file")
    if kind not in TYPES:
        raise ValueError(f"the tensor {name!r} is of the type {kind}; read are {', '.join(map(str, TYPES.values()))}")
    count = math.prod(dims)
    if count * TYPES[kind].itemsize != len(raw) or max(dims, default=0) >= 2**63:
        raise ValueError(f"the tensor {name!r} has {len(raw)} raw bytes for the shape {tuple(dims)[:8]}")
    return name, np.frombuffer(raw, TYPES[kind], count).reshape(dims)


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise ValueError(f"{text!r} is no number of bytes")
    return int(text)
