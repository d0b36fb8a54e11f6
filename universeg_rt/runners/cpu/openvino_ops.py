"""The support-mean operation for OpenVINO, which reads no model-local functions: converted while a model is read.

The operation is defined in `universeg_rt.export.emit.support_mean`. Stages have one query and one set in front of
every shape; those dimensions are dropped, so that OpenVINO keeps its layout for 4-D maps.
"""

from __future__ import annotations

import numpy as np

from ...named_types import Vendor

DOMAIN = "universeg_rt"


def extensions() -> list[Vendor]:
    """OpenVINO extensions for both operators; raises ImportError where OpenVINO is missing."""
    from openvino.frontend.onnx import ConversionExtension

    return [ConversionExtension("SupportMean", DOMAIN, lambda node: _convert(node, pool=False)),
            ConversionExtension("SupportMeanPool", DOMAIN, lambda node: _convert(node, pool=True))]


def _convert(node: Vendor, pool: bool) -> list[Vendor]:
    """Outputs of SupportMean (mean, activated) or SupportMeanPool (mean, pooled_mean, pooled, activated)."""
    from openvino import opset13 as ops

    support_term, query_term, weights = (node.get_input(i) for i in range(3))
    slope = ops.constant(np.full(1, node.get_attribute("negative_slope"), np.float32))
    shape = support_term.get_partial_shape()
    if any(shape[i].is_dynamic or shape[i].get_length() != 1 for i in (0, 1)):
        raise RuntimeError(f"only stages are converted, of one query and one set; the operation is given {shape}")
    front = _integers(0, 1)
    x = ops.add(ops.squeeze(support_term, front), ops.squeeze(query_term, front))
    activated = ops.prelu(x, slope)

    def outputs(mean: Vendor, *maps: Vendor) -> list[Vendor]:
        return [mean.output(0)] + [m.output(0) for m in maps]

    def entries(maps: Vendor) -> Vendor:
        return ops.unsqueeze(maps, front)

    if not pool:
        return outputs(_mean(activated, weights), entries(activated))
    pooled = ops.unsqueeze(ops.max_pool(activated, [2, 2], [1, 1], [0, 0], [0, 0], [2, 2]).output(0), front)
    pooled_mean = _mean(ops.squeeze(pooled, front), weights)
    return outputs(_mean(activated, weights), pooled_mean, pooled, entries(activated))


def _mean(maps: Vendor, weights: Vendor) -> Vendor:
    """Σ_s weights[0,s] maps[s] as one matrix product: (1,S) @ (S,CHW), as (1,1,C,H,W)."""
    from openvino import opset13 as ops

    flat = ops.reshape(maps, _integers(0, -1), True)
    product = ops.matmul(ops.reshape(weights, _integers(1, -1), False), flat, False, False)
    image = ops.gather(ops.shape_of(maps), _integers(1, 2, 3), _integers(0))
    return ops.reshape(product, ops.concat([_integers(1, 1), image], 0), False)


def _integers(*values: int) -> Vendor:
    from openvino import opset13 as ops

    return ops.constant(np.array(values, np.int64))
