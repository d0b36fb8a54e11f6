"""The static network as ONNX: a plain U-Net with one constant map added in each block, the template of frozen tasks.

A block computes u' = φ(Wt * (Wu * u) + c). A frozen task makes initialisers of the constants
(universeg_rt/bundle/onnx_bind.py); here they are inputs, block i's at level l with C features:

Inputs
    query               (B,1,H,W)            images in [0, 1], float32
    constant_i          (1,C,H/2^l,W/2^l)    Wt * (b + m) + bt of block i, m its support term; of the network's type
Output
    probability         (B,1,H,W)            float32

The weights' initialisers, float32 in a float16 network too, where a Cast follows each. LABEL is enc0, enc1 .. dec0 ..:
    LABEL/query_term/weight    (C,Cu,3,3)    Wu
    LABEL/target/weight        (C,C,3,3)     Wt
    LABEL/target/PART/weight                 in place of these two where they are composed (v1's enc0): the nine kernels
                                             of `folds/folded.py`, PART is `composed` (C,Cu,5,5), top, bottom, left,
                                             right, top_left, top_right, bottom_left or bottom_right
    head/weight, head/bias     (1,C,1,1), (1,)
The logits are the tensor `LOGITS`, which runners read in the place of the output. Only networks without an activation
in the cross convolution have this form.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx

from universeg_rt.frozen.record import LOGITS, PROBABILITY, constant_name
from universeg_rt.spec import HALVED, Flow

from ..folds.folded import FoldedBlock, FoldedNetwork
from . import layers
from .graph import GraphBuilder
from .quantise import MAP_LIMIT, Quantisation, quantise_weight


def emit_static(network: FoldedNetwork, metadata: dict[str, str], version: str, dtype: type = np.float32,
                quantisation: Quantisation | None = None,
                constants: Mapping[str, np.ndarray] | None = None) -> onnx.ModelProto:
    """Emit a network that `fold_static` gave; `dtype` float64 is for checking the algebra.

    constants: (1,C,h,w) by the input's name; they stand in the model then, as int8 with a scale for each channel, and
    are no inputs.
    """
    g = GraphBuilder(dtype, quantisation=quantisation)
    u = g.narrow(g.input("query", ["B", 1, "H", "W"], wide=True), "query/narrow")
    slope = network.spec.negative_slope
    flow: Flow[tuple[str, str | None]] = Flow([block.spec for block in network.blocks])
    for block in network.blocks:
        label = block.label
        if read := flow.read(block.spec):
            maps = [(down if resize == HALVED else whole, resize) for (whole, down), resize in read]
            u = layers.joined(g, maps, f"{label}/query_in", f"{label}/query_in_up")
        u = g.leaky_relu(_before_activation(g, block, u, constants), f"{label}/query", slope)
        down = g.downsample(u, f"{label}/query_down", network.spec.downsample) if block.spec.is_halved else None
        flow.keep(block.spec, (u, down))
    logits = g.conv(u, "head", network.head_weight, network.head_bias)
    logits = g.node("Identity", [g.widen(logits, "head/wide")], LOGITS)
    g.output(g.node("Sigmoid", [logits], "head/sigmoid"), PROBABILITY, ["B", 1, "H", "W"], wide=True)
    return g.model("universeg_static", {**metadata, "universeg.kind": "static"}, version)


def _before_activation(g: GraphBuilder, block: FoldedBlock, u: str,
                       constants: Mapping[str, np.ndarray] | None) -> str:
    label, spec = block.label, block.spec
    sides = [side if spec.level == 0 else f"{side}/{2**spec.level}" for side in ("H", "W")]
    name = constant_name(spec)
    if constants is None:
        constant = g.input(name, [1, block.features, *sides])
    else:
        constant = g.dequantised(name, *quantise_weight(constants[name][0], limit=MAP_LIMIT))
    if block.query_composed_weight is not None:
        x = layers.composed(g, f"{label}/target", u, block.query_composed_weight, block.query_border_kernels,
                            f"{label}/target")
        return g.node("Add", [x, constant], f"{label}/sum")
    biases = (None, None) if block.biases_in_constant else (block.cross_bias, block.target_bias)
    x = g.conv(u, f"{label}/query_term", block.query_term_weight, biases[0])
    if not block.constant_after_target:
        x = g.node("Add", [x, constant], f"{label}/sum")
    x = g.conv(x, f"{label}/target", block.target_weight, biases[1])
    return g.node("Add", [x, constant], f"{label}/sum") if block.constant_after_target else x
