"""Small networks of both variants, and their reference in float64."""

from __future__ import annotations

import numpy as np
import pytest

from universeg_rt.spec import NetworkSpec

# ONNX keeps the slope in float32; powers of two let float64 comparisons go to the last digits.
SMALL_SPECS = {
    "v1": NetworkSpec("none", (6, 5, 7), (4, 6), "max_pool", negative_slope=1 / 64),
    "paper": NetworkSpec("leaky_relu", (5, 6, 4), (6, 5), "bilinear", negative_slope=1 / 64),
    "averaging": NetworkSpec("none", (9, 4), (5,), "bilinear", negative_slope=1 / 8),
}


def random_weights(spec: NetworkSpec, seed: int = 0, dtype=np.float64) -> dict[str, np.ndarray]:
    """Weights large enough that an error anywhere shows in the output."""
    rng = np.random.default_rng(seed)
    return {
        key: (rng.standard_normal(shape) * (0.3 if len(shape) == 1 else 1.5 / np.sqrt(np.prod(shape[1:])))).astype(dtype)
        for key, shape in spec.weight_shapes().items()
    }


@pytest.fixture(params=sorted(SMALL_SPECS))
def small_spec(request) -> NetworkSpec:
    return SMALL_SPECS[request.param]
