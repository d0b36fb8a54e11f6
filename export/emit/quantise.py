"""Int8: symmetric scales of the convolutions' inputs and weights, and the choice of what stays in float.

    x ≈ s · round(x / s),  integers in [-127, 127], zero point 0

Weights have a scale for each output channel, maps one scale for the whole tensor, found by `calibration.py`. The int8
product is exact in int32, so all of the error is that of the two roundings. The zero point is 0 throughout (TensorRT
takes no other), and the integers of weights stay in [-63, 63]: processors with AVX2 but without VNNI add two products
of 8 bits in 16 and would saturate, and so every processor gives the same result.

What stays in float: sums, means and activations; the first block's convolutions of images and labels (two channels in:
nothing to gain); and the query's path through the first and the last block, next to the logits, where it is run once a
query and its errors flip pixels (benchmarks/NOTES.md has the figures).

The native CPU runner computes in float32 and holds maps and weights in int8 (emit/native.py). Its maps have a scale for
each channel, which costs it nothing, and its weights take all of [-127, 127]: no integers are multiplied there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from ..folds.folded import FoldedNetwork

MAP_LIMIT = 127
WEIGHT_LIMIT = 63


@dataclass(frozen=True)
class Quantisation:
    """Scales of a network's quantised convolutions, by their names in the graphs (emit/layers.py).

    inputs: of the map that each one reads. outputs: of the map that it gives, for those whose output is read by
    something else than a quantised convolution. cpu_kernels: whether such outputs are rounded to int8 too, biases to
    int32, and maps held as uint8 with zero point 128, which are the same numbers; ONNX Runtime's CPU kernels fuse a
    convolution only then, while TensorRT takes neither that zero point nor such biases. OpenVINO 2026.4 needs it too:
    behind a Concat it gets signed maps wrong. channels: for the native runner, a scale (C,) for each channel of the
    maps that `entry_convolutions` read; a map without stays in float there.
    """

    inputs: Mapping[str, float]
    outputs: Mapping[str, float] = field(default_factory=dict)
    cpu_kernels: bool = False
    channels: Mapping[str, np.ndarray] = field(default_factory=dict)

    @property
    def blocks(self) -> tuple[str, ...]:
        """Labels of the blocks with quantised convolutions, in order."""
        return tuple(dict.fromkeys(name.split("/")[0] for name in self.inputs))

    def without(self, block: str) -> Quantisation:
        """The same with one block in float."""
        kept = [{n: v
                 for n, v in part.items() if n.split("/")[0] != block}
                for part in (self.inputs, self.outputs, self.channels)]
        return replace(self, inputs=kept[0], outputs=kept[1], channels=kept[2])

    def for_cpu_kernels(self) -> Quantisation:
        return replace(self, cpu_kernels=True)


def quantised_convolutions(network: FoldedNetwork) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of the convolutions to quantise, and of those whose output goes to something else than one of them."""
    names, ends = [], []
    for block in network.blocks:
        found = []
        if not (block.spec.is_first or block.spec.is_last):
            found += ["query_term", "target"]
            if block.mean_before_convolution:
                found += ["mean_term", "support_query_term"]
        if block.reads_entries and not block.spec.is_first:
            found.append("support_term")
        if block.support_weight is not None and block.composed_weight is None:
            found.append("support")
        names += [f"{block.label}/{part}" for part in found]
        # With one convolution right after the other, only the second one's output goes elsewhere.
        chained = block.mean_before_convolution and "support" in found
        ends += [f"{block.label}/{part}" for part in found if not (chained and part == "support_term")]
    return tuple(names), tuple(ends)


def static_convolutions(network: FoldedNetwork) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The same of a static network; its first block and its head stay in float."""
    inner = [block.label for block in network.blocks if not block.spec.is_first]
    ends = tuple(f"{label}/target" for label in inner)
    return tuple(name for end in ends for name in (end.replace("/target", "/query_term"), end)), ends


def entry_convolutions(network: FoldedNetwork) -> tuple[str, ...]:
    """Names of the quantised convolutions that read maps of the support entries."""
    return tuple(name for name in quantised_convolutions(network)[0] if name.endswith(("/support_term", "/support")))


def quantise_weight(weight: np.ndarray, bias: np.ndarray | None = None, scale: float = 1.0,
                    limit: int = WEIGHT_LIMIT) -> tuple[np.ndarray, np.ndarray]:
    """(C,...) -> int8 in [-limit, limit] of the same shape and float32 scales (C,).

    A bias (C,) is held in int32 in steps of `scale` (of the input map) times a channel's scale: a channel whose weights
    are so small that its bias would not fit gets the smallest scale with which it does.
    """
    largest = np.abs(weight).reshape(len(weight), -1).max(axis=1).astype(np.float64)
    least = 0.0 if bias is None else np.abs(bias.astype(np.float64)) / (scale * 2.0**30)
    scales = np.maximum(largest / limit, least)
    scales = np.where(scales > 0, scales, 1.0).astype(np.float32)
    steps = np.round(weight / scales.reshape(-1, *[1] * (weight.ndim - 1)))
    return np.clip(steps, -limit, limit).astype(np.int8), scales
