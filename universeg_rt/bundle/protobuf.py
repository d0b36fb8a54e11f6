"""Protobuf's own format: the fields of a message as they lie in its bytes, and fields as bytes.

Bytes that are no message raise ValueError.
"""

from __future__ import annotations

from collections.abc import Iterator

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5  # kinds of a field on the wire


def fields(data: bytes, start: int, end: int) -> Iterator[tuple[int, int, int, int, int]]:
    """(number, wire type, first byte, end, first byte of the tag) of every field of a message."""
    at = start
    while at < end:
        tag = at
        key, at = varint(data, at, end)
        number, wire = key >> 3, key & 7
        if wire == LENGTH:
            length, at = varint(data, at, end)
            after = at + length
        elif wire == VARINT:
            after = varint(data, at, end)[1]
        elif wire in (FIXED64, FIXED32):
            after = at + (8 if wire == FIXED64 else 4)
        else:
            raise ValueError(f"there is no field of the kind {wire} in ONNX")
        if number == 0 or after > end:
            raise ValueError("a field is cut off or has no number")
        yield number, wire, at, after, tag
        at = after


def varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while at < end and shift < 70:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
    raise ValueError("a number is cut off")


def numbers(data: bytes, wire: int, start: int, end: int) -> list[int]:
    """Of a field that holds one number, or several packed into one run of bytes."""
    if wire not in (VARINT, LENGTH):
        raise ValueError("a field has another kind than ONNX gives it")
    out, at = [], start
    while at < end:
        value, at = varint(data, at, end)
        out.append(value)
    return out


def entry(data: bytes, wire: int, start: int, end: int) -> tuple[str, str]:
    """Key and value of a StringStringEntryProto."""
    needs_length(wire)
    out = {1: "", 2: ""}
    for number, inner, first, last, _ in fields(data, start, end):
        if number in out:
            needs_length(inner)
            out[number] = data[first:last].decode()
    return out[1], out[2]


def needs_length(wire: int) -> None:
    if wire != LENGTH:
        raise ValueError("a field has another kind than ONNX gives it")


def field(number: int, content: bytes | str) -> bytes:
    """A field that holds bytes, a text or a message."""
    content = content.encode() if isinstance(content, str) else content
    return as_varint(number << 3 | LENGTH) + as_varint(len(content)) + content


def number_field(number: int, value: int) -> bytes:
    return as_varint(number << 3 | VARINT) + as_varint(value)


def as_varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)
