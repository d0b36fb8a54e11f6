"""Problems to check kernels with: random inputs of given sizes, what they must give, and how far off a kernel may
be."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from universeg_rt.errors import RunnerError

from .. import reference
from ..host import module as host

MOST_SLICES = 8  # partial sums that a kernel adds up at the end


@dataclass(frozen=True)
class Sizes:
    """B, Bs (B or 1), K, Kq (K or 1), S, C, H, W."""

    queries: int = 1
    support_queries: int = 1
    sets: int = 1
    query_sets: int = 1
    entries: int = 1
    channels: int = 1
    height: int = 2
    width: int = 2

    def __str__(self) -> str:
        return (f"B={self.queries} Bs={self.support_queries} K={self.sets} Kq={self.query_sets} S={self.entries} "
                f"C={self.channels} {self.height}x{self.width}")


def numpy_dtype(name: str) -> np.dtype:
    """NumPy's type for a storage type; bfloat16 comes from ml_dtypes (RunnerError names it where it is missing)."""
    if name != "bfloat16":
        return np.dtype(name)
    try:
        import ml_dtypes
    except ImportError:
        raise RunnerError("bfloat16 arrays need ml_dtypes; run `pip install ml-dtypes`") from None
    return np.dtype(ml_dtypes.bfloat16)


def make_inputs(form: str, sizes: Sizes, dtype: str, seed: int = 0) -> dict[str, np.ndarray]:
    """Random inputs by buffer name. About one entry in eight is padding, of weight 0, as long as one other is left."""
    rng = np.random.default_rng(seed)
    kind, s = numpy_dtype(dtype), sizes
    shape = (s.sets, s.entries, 2, s.height, s.width) if form == "conv_pool" else \
        (s.support_queries, s.sets, s.entries, s.channels, s.height, s.width)
    weights = rng.random((s.sets, s.entries)) + 0.1
    padding = rng.random(weights.shape) < 0.125
    padding[:, 0] = False
    weights[padding] = 0.0
    inputs = {
        "support": rng.standard_normal(shape, dtype=np.float32).astype(kind),
        "query": rng.standard_normal((s.queries, s.query_sets, 1, s.channels, s.height, s.width),
                                     dtype=np.float32).astype(kind),
        "weights": (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32),
    }
    if form == "conv_pool":
        middle = 5  # channels between the two composed convolutions; any number gives the same kernel
        cross, support = rng.standard_normal((middle, 2, 3, 3)), rng.standard_normal((s.channels, middle, 3, 3))
        inputs["convolution"], inputs["border"] = reference.compose(cross / 5, support / 5)
    return inputs


def expected(form: str, inputs: dict[str, np.ndarray], negative_slope: float = 0.01) -> dict[str, tuple]:
    """Output name -> (float64 reference, largest error that a correct kernel may make), both of the output's shape."""
    support, query, weights = inputs["support"], inputs["query"], inputs["weights"]
    magnitude = np.abs(query.astype(np.float64))
    additions = 0
    if form == "mean":
        out = reference.support_mean(support, query, weights, negative_slope)
        magnitude = np.abs(support.astype(np.float64)) + magnitude
    elif form == "pool":
        out = reference.support_mean_pool(support, query, weights, negative_slope)
        magnitude = np.abs(support.astype(np.float64)) + magnitude
    else:
        convolution, border = inputs["convolution"], inputs["border"]
        out = reference.support_mean_conv_pool(support, query, weights, convolution, border, negative_slope)
        flipped = -np.abs(border.astype(np.float64))  # so that every part adds to the magnitude
        flipped[..., reference.CORNER :] *= -1
        magnitude = reference._convolve(np.abs(support.astype(np.float64)), np.abs(convolution.astype(np.float64)),
                                        flipped)[None] + magnitude
        additions = 2 * (25 + 4 * 5 + 4)
    magnitude = np.broadcast_to(magnitude, out.activated.shape)
    dtype = query.dtype.name
    bound_each = additions
    bound_sum = additions + weights.shape[1] + MOST_SLICES
    pairs = {
        "mean": (out.mean, _mean(weights, magnitude), bound_sum),
        "activated": (out.activated, magnitude, bound_each),
    }
    if out.pooled is not None:
        pooled = _pool(magnitude)
        pairs["pooled"] = (out.pooled, pooled, bound_each)
        pairs["pooled_mean"] = (out.pooled_mean, _mean(weights, pooled), bound_sum)
    return {
        name: (result, reference.error_bounds(dtype, terms, result, n))
        for name, (result, terms, n) in pairs.items()
    }


def layouts(form: str) -> tuple[str, ...]:
    """Those that a form has."""
    return host.LAYOUTS[:1] if form == "conv_pool" else host.LAYOUTS


def laid_out(inputs: dict[str, np.ndarray], layout: str) -> dict[str, np.ndarray]:
    """Inputs by buffer name, their maps (...,C,H,W) as (...,H,W,C) where the layout is `hwc`."""
    if layout == "chw":
        return inputs
    return {name: array if name == "weights" else np.ascontiguousarray(np.moveaxis(array, -3, -1))
            for name, array in inputs.items()}


def channels_first(outputs: dict[str, np.ndarray], layout: str) -> dict[str, np.ndarray]:
    """Outputs by name, (...,C,H,W) whatever their layout."""
    return outputs if layout == "chw" else {name: np.moveaxis(array, -1, -3) for name, array in outputs.items()}


def worst_errors(outputs: dict[str, np.ndarray], wanted: dict[str, tuple]) -> dict[str, float]:
    """Output name -> largest error in units of its bound: at most 1 where the kernel is right, inf for NaN."""
    found = {}
    for name, array in outputs.items():
        result, bound = wanted[name]
        ratio = np.abs(array.astype(np.float64) - result) / bound
        found[name] = float(np.where(np.isnan(ratio), np.inf, ratio).max())
    return found


def _mean(weights: np.ndarray, maps: np.ndarray) -> np.ndarray:
    return reference._weighted(weights.astype(np.float64), maps)


def _pool(maps: np.ndarray) -> np.ndarray:
    height, width = maps.shape[-2:]
    m = maps[..., : height // 2 * 2, : width // 2 * 2]
    return np.maximum(np.maximum(m[..., ::2, ::2], m[..., ::2, 1::2]), np.maximum(m[..., 1::2, ::2], m[..., 1::2,
                                                                                                       1::2]))
