"""Small networks of both variants, and their reference in float64."""

from __future__ import annotations

import pytest

from universeg_rt.spec import NetworkSpec

# ONNX keeps the slope in float32; powers of two let float64 comparisons go to the last digits.
SMALL_SPECS = {
    "v1": NetworkSpec("none", (6, 5, 7), (4, 6), "max_pool", negative_slope=1 / 64),
    "paper": NetworkSpec("leaky_relu", (5, 6, 4), (6, 5), "bilinear", negative_slope=1 / 64),
    "averaging": NetworkSpec("none", (9, 4), (5,), "bilinear", negative_slope=1 / 8),
}


@pytest.fixture(params=sorted(SMALL_SPECS))
def small_spec(request) -> NetworkSpec:
    return SMALL_SPECS[request.param]
