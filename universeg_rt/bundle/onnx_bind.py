"""Freezes an ONNX model: makes constants of its inputs, without the package `onnx`.

A bundle's `whole` and `static` models take the query and, beside it, all that a task knows. `bind` puts these values
into the model, so that one input is left, fixes the image's size, and leaves the number of queries open.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from . import protobuf
from .onnx_file import DATA_TYPE, DIMS, GRAPH, INITIALIZER, METADATA, NAME, RAW_DATA, TYPES, graph, messages

QUERY, BATCH = "query", "B"
NODE, INPUT, OUTPUT, VALUE_INFO = 1, 11, 12, 13  # fields of GraphProto, beside INITIALIZER
NODE_INPUT, NODE_OUTPUT = 1, 2  # fields of NodeProto
VALUE_NAME, VALUE_TYPE = 1, 2  # fields of ValueInfoProto
TENSOR_TYPE, ELEMENT_TYPE, SHAPE, DIM, DIM_VALUE, DIM_PARAM = 1, 1, 2, 1, 1, 2  # on the way from TypeProto to a side
CASTABLE = ("float16", "uint8", "int8")  # what may stand for a floating-point input of another type

STORED = "/stored"  # ends the name of a constant that is cast to the type that the model declares

_NUMBERS = {kind: number for number, kind in TYPES.items()}


@dataclass(frozen=True)
class _Value:
    """A graph's input or output: its name, its element's TensorProto.DataType, and its sides, numbers or names."""

    name: str
    kind: int
    dims: tuple[int | str, ...]

    def encoded(self) -> bytes:
        sides = (protobuf.field(DIM_PARAM, side) if isinstance(side, str) else protobuf.number_field(DIM_VALUE, side)
                 for side in self.dims)
        shape = b"".join(protobuf.field(DIM, side) for side in sides)
        tensor = protobuf.number_field(ELEMENT_TYPE, self.kind) + protobuf.field(SHAPE, shape)
        return protobuf.field(VALUE_NAME, self.name) + protobuf.field(VALUE_TYPE, protobuf.field(TENSOR_TYPE, tensor))


def bind(model: bytes, constants: Mapping[str, np.ndarray], metadata: Mapping[str, str], *,
         outputs: Sequence[str] | None, query_size: tuple[int, int]) -> bytes:
    """The model with these inputs as initialisers, for queries (B,1,H,W) of one size and any number B.

    constants: by the input's name, of its type; a floating-point input also takes float16, uint8 or int8, which the
    model keeps so and casts. An input with a default value that is not given keeps it. metadata: put in, in place of
    entries with the same key. outputs: those to keep (None: all); what only others need stays in the graph, unread, and
    runtimes drop it. query_size: (H, W) in pixels.

    ValueError where the bytes are no ONNX model, a constant or output is none of the model's, an input beside the query
    is left over, or a constant's type or shape is not what the model declares: a side called H/2 is half the query's,
    and sides of one name are equal.
    """
    first, last = graph(model)
    new_graph = _bound_graph(model, first, last, dict(constants), outputs, query_size)
    kept = []
    for number, wire, start, end, tag in protobuf.fields(model, 0, len(model)):
        if number == GRAPH:
            kept.append(protobuf.field(GRAPH, new_graph))
        elif number != METADATA or protobuf.entry(model, wire, start, end)[0] not in metadata:
            kept.append(model[tag:end])
    entries = (protobuf.field(1, key) + protobuf.field(2, value) for key, value in metadata.items())
    return b"".join([*kept, *(protobuf.field(METADATA, entry) for entry in entries)])


def giving(model: bytes, tensor: str, output: str) -> bytes:
    """The model with one of its tensors as an output, in the place of an output of the same type and shape, and without
    the nodes that only the latter needs: ONNX Runtime would run them. For graphs without graphs in their nodes.
    ValueError where it has no such output, or no node gives the tensor."""
    first, last = graph(model)
    made = {value.name: value for value in _values(model, first, last, OUTPUT)}
    _all_known("outputs", [output], made)
    nodes = {place: _edges(model, *place) for place in messages(model, first, last, NODE)}
    if not any(tensor in gives for _, gives in nodes.values()):
        raise ValueError(f"no node of the model gives {tensor!r}")
    outputs, before = {tensor, *made} - {output}, len(nodes) + 1
    while len(nodes) < before:
        before, read = len(nodes), outputs.union(*(reads for reads, _ in nodes.values()))
        nodes = {place: edges for place, edges in nodes.items() if edges[1] & read}
    body = [model[tag:end] for number, _, start, end, tag in protobuf.fields(model, first, last)
            if (number != NODE or (start, end) in nodes) and (
                number != OUTPUT or _value_name(model, start, end) != output)]
    body.append(protobuf.field(OUTPUT, replace(made[output], name=tensor).encoded()))
    return b"".join(protobuf.field(GRAPH, b"".join(body)) if number == GRAPH else model[tag:end]
                    for number, _, _, end, tag in protobuf.fields(model, 0, len(model)))


def query_size(model: bytes) -> tuple[int | str, int | str]:
    """Height and width of a model's input `query`, as it declares them; ValueError where it is no such model."""
    for value in _values(model, *graph(model), INPUT):
        if value.name == QUERY and len(value.dims) == 4:
            return value.dims[2], value.dims[3]
    raise ValueError(f"the model has no input {QUERY!r} of images")


def _bound_graph(data: bytes, start: int, end: int, constants: dict[str, np.ndarray], outputs: Sequence[str] | None,
                 size: tuple[int, int]) -> bytes:
    inputs = {value.name: value for value in _values(data, start, end, INPUT)}
    made = {value.name: value for value in _values(data, start, end, OUTPUT)}
    stored = {_tensor_name(data, *place): place for place in messages(data, start, end, INITIALIZER)}
    if QUERY not in inputs or QUERY in constants or QUERY in stored:
        raise ValueError(f"the model has no input {QUERY!r} that can stay one")
    _all_known("constants", constants, inputs)
    _all_known("outputs", outputs or (), made)
    left = sorted(set(inputs) - set(constants) - set(stored) - {QUERY})
    if left:
        raise ValueError(f"these inputs need a constant: {', '.join(left)}")
    sides = _Sides(size)
    casts, tensors = [], []
    for name, value in constants.items():
        cast, tensor = _constant(inputs[name], np.asarray(value), sides, stored)
        casts.append(cast)
        tensors.append(tensor)
    query, batch = inputs[QUERY], (BATCH, 1, *size)
    sides.check(query, batch[1:], skip=1)
    body = [data[tag:last] for number, _, first, last, tag in protobuf.fields(data, start, end)
            if number not in (INPUT, OUTPUT, VALUE_INFO) and not (
                number == INITIALIZER and _tensor_name(data, first, last) in constants)]
    body.append(protobuf.field(INPUT, _Value(QUERY, query.kind, batch).encoded()))
    for name in made if outputs is None else dict.fromkeys(outputs):
        dims = tuple(sides.known(side) for side in made[name].dims)
        body.append(protobuf.field(OUTPUT, _Value(name, made[name].kind, dims).encoded()))
    # Casts stand before what reads them.
    return b"".join([*casts, *body, *tensors])


def _constant(declared: _Value, value: np.ndarray, sides: _Sides, stored: Mapping[str, object]) -> tuple[bytes, bytes]:
    """The node that casts a constant, or nothing, and the tensor, as fields of a graph."""
    name, wanted = declared.name, TYPES.get(declared.kind)
    kind = value.dtype.newbyteorder("<")
    is_cast = kind != wanted
    if wanted is None or kind not in _NUMBERS or is_cast and not (wanted.kind == "f" and kind.name in CASTABLE):
        accepted = [str(wanted), *(CASTABLE if wanted is not None and wanted.kind == "f" else ())]
        raise ValueError(f"the constant {name!r} is {value.dtype}; accepted: {', '.join(dict.fromkeys(accepted))}")
    sides.check(declared, value.shape)
    called = name + STORED if is_cast else name
    if called in stored and is_cast:
        raise ValueError(f"the model has a tensor {called!r} already")
    tensor = b"".join(protobuf.number_field(DIMS, side) for side in value.shape) + protobuf.number_field(
        DATA_TYPE, _NUMBERS[kind]) + protobuf.field(NAME, called) + protobuf.field(
            RAW_DATA, np.ascontiguousarray(value, kind).tobytes())
    return _cast(called, name, declared.kind) if is_cast else b"", protobuf.field(INITIALIZER, tensor)


def _cast(source: str, target: str, kind: int) -> bytes:
    """A node Cast, as a field of a graph."""
    to = protobuf.field(1, "to") + protobuf.number_field(3, kind) + protobuf.number_field(20, 2)  # name, i, type INT
    return protobuf.field(NODE, protobuf.field(1, source) + protobuf.field(2, target) + protobuf.field(3, target)
                          + protobuf.field(4, "Cast") + protobuf.field(5, to))


class _Sides:
    """What the named sides of a model's tensors are; ValueError where one would be two numbers."""

    def __init__(self, size: tuple[int, int]) -> None:
        if len(size) != 2 or any(isinstance(s, bool) or not isinstance(s, (int, np.integer)) or s < 1 for s in size):
            raise ValueError(f"the query's size is {size!r}; give a height and a width in pixels")
        self._known: dict[str, int] = dict(zip("HW", map(int, size)))

    def known(self, side: int | str) -> int | str:
        """A side as a number where it is one by now."""
        if not isinstance(side, str):
            return side
        whole, _, parts = side.partition("/")
        if parts.isdecimal() and whole in self._known and 0 < int(parts) and self._known[whole] % int(parts) == 0:
            return self._known[whole] // int(parts)
        return self._known.get(side, side)

    def check(self, declared: _Value, shape: tuple[int, ...], skip: int = 0) -> None:
        """That a tensor may have this shape, behind its first `skip` sides; names among its sides are known then."""
        expected = declared.dims[skip:]
        fits = len(expected) == len(shape)
        for side, found in zip(expected, shape):
            side = self.known(side)
            if isinstance(side, str) and "/" not in side:
                side = self._known.setdefault(side, found)
            fits = fits and side == found
        if not fits:
            sides = [self.known(side) for side in expected]
            raise ValueError(f"{declared.name!r} has the shape {tuple(shape)}; expected ({', '.join(map(str, sides))})")


def _values(data: bytes, start: int, end: int, number: int) -> Iterator[_Value]:
    """A graph's inputs or outputs, which must be tensors with a shape."""
    for place in messages(data, start, end, number):
        names, types = messages(data, *place, VALUE_NAME), messages(data, *place, VALUE_TYPE)
        tensors = [t for place in types for t in messages(data, *place, TENSOR_TYPE)]
        shapes = [s for place in tensors for s in messages(data, *place, SHAPE)]
        kinds = [n for place in tensors for n in _numbers(data, place, ELEMENT_TYPE)]
        if not len(names) == len(types) == len(tensors) == len(shapes) == len(kinds) == 1:
            raise ValueError("an input or output of the model is no tensor with a name, a type and a shape")
        dims = []
        for place in messages(data, *shapes[0], DIM):
            values, params = _numbers(data, place, DIM_VALUE), messages(data, *place, DIM_PARAM)
            dims.append(values[0] if values else data[slice(*params[0])].decode() if params else "")
        yield _Value(data[slice(*names[0])].decode(), kinds[0], tuple(dims))


def _edges(data: bytes, start: int, end: int) -> tuple[set[str], set[str]]:
    """What a node reads and what it gives."""
    reads, gives = ({data[slice(*place)].decode() for place in messages(data, start, end, number)}
                    for number in (NODE_INPUT, NODE_OUTPUT))
    return reads, gives


def _value_name(data: bytes, start: int, end: int) -> str:
    return data[slice(*messages(data, start, end, VALUE_NAME)[0])].decode()


def _numbers(data: bytes, place: tuple[int, int], number: int) -> list[int]:
    return [value for found, wire, first, last, _ in protobuf.fields(data, *place) if found == number
            for value in protobuf.numbers(data, wire, first, last)]


def _tensor_name(data: bytes, start: int, end: int) -> str:
    names = messages(data, start, end, NAME)
    return data[slice(*names[-1])].decode() if names else ""


def _all_known(what: str, names: Iterable[str], known: Mapping[str, object]) -> None:
    unknown = sorted(set(names) - set(known))
    if unknown:
        raise ValueError(f"the model has no {what} called {', '.join(unknown)}; it has {', '.join(known)}")
