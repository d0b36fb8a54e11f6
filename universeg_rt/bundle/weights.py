"""The one file of a bundle that holds its numbers: safetensors, read from bytes that were checked, as arrays that share
them.

All graphs of all precisions name its bytes as ONNX external data, the native runner and the reference network read it
by name. The reference's tensors have their keys of the state dict, but for the cross convolutions' weights: graphs read
the query's and the support's input channels apart, so each of these two is a tensor, `KEY.query` and `KEY.support`.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..errors import BundleError
from ..named_types import Array, Floats
from ..spec import NetworkSpec

WEIGHTS = "weights.safetensors"
ALIGNMENT = 64  # bytes
QUERY, SUPPORT = ".query", ".support"
TYPES: Mapping[str, np.dtype[Any]] = {
    "F32": np.dtype("<f4"), "I32": np.dtype("<i4"), "I8": np.dtype("i1"), "U8": np.dtype("u1"),
}
LARGEST_HEADER = 2**24  # bytes


def read_tensors(data: bytes, name: str = WEIGHTS) -> dict[str, Array]:
    """Arrays by name, read-only views of `data`;
    BundleError where it is no whole safetensors file of types in TYPES."""
    try:
        return _read(data)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, struct.error) as error:
        raise BundleError(f"{name} cannot be used ({error}); export the bundle again, or copy it again") from None


def read_metadata(data: bytes) -> dict[str, str]:
    """What a file says of itself; ValueError where it is no safetensors file."""
    found = _header(data)[0].get("__metadata__", {})
    if not isinstance(found, dict):
        raise ValueError("its metadata are no mapping")
    return found


def mapping(data: bytes, key: str) -> dict[str, Any]:
    """`metadata` or `arrays` of the native runner's list (export/emit/native.py writes it); ValueError without one."""
    try:
        values = json.loads(data)
    except RecursionError:
        raise ValueError("its JSON is too deep") from None
    found = values.get(key) if isinstance(values, dict) else None
    if not isinstance(found, dict):
        raise ValueError(f"it has no {key}")
    return found


def reference_weights(tensors: Mapping[str, Array], spec: NetworkSpec) -> dict[str, Floats]:
    """The reference network's state dict, float32 arrays by key;
    BundleError names a tensor that is missing or misshapen."""
    weights = {}
    for key, shape in spec.weight_shapes().items():
        names = [key] if key in tensors else [key + QUERY, key + SUPPORT]
        missing = [name for name in names if name not in tensors]
        if missing:
            raise BundleError(f"the bundle's {WEIGHTS} holds no {missing[0]}; export the bundle again")
        parts = [tensors[name] for name in names]
        fits = all(p.ndim == len(shape) and p.dtype == np.float32 for p in parts)
        fits = fits and len({p.shape[:1] + p.shape[2:] for p in parts}) == 1
        value = np.concatenate(parts, axis=1) if fits and len(parts) > 1 else parts[0]
        if not fits or value.shape != shape:
            raise BundleError(f"{key} in the bundle's {WEIGHTS} is not {shape} of float32; export the bundle again")
        weights[key] = value
    return weights


def split_weights(weights: Mapping[str, Array], spec: NetworkSpec) -> dict[str, Floats]:
    """The tensors that `reference_weights` makes a state dict of."""
    tensors = dict(weights)
    for block in spec.blocks():
        key = f"{block.name}.cross.cross_conv.weight"
        value = tensors.pop(key)
        tensors[key + QUERY], tensors[key + SUPPORT] = value[:, :block.query_channels], value[:, block.query_channels:]
    return {key: np.ascontiguousarray(value, np.float32) for key, value in tensors.items()}


def _header(data: bytes) -> tuple[dict[str, Any], int]:
    """The header, and where the numbers begin."""
    (size,) = struct.unpack_from("<Q", data)
    if size > min(LARGEST_HEADER, len(data) - 8):
        raise ValueError(f"its header should have {size} bytes")
    header = json.loads(data[8 : 8 + size])
    if not isinstance(header, dict):
        raise ValueError("its header is no mapping")
    return header, 8 + size


def _read(data: bytes) -> dict[str, Array]:
    header, start = _header(data)
    header.pop("__metadata__", None)
    tensors, at = {}, 0
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        kind, shape, (begin, end) = TYPES.get(entry["dtype"]), entry["shape"], entry["data_offsets"]
        if kind is None:
            raise ValueError(f"{name} is of type {entry['dtype']}; accepted: {', '.join(TYPES)}")
        if not all(type(n) is int and n >= 0 for n in (*shape, begin, end)):
            raise ValueError(f"{name} has an odd shape or place")
        count = 1
        for side in shape:
            count *= side
        if begin != at or end - begin != count * kind.itemsize or start + end > len(data):
            raise ValueError(f"{name} does not lie where its shape and its neighbours put it")
        tensors[name] = np.frombuffer(data, kind, count, start + begin).reshape(shape)
        at = end
    if start + at != len(data):
        raise ValueError(f"it has {len(data)} bytes, its tensors end at {start + at}")
    return tensors
