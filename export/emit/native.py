"""The folded network's weights as plain arrays, for the native CPU runner (kernels/cpu/), in one uncompressed `.npz` file.

Block i, in the order in which they run: `i.cross`, `i.support` (but for the last block) and `i.target`, each `.weight`
(out,in,3,3) and `.bias` (out,); `first` (9,2,5,5,out), the first block's composed kernels for the nine positions of a pixel,
(top, middle, bottom) x (left, middle, right), where taps that fall outside the image are zero; `head.weight` (in,), `head.bias`
(1,). All float32. The archive's comment is the metadata of the file, as JSON.

In int8 the runner holds maps of the support entries in 8 bits and computes in float32. `int8` (blocks - 1, 2) says which: a block's
entries, and the result of their cross convolution. A held map x is s * round(x / s) with a scale s for each channel, and the
scales are in the weights around it, so that the runner has only to round:

    LeakyReLU(W x + b) / s = LeakyReLU((W / s) x + b / s)    rows of what gives the map, and of what is added to it
    W x = (W s) (x / s)                                      columns of what reads it, or the mean of it

The weights of the inner blocks are int8 then, with a float32 `.scale` (out, parts) beside: a scale for each output and each of
`parts` equal parts of the inputs (the query's and the support's in `cross`).
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping

import numpy as np

from ..folds.folded import FoldedBlock, FoldedNetwork
from ..int8.quantise import MAP_LIMIT, Quantisation, quantise_weight

_POSITIONS = (("top_left", "top", "top_right"), ("left", None, "right"), ("bottom_left", "bottom", "bottom_right"))
_INSIDE = (slice(2, 5), slice(0, 5), slice(0, 3))  # taps of a first, a middle and a last row or column


def emit_native(network: FoldedNetwork, quantisation: Quantisation | None = None,
                metadata: Mapping[str, str] | None = None) -> bytes | None:
    """The file's bytes, the same for the same arguments; None where the native runner cannot run it: its order of work needs
    the folds compose and mean before convolution, and 2x2 max pooling."""
    spec = network.spec
    if network.blocks[0].border_kernels is None or spec.downsample != "max_pool" \
            or not all(b.mean_before_convolution for b in network.blocks):
        return None
    arrays = {}
    for i, block in enumerate(network.blocks):
        arrays[f"{i}.cross.weight"], arrays[f"{i}.cross.bias"] = block.cross_weight, block.cross_bias
        arrays[f"{i}.target.weight"], arrays[f"{i}.target.bias"] = block.target_weight, block.target_bias
        if block.support_weight is not None:
            arrays[f"{i}.support.weight"], arrays[f"{i}.support.bias"] = block.support_weight, block.support_bias
    arrays["first"] = _first_block(network.blocks[0])
    arrays["head.weight"], arrays["head.bias"] = network.head_weight.reshape(-1), network.head_bias
    arrays = {name: np.ascontiguousarray(value, np.float32) for name, value in arrays.items()}
    if quantisation is not None:
        arrays |= _in_int8(network, quantisation, arrays)
    return _npz(arrays, json.dumps({**(metadata or {}), "universeg.kind": "native"}, sort_keys=True))


def _in_int8(network: FoldedNetwork, quantisation: Quantisation, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays that differ from those of float32."""
    blocks, last = network.blocks, len(network.blocks) - 1
    # Scales of each block's entries and of their cross convolution's result; None: in float.
    out: list[np.ndarray | None] = [None] * len(blocks)
    term = [quantisation.channels.get(f"{block.label}/support") for block in blocks]
    for i in range(1, last):
        read = quantisation.channels.get(f"{blocks[i].label}/support_term")
        for edge, scales in zip(blocks[i].spec.sources, _split(network, i, read)):
            out[edge.block] = scales  # of a skip connection those before pooling, which come later, stay
    changed = {"int8": np.array([[s is not None for s in pair] for pair in zip(out[:last], term)], np.int8)}

    one = np.ones(1, np.float32)

    def units(i: int, scales: list[np.ndarray | None]) -> np.ndarray:
        return np.ones(blocks[i].features, np.float32) if scales[i] is None else scales[i]

    for i in range(last + 1):
        entries, between, read = units(i, out), units(i, term), [units(edge.block, out) for edge in blocks[i].spec.sources]
        columns = np.concatenate([np.ones_like(s) for s in read] + read) if i else one  # the query's inputs, then the entries'
        for part, rows, reads in (("cross", between, columns), ("support", entries, between), ("target", one, between)):
            name = f"{i}.{part}"
            if f"{name}.weight" not in arrays:
                continue
            weight = arrays[f"{name}.weight"] * np.reshape(reads, (-1, 1, 1)) / np.reshape(rows, (-1, 1, 1, 1))
            changed[f"{name}.bias"] = arrays[f"{name}.bias"] / rows
            if 0 < i < last:
                parts = np.split(weight, 2 if part == "cross" else 1, axis=1)
                integers, scales = zip(*(quantise_weight(each, limit=MAP_LIMIT) for each in parts))
                weight, changed[f"{name}.scale"] = np.concatenate(integers, axis=1), np.stack(scales, axis=1)
            changed[f"{name}.weight"] = weight
    changed["first"] = arrays["first"] / units(0, out)
    return changed


def _split(network: FoldedNetwork, i: int, scales: np.ndarray | None) -> list[np.ndarray | None]:
    """Of the input channels of block i by source."""
    sources = network.sources(network.blocks[i])
    if scales is None:
        return [None] * len(sources)
    return np.split(scales, np.cumsum([source.features for source in sources])[:-1])


def _first_block(block: FoldedBlock) -> np.ndarray:
    features, inputs = block.composed_weight.shape[:2]
    kernels = np.zeros((3, 3, features, inputs, 5, 5), np.float32)
    for row, names in enumerate(_POSITIONS):
        for column, name in enumerate(names):
            kernel = block.composed_weight if name is None else getattr(block.border_kernels, name)
            kernels[row, column][:, :, _INSIDE[row], _INSIDE[column]] = kernel
    return kernels.reshape(9, features, inputs, 5, 5).transpose(0, 2, 3, 4, 1)


def _npz(arrays: Mapping[str, np.ndarray], comment: str) -> bytes:
    """As numpy.savez writes it, but without the time of writing, and with a comment on the archive."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        archive.comment = comment.encode()
        for name, value in sorted(arrays.items()):
            entry = io.BytesIO()
            np.lib.format.write_array(entry, value, allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0)), entry.getvalue())
    return out.getvalue()
