"""The support-mean operation for OpenVINO, which reads no model-local functions: converted while a model is read.

The operation is defined in `universeg_rt.export.emit.support_mean`. Stages have one query and one set in front of
every shape; those dimensions are dropped, so that OpenVINO keeps its layout for 4-D maps. Whole networks, of exact
frozen files, have any number of both.
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
    front = [term.get_partial_shape()[i] for term in (support_term, query_term) for i in (0, 1)]
    if any(side.is_dynamic or side.get_length() != 1 for side in front):
        return _whole(support_term, query_term, weights, slope, pool)
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


def _whole(support_term: Vendor, query_term: Vendor, weights: Vendor, slope: Vendor, pool: bool) -> list[Vendor]:
    """As `_convert`, for any number of queries and sets; computed in float32, whatever the maps' type."""
    from openvino import opset13 as ops

    kind = support_term.get_element_type()
    activated = ops.prelu(ops.add(ops.convert(support_term, "f32"), ops.convert(query_term, "f32")), slope)
    spread = ops.unsqueeze(weights, _integers(0, 3, 4, 5))

    def mean(maps: Vendor) -> Vendor:
        return ops.reduce_sum(ops.multiply(maps, spread), _integers(2), False)

    def outputs(*maps: Vendor) -> list[Vendor]:
        return [ops.convert(each, kind).output(0) for each in maps]

    if not pool:
        return outputs(mean(activated), activated)
    size = ops.shape_of(activated)
    image = ops.gather(size, _integers(3, 4, 5), _integers(0))
    flat = ops.reshape(activated, ops.concat([_integers(-1), image], 0), False)
    halved = ops.max_pool(flat, [2, 2], [1, 1], [0, 0], [0, 0], [2, 2]).output(0)
    sets = ops.gather(size, _integers(0, 1, 2), _integers(0))
    image = ops.gather(ops.shape_of(halved), _integers(1, 2, 3), _integers(0))
    pooled = ops.reshape(halved, ops.concat([sets, image], 0), False)
    return outputs(mean(activated), mean(pooled), pooled, activated)


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
