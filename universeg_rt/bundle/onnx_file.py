"""What a bundle's check and the runners need of an ONNX file, read from its bytes without the package `onnx`: its
metadata, and which other files its tensors lie in.

A file is a protobuf message of onnx.proto. Only the fields that lead to tensors are followed; everything else is
stepped over, and bytes that are no such message raise ValueError.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

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
RAW_DATA, EXTERNAL_DATA, DATA_LOCATION = 9, 13, 14  # fields of TensorProto
DEEPEST = 60  # messages within one another; protobuf itself stops at 100

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5


def metadata(model: bytes) -> dict[str, str]:
    """Its metadata_props; ValueError where these bytes are no ONNX model or a key stands twice."""
    out: dict[str, str] = {}
    seen = set()
    for number, wire, start, end, _ in _fields(model, 0, len(model)):
        seen.add((number, wire))
        if number == METADATA:
            key, value = _entry(model, wire, start, end)
            if key in out:
                raise ValueError(f"the metadata hold {key!r} twice")
            out[key] = value
    if not {(IR_VERSION, _VARINT), (GRAPH, _LENGTH)} <= seen:
        raise ValueError("there is no version or no graph in it")
    return out


def external_locations(model: bytes) -> frozenset[str]:
    """Names of the files that hold its tensors, those of functions, subgraphs and attributes too.

    ValueError as in `metadata`.
    """
    if b"location" not in model:  # the key of every such name
        return frozenset()
    return frozenset(_locations(model, 0, len(model), "ModelProto", 0))


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
    for number, wire, first, last, _ in _fields(data, start, end):
        if message == "TensorProto" and number == EXTERNAL_DATA:
            key, value = _entry(data, wire, first, last)
            if key == "location":
                yield value
        elif number in children:
            _needs_length(wire)
            yield from _locations(data, first, last, children[number], depth + 1)


def _rewritten(data: bytes, start: int, end: int, message: str, files: Mapping[str, bytes], depth: int) -> bytes:
    if message == "TensorProto":
        return _tensor(data, start, end, files)
    if depth > DEEPEST:
        raise ValueError(f"messages lie more than {DEEPEST} deep in one another")
    children, pieces = CHILDREN[message], []
    for number, wire, first, last, tag in _fields(data, start, end):
        if number in children:
            _needs_length(wire)
            pieces.append(_field(number, _rewritten(data, first, last, children[number], files, depth + 1)))
        else:
            pieces.append(data[tag:last])
    return b"".join(pieces)


def _tensor(data: bytes, start: int, end: int, files: Mapping[str, bytes]) -> bytes:
    entries, kept = {}, []
    for number, wire, first, last, tag in _fields(data, start, end):
        if number == EXTERNAL_DATA:
            key, value = _entry(data, wire, first, last)
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
    return b"".join(kept) + _field(RAW_DATA, content[begin : begin + length])


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise ValueError(f"{text!r} is no number of bytes")
    return int(text)


# Protobuf's own format ------------------------------------------------------------------------------------------------

def _fields(data: bytes, start: int, end: int) -> Iterator[tuple[int, int, int, int, int]]:
    """(number, wire type, first byte, end, first byte of the tag) of every field of a message."""
    at = start
    while at < end:
        tag = at
        key, at = _varint(data, at, end)
        number, wire = key >> 3, key & 7
        if wire == _LENGTH:
            length, at = _varint(data, at, end)
            after = at + length
        elif wire == _VARINT:
            after = _varint(data, at, end)[1]
        elif wire in (_FIXED64, _FIXED32):
            after = at + (8 if wire == _FIXED64 else 4)
        else:
            raise ValueError(f"there is no field of the kind {wire} in ONNX")
        if number == 0 or after > end:
            raise ValueError("a field is cut off or has no number")
        yield number, wire, at, after, tag
        at = after


def _varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while at < end and shift < 70:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
    raise ValueError("a number is cut off")


def _entry(data: bytes, wire: int, start: int, end: int) -> tuple[str, str]:
    """Key and value of a StringStringEntryProto."""
    _needs_length(wire)
    out = {1: "", 2: ""}
    for number, inner, first, last, _ in _fields(data, start, end):
        if number in out:
            _needs_length(inner)
            out[number] = data[first:last].decode()
    return out[1], out[2]


def _needs_length(wire: int) -> None:
    if wire != _LENGTH:
        raise ValueError("a field has another kind than ONNX gives it")


def _field(number: int, content: bytes) -> bytes:
    return _as_varint(number << 3 | _LENGTH) + _as_varint(len(content)) + content


def _as_varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)
