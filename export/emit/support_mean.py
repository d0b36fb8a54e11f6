"""The support-mean operation in ONNX: two named operators whose bodies of standard operators travel in the file.

    activated   = LeakyReLU(support_term + query_term)        (B,K,S,C,H,W)
    mean        = Σ_s weights[k,s] activated[:,k,s]           (B,K,C,H,W)
    pooled      = 2x2 max pool of activated, stride 2         (B,K,S,C,H/2,W/2)
    pooled_mean = Σ_s weights[k,s] pooled[:,k,s]              (B,K,C,H/2,W/2)

    SupportMean    (support_term, query_term, weights) -> mean, [activated]
    SupportMeanPool(support_term, query_term, weights) -> mean, pooled_mean, pooled, [activated]

support_term is (B,K,S,C,H,W), or (1,K,S,C,H,W) where it does not depend on the query; query_term is (B,K,1,C,H,W) or
(B,1,1,C,H,W); weights (K,S) sum to 1 in each row. A runtime that knows neither operator inlines the body; one with a
native kernel uses that. Attributes: `negative_slope`; `outputs`, how many of the outputs, from the first, are read (a
native kernel need not write the others); `plugin_version` and `plugin_namespace`, by which TensorRT finds the plugin.

Maps of float16: `weights` stay float32, everything is computed in float32, and each output is rounded once.
"""

from __future__ import annotations

import onnx
from onnx import helper

DOMAIN = "universeg_rt"
DOMAIN_VERSION = 1
OUTPUTS = {"SupportMean": 2, "SupportMeanPool": 4}

_INPUTS = ["support_term", "query_term", "weights"]
_ATTRIBUTES = ["negative_slope", "outputs", "plugin_version", "plugin_namespace"]


def support_mean_functions(opset: int, half: bool = False, wide_means: bool = False) -> list[onnx.FunctionProto]:
    """Both operators as model-local functions over the standard operators of `opset`.

    half: for maps of float16. wide_means: then `mean` and `pooled_mean` are left in float32, as shares of a sum.
    """
    imports = [helper.make_opsetid("", opset)]
    # In float16, `x` is computed as `x_wide` and rounded where it leaves.
    wide = "_wide" if half else ""
    mean_wide = wide if not wide_means else ""
    activated, pooled = f"activated{wide}", f"pooled{wide}"
    activate = _activate(half, activated) + _round(half, "activated")
    mean = _weighted_mean(activated, f"mean{mean_wide}") + _round(bool(mean_wide), "mean")
    pool = [
        _node("Constant", [], "rest", value_ints=[-1]),
        _node("Shape", [activated], "image", start=3),
        _node("Concat", ["rest", "image"], "flat_shape", axis=0),
        _node("Reshape", [activated, "flat_shape"], "flat"),
        _node("MaxPool", ["flat"], "flat_pooled", kernel_shape=[2, 2], strides=[2, 2]),
        _node("Shape", [activated], "entries", start=0, end=3),
        _node("Shape", ["flat_pooled"], "pooled_image", start=1),
        _node("Concat", ["entries", "pooled_image"], "pooled_shape", axis=0),
        _node("Reshape", ["flat_pooled", "pooled_shape"], pooled),
        *_round(half, "pooled"),
        *_weighted_mean(pooled, f"pooled_mean{mean_wide}"), *_round(bool(mean_wide), "pooled_mean"),
    ]
    return [
        helper.make_function(DOMAIN, "SupportMean", _INPUTS, ["mean", "activated"], activate + mean, imports,
                             _ATTRIBUTES),
        helper.make_function(DOMAIN, "SupportMeanPool", _INPUTS, ["mean", "pooled_mean", "pooled", "activated"],
                             activate + mean + pool, imports, _ATTRIBUTES),
    ]


def _activate(half: bool, out: str) -> list[onnx.NodeProto]:
    leaky_relu = _node("LeakyRelu", ["sum"], out)
    slope = onnx.AttributeProto(name="alpha", ref_attr_name="negative_slope", type=onnx.AttributeProto.FLOAT)
    leaky_relu.attribute.append(slope)
    if not half:
        return [_node("Add", ["support_term", "query_term"], "sum"), leaky_relu]
    casts = [_node("Cast", [x], f"{x}_wide", to=onnx.TensorProto.FLOAT) for x in ("support_term", "query_term")]
    return [*casts, _node("Add", ["support_term_wide", "query_term_wide"], "sum"), leaky_relu]


def _round(half: bool, out: str) -> list[onnx.NodeProto]:
    return [_node("Cast", [f"{out}_wide"], out, to=onnx.TensorProto.FLOAT16)] if half else []


def _weighted_mean(x: str, out: str) -> list[onnx.NodeProto]:
    """Σ_s weights[k,s] x[b,k,s] as one matrix product, which reads x once: (K,1,S) @ (B,K,S,CHW)."""
    return [
        _node("Constant", [], f"{out}_matrix_shape", value_ints=[0, 0, 0, -1]),
        _node("Reshape", [x, f"{out}_matrix_shape"], f"{out}_matrix"),
        _node("Constant", [], f"{out}_axis", value_ints=[1]),
        _node("Unsqueeze", ["weights", f"{out}_axis"], f"{out}_row"),
        _node("MatMul", [f"{out}_row", f"{out}_matrix"], f"{out}_product"),
        _node("Shape", [x], f"{out}_sets", start=0, end=2),
        _node("Shape", [x], f"{out}_image", start=3),
        _node("Concat", [f"{out}_sets", f"{out}_image"], f"{out}_shape", axis=0),
        _node("Reshape", [f"{out}_product", f"{out}_shape"], out),
    ]


def _node(op: str, inputs: list[str], output: str, **attributes) -> onnx.NodeProto:
    return helper.make_node(op, inputs, [output], name=output, **attributes)
