"""The folded network's weights as plain arrays, for the native CPU runner (kernels/cpu/): of which tensors of the
bundle's weights it makes each one, as JSON.

Block i, in the order in which they run: `i.cross`, `i.support` (but for the last block) and `i.target`, each `.weight`
(out,in,3,3) and `.bias` (out,); `first` (9,2,5,5,out), the first block's composed kernels for the nine positions of a
pixel, (top, middle, bottom) x (left, middle, right), where taps that fall outside the image are zero; `head.weight`
(in,), `head.bias` (1,). All float32. An array of several tensors is their concatenation along the input channels,
`first` is made of its nine kernels. universeg_rt/runners/cpu/native_weights.py reads all this.

In int8 the runner holds maps of the support entries in 8 bits and computes in float32. `int8` (blocks - 1, 2) says
which: a block's entries, and the result of their cross convolution. A held map x is s * round(x / s) with a scale s for
each channel, and the scales are in the weights around it, so that the runner has only to round:

    LeakyReLU(W x + b) / s = LeakyReLU((W / s) x + b / s)    rows of what gives the map, and of what is added to it
    W x = (W s) (x / s)                                      columns of what reads it, or the mean of it

The weights of the inner blocks are int8 then, with a float32 `.scale` (out, parts) beside: a scale for each output and
each of `parts` equal parts of the inputs (the query's and the support's in `cross`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping

import numpy as np

from universeg_rt.runners.cpu.native_weights import FIRST, FIRST_BLOCK, first_block

from ..folds.folded import FoldedBlock, FoldedNetwork
from .quantise import MAP_LIMIT, Quantisation, quantise_weight
from .store import WeightStore


def native_arrays(network: FoldedNetwork, quantisation: Quantisation | None = None) -> dict[str, np.ndarray] | None:
    """The arrays by name; None where the native runner cannot run the network: its order of work needs the folds
    compose and mean before convolution, and 2x2 max pooling."""
    if network.blocks[0].border_kernels is None or network.spec.downsample != "max_pool" \
            or not all(b.mean_before_convolution for b in network.blocks):
        return None
    arrays = {
        name: np.concatenate(parts, axis=1) if len(parts) == 2 else parts[0]
        for name, parts in _parts(network).items() if name != FIRST
    }
    arrays[FIRST] = first_block(_first_kernels(network.blocks[0]))
    arrays["head.weight"] = arrays["head.weight"].reshape(-1)
    arrays = {name: np.ascontiguousarray(value, np.float32) for name, value in arrays.items()}
    return arrays if quantisation is None else arrays | _in_int8(network, quantisation, arrays)


def emit_native(arrays: Mapping[str, np.ndarray], store: WeightStore, metadata: Mapping[str, str] | None = None,
                network: FoldedNetwork | None = None) -> bytes:
    """Puts the arrays into the store; the file's bytes that say where they lie. Of those that are the float32
    network's, the parts go in, as the graphs have them."""
    plain = {} if network is None else native_arrays(network)
    parts = {} if network is None else _parts(network)
    kind = (metadata or {}).get("universeg.precision", "native")
    found = {}
    for name, value in sorted(arrays.items()):
        if name in plain and value.tobytes() == plain[name].tobytes():
            found[name] = [store.add(f"native/{name}/{i}", part) for i, part in enumerate(parts[name])]
        else:
            found[name] = [store.add(f"native/{kind}/{name}", value)]
    return json.dumps({"metadata": {**(metadata or {}), "universeg.kind": "native"}, "arrays": found},
                      sort_keys=True).encode()


def _parts(network: FoldedNetwork) -> dict[str, list[np.ndarray]]:
    """What each array of the float32 network is made of."""
    parts = {}
    for i, block in enumerate(network.blocks):
        parts[f"{i}.cross.weight"] = [block.query_term_weight, block.support_term_weight]
        parts[f"{i}.cross.bias"] = [block.cross_bias]
        parts[f"{i}.target.weight"], parts[f"{i}.target.bias"] = [block.target_weight], [block.target_bias]
        if block.support_weight is not None:
            parts[f"{i}.support.weight"], parts[f"{i}.support.bias"] = [block.support_weight], [block.support_bias]
    parts[FIRST] = _first_kernels(network.blocks[0])
    parts["head.weight"], parts["head.bias"] = [network.head_weight], [network.head_bias]
    return {name: [np.asarray(value, np.float32) for value in values] for name, values in parts.items()}


def _first_kernels(block: FoldedBlock) -> list[np.ndarray]:
    """The composed kernels of the nine positions."""
    return [block.composed_weight if name is None else getattr(block.border_kernels, name) for name in FIRST_BLOCK]


def _in_int8(network: FoldedNetwork, quantisation: Quantisation, arrays: Mapping[str,
                                                                                 np.ndarray]) -> dict[str, np.ndarray]:
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
        entries, between, read = units(i,
                                       out), units(i,
                                                   term), [units(edge.block, out) for edge in blocks[i].spec.sources]
        columns = np.concatenate([np.ones_like(s)
                                  for s in read] + read) if i else one  # the query's inputs, then the entries'
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
