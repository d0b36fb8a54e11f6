"""Reads the weights of the native runner, files that `export/emit/native.py` writes, and checks every array before it
is used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ...bundle.model_bytes import ModelBytes
from ...bundle.weights import WEIGHTS, mapping, read_tensors
from ...errors import BundleError
from ...named_types import Array, Floats
from ...spec import NetworkSpec

TABLE, FIRST = "int8", "first"
# Kernels of `first`: the nine positions of a pixel, of which all but the middle have fewer taps.
FIRST_BLOCK = ("top_left", "top", "top_right", "left", None, "right", "bottom_left", "bottom", "bottom_right")
_INSIDE = (slice(2, 5), slice(0, 5), slice(0, 3))  # taps of a first, a middle and a last row or column
MAX_FEATURES = 512  # of a stage, as kernels/cpu/bindings/module.cpp accepts them
MAX_STAGES = 16  # of the encoder; images would be multiples of 32768


def read_weights(weights: ModelBytes, spec: NetworkSpec) -> dict[str, Array]:
    """The arrays of the file by name, all float32 but the table of what is held in int8: weights of int8 are expanded.

    Raises BundleError that names the array where one is missing, unknown, of another type or shape than the network
    `spec` needs, not finite, or not in its range; and where the file cannot be read or the network is too large for the
    runner.
    """
    if len(spec.encoder_features) > MAX_STAGES or max(spec.encoder_features + spec.decoder_features) > MAX_FEATURES:
        raise BundleError(
            f"the network has {len(spec.encoder_features)} encoder stages of up to "
            f"{max(spec.encoder_features + spec.decoder_features)} features; the native runner takes at most "
            f"{MAX_STAGES} and {MAX_FEATURES}: use runner='onnxruntime'")
    tensors = read_tensors(weights.external.get(WEIGHTS, b""))
    try:
        return in_float(_assembled(_listed(weights.data), tensors), spec)
    except ValueError as error:
        raise BundleError(
            f"{weights.name} cannot be used ({error}); export the bundle again, or copy it again") from None


def first_block(kernels: Sequence[Floats]) -> Floats:
    """`first` (9,inputs,5,5,features) of the kernels (features,inputs,...) in the order of FIRST_BLOCK.

    ValueError for other shapes.
    """
    features, inputs = kernels[4].shape[:2]
    windows = [(_INSIDE[position // 3], _INSIDE[position % 3]) for position in range(len(FIRST_BLOCK))]
    for name, kernel, window in zip(FIRST_BLOCK, kernels, windows, strict=True):
        wanted = (features, inputs, *(side.stop - side.start for side in window))
        if kernel.shape != wanted or kernel.dtype != np.float32:
            raise ValueError(
                f"the first block's kernel {name or 'inside'} is {kernel.dtype} {kernel.shape}, not {wanted}")
    out = np.zeros((9, features, inputs, 5, 5), np.float32)
    for position, (kernel, window) in enumerate(zip(kernels, windows)):
        out[position][:, :, window[0], window[1]] = kernel
    return np.ascontiguousarray(out.transpose(0, 2, 3, 4, 1))


def _listed(data: bytes) -> dict[str, list[str]]:
    """The tensors of which each array is made; ValueError."""
    arrays = mapping(data, "arrays")
    if not all(isinstance(names, list) and names and all(isinstance(name, str) for name in names)
               for names in arrays.values()):
        raise ValueError("an array is made of no tensors")
    return arrays


def _assembled(listed: Mapping[str, Sequence[str]], tensors: Mapping[str, Array]) -> dict[str, Array]:
    arrays = {}
    for array, names in listed.items():
        missing = [name for name in names if name not in tensors]
        if missing:
            raise ValueError(f"array {array} is made of {missing[0]!r}, which {WEIGHTS} does not hold")
        parts = [tensors[name] for name in names]
        if len(parts) == 1:
            arrays[array] = parts[0].reshape(-1) if array == "head.weight" else parts[0]
        elif array == FIRST and len(parts) == len(FIRST_BLOCK) and parts[4].ndim == 4:
            arrays[array] = first_block(parts)
        elif len(parts) == 2 and all(part.ndim == 4 for part in parts):
            arrays[array] = np.concatenate(parts, axis=1)
        else:
            raise ValueError(f"array {array} cannot be made of {len(parts)} tensors")
    return arrays


def _shapes(spec: NetworkSpec) -> dict[str, tuple[int, ...]]:
    """Every array that the network has in float32, with its shape."""
    blocks = spec.blocks()
    shapes: dict[str, tuple[int, ...]] = {}
    for i, block in enumerate(blocks):
        inputs = {
            "cross": block.query_channels + block.support_channels, "target": block.features, "support": block.features
        }
        for part, channels in inputs.items():
            if part != "support" or not block.is_last:  # nothing reads its entries
                shapes[f"{i}.{part}.weight"] = (block.features, channels, 3, 3)
                shapes[f"{i}.{part}.bias"] = (block.features,)
    shapes[FIRST] = (9, blocks[0].support_channels, 5, 5, blocks[0].features)
    shapes["head.weight"], shapes["head.bias"] = (blocks[-1].features,), (1,)
    return shapes


def in_float(arrays: Mapping[str, Array], spec: NetworkSpec) -> dict[str, Array]:
    """The checked arrays, int8 weights times their scales (out, parts), one for each equal part of the inputs.
    ValueError."""
    shapes, out, known = _shapes(spec), {}, {TABLE}
    for name, shape in shapes.items():
        part = name.removesuffix(".weight")
        types = (np.float32, np.int8) if TABLE in arrays and len(shape) == 4 else (np.float32,)
        value = _checked(arrays, name, shape, types)
        known.add(name)
        if value.dtype == np.int8:
            scale = _checked(arrays, f"{part}.scale", (shape[0], 2 if part.endswith("cross") else 1), (np.float32,))
            if not (scale > 0).all():
                raise ValueError(f"array {part}.scale holds {scale.min():g}; scales are positive")
            known.add(f"{part}.scale")
            with np.errstate(over="ignore"):
                parts = value.reshape(*scale.shape, -1).astype(np.float32) * scale[..., None]
            value = _finite(f"{name} times its scales", parts.reshape(shape))
        out[name] = value
    if TABLE in arrays:
        out[TABLE] = _table(arrays, len(spec.blocks()) - 1)
    unknown = sorted(set(arrays) - known)
    if unknown:
        raise ValueError(f"array {unknown[0]!r} is none of this network's")
    return out


def _checked(arrays: Mapping[str, Array], name: str, shape: tuple[int, ...], types: tuple[type, ...]) -> Array:
    if name not in arrays:
        raise ValueError(f"no array {name}")
    value = arrays[name]
    if value.dtype not in types:
        raise ValueError(f"array {name} is of type {value.dtype}, not {' or '.join(np.dtype(t).name for t in types)}")
    if value.shape != shape:
        raise ValueError(f"array {name} has shape {value.shape}, the network needs {shape}")
    return _finite(name, value)


def _finite(name: str, value: Array) -> Array:
    if not np.isfinite(value).all():
        raise ValueError(f"array {name} holds NaN or infinity")
    return value


def _table(arrays: Mapping[str, Array], blocks: int) -> Array:
    """Which maps are held in int8: (blocks, 2) of 0 or 1, a block's entries and their cross convolution's result."""
    table = _checked(arrays, TABLE, (blocks, 2), (np.int8,))
    if not np.isin(table, (0, 1)).all():
        raise ValueError(f"array {TABLE} holds other numbers than 0 and 1")
    if table[0, 1] or table[-1, 0]:
        raise ValueError(
            f"array {TABLE} marks a map that is never stored: the first block's cross convolution or the last entries")
    return table
