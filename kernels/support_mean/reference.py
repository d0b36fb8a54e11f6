"""The definition of the support-mean operation, in NumPy and float64; every kernel is judged by this file.

Axes: B queries, K support sets, S entries of a set, C channels, H rows, W columns.

    activated   = LeakyReLU(support_term + query_term)     (B, K, S, C, H, W)
    mean        = sum_s weights[k, s] * activated           (B, K, C, H, W)
    pooled      = 2x2 max pool of activated, floor          (B, K, S, C, H // 2, W // 2)
    pooled_mean = sum_s weights[k, s] * pooled              (B, K, C, H // 2, W // 2)

`support_mean` is form b, `support_mean_pool` form a, `support_mean_conv_pool` form c, which starts from the raw
support.

The composed convolution of form c (folding.md, "compose" and "border term"). Two 3x3 convolutions with zero padding,
Wv (M, I, 3, 3) and then Ws (C, M, 3, 3), without bias between them, are

    out[c, y, x] = sum over inner shifts d with (y, x) + d inside the image, over m, of Ws[c, m, d] * (Wv * v)[m, (y, x)
    + d]

Without the words "inside the image" this is one 5x5 convolution, `convolution[c, i, d + e] += Ws[c, m, d] * Wv[m, i,
e]`.
The positions that must be left out lie on the ring just outside: row -1, row H, column -1, column W. Row -1 sees of the
image row 0 only (e = +1), so what it adds to out[., 0, x] is a filter of 5 taps along row 0: `border` "top". Likewise
the other three sides. A corner position, such as (-1, -1), lies on two sides and is taken out twice, so its single tap
is put back. The correction is exact; tests compare it with the two convolutions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from universeg_rt.errors import InputError

DTYPES = ("float32", "float16", "bfloat16")
EPSILON = {"float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}  # distance from 1 to the next number
SMALLEST = {"float32": 2.0**-149, "float16": 2.0**-24, "bfloat16": 2.0**-133}
TOP, BOTTOM, LEFT, RIGHT, CORNER, BORDER = 0, 5, 10, 15, 20, 24  # parts of the `border` array's last axis


@dataclass(frozen=True)
class Outputs:
    """Results in float64: exact up to float64 rounding, not yet in the storage type. Absent ones are None."""

    mean: np.ndarray
    activated: np.ndarray
    pooled_mean: np.ndarray | None = None
    pooled: np.ndarray | None = None


def support_mean(support_term, query_term, weights, negative_slope: float = 0.01) -> Outputs:
    """Form b. support_term (Bs,K,S,C,H,W) with Bs = B or 1, query_term (B,Kq,1,C,H,W) with Kq = K or 1, weights (K,S).

    The two terms have one type of DTYPES, weights are float32 and sum to 1 in each set. Raises InputError otherwise.
    """
    support, query, weights = _checked(support_term, query_term, weights, negative_slope)
    activated = _leaky_relu(support + query, negative_slope)
    activated = np.broadcast_to(activated, (query.shape[0], *support.shape[1:]))
    return Outputs(mean=_weighted(weights, activated), activated=activated)


def support_mean_pool(support_term, query_term, weights, negative_slope: float = 0.01) -> Outputs:
    """Form a: as form b, with `pooled` and `pooled_mean`. Raises InputError also where a map is below 2x2."""
    out = support_mean(support_term, query_term, weights, negative_slope)
    return _with_pool(out, weights)


def support_mean_conv_pool(support, query_term, weights, convolution, border, negative_slope: float = 0.01) -> Outputs:
    """Form c. support (K,S,2,H,W) raw, convolution (C,2,5,5) and border (C,2,24) float32 as `compose` gives them.

    Otherwise as form a. Raises InputError where shapes or types do not fit.
    """
    support, convolution, border = np.asarray(support), np.asarray(convolution), np.asarray(border)
    _dtype_name("support", support)
    if support.ndim != 5 or support.shape[2] != 2:
        raise InputError(f"support has shape {support.shape}; form c needs (K, S, 2, H, W)")
    if convolution.ndim != 4 or convolution.shape[1:] != (2, 5, 5) or convolution.dtype != np.float32:
        raise InputError(
            f"convolution is {convolution.dtype} {convolution.shape}; form c needs float32 (C, 2, 5, 5) from compose()"
        )
    if border.shape != (len(convolution), 2, BORDER) or border.dtype != np.float32:
        raise InputError(
            f"border is {border.dtype} {border.shape}; form c needs float32 {(len(convolution), 2, BORDER)} from "
            "compose()"
        )
    if np.asarray(query_term).dtype != support.dtype:
        raise InputError(f"support is {support.dtype} and query_term {np.asarray(query_term).dtype}; give one type")
    term = _convolve(support.astype(np.float64), convolution.astype(np.float64), border.astype(np.float64))
    checked_support, query, weights64 = _checked(term[None], np.asarray(query_term).astype(np.float64), weights,
                                                 negative_slope, any_dtype=True)
    activated = _leaky_relu(checked_support + query, negative_slope)
    out = Outputs(mean=_weighted(weights64, activated), activated=activated)
    return _with_pool(out, weights)


def compose(cross: np.ndarray, support: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(convolution (C,I,5,5), border (C,I,24)) float32 of `support` (C,M,3,3) after `cross` (M,I,3,3), summed in
    float64.

    `cross` is the support half of the first block's cross convolution, `support` the support convolution behind it;
    both biases belong to the query term. Raises InputError where the shapes do not fit.
    """
    cross, support = np.asarray(cross, np.float64), np.asarray(support, np.float64)
    if cross.ndim != 4 or support.ndim != 4 or cross.shape[2:] != (3, 3) or support.shape[2:] != (3, 3) \
            or support.shape[1] != cross.shape[0]:
        raise InputError(f"cannot compose {support.shape} after {cross.shape}; give (C, M, 3, 3) and (M, I, 3, 3)")
    # pairs[c, i, dy, dx, ey, ex]: the path from input shift d + e through the middle position d.
    pairs = np.einsum("cmyx,mipq->ciyxpq", support, cross)
    outputs, inputs = pairs.shape[:2]
    convolution, border = np.zeros((outputs, inputs, 5, 5)), np.zeros((outputs, inputs, BORDER))
    for d in range(3):
        for e in range(3):
            for d2 in range(3):
                for e2 in range(3):
                    convolution[:, :, d + e, d2 + e2] += pairs[:, :, d, d2, e, e2]
            # Middle row just above (d = 0) reaches the image's row by e = 2; just below (d = 2) by e = 0.
            border[:, :, TOP + d + e] += pairs[:, :, 0, d, 2, e]
            border[:, :, BOTTOM + d + e] += pairs[:, :, 2, d, 0, e]
            border[:, :, LEFT + d + e] += pairs[:, :, d, 0, e, 2]
            border[:, :, RIGHT + d + e] += pairs[:, :, d, 2, e, 0]
    for n, (dy, dx) in enumerate(((0, 0), (0, 2), (2, 0), (2, 2))):
        border[:, :, CORNER + n] = pairs[:, :, dy, dx, 2 - dy, 2 - dx]
    return convolution.astype(np.float32), border.astype(np.float32)


def error_bounds(dtype: str, terms: np.ndarray, result: np.ndarray, additions: int) -> np.ndarray:
    """Largest |kernel - reference| that float32 arithmetic and one rounding to `dtype` explain, elementwise.

    `terms` is the sum of the magnitudes that were added up to each result, `additions` how many there were: each of
    these costs at most half a float32 unit of what has been summed so far. 2 more are the add and the activation.
    """
    float32 = (additions + 2) * EPSILON["float32"] * terms
    storage = 0.0 if dtype == "float32" else EPSILON[dtype] / 2 * (np.abs(result) + float32) + SMALLEST[dtype] / 2
    return float32 + storage + 2 * SMALLEST["float32"]


def _with_pool(out: Outputs, weights) -> Outputs:
    height, width = out.activated.shape[-2:]
    if height < 2 or width < 2:
        raise InputError(f"a {height}x{width} map has no 2x2 square to pool; give at least 2x2")
    a = out.activated[..., : height // 2 * 2, : width // 2 * 2]
    pooled = np.maximum(np.maximum(a[..., ::2, ::2], a[..., ::2, 1::2]),
                        np.maximum(a[..., 1::2, ::2], a[..., 1::2, 1::2]))
    pooled_mean = _weighted(np.asarray(weights).astype(np.float64), pooled)
    return Outputs(mean=out.mean, activated=out.activated, pooled_mean=pooled_mean, pooled=pooled)


def _convolve(support: np.ndarray, convolution: np.ndarray, border: np.ndarray) -> np.ndarray:
    """(K,S,2,H,W) -> (K,S,C,H,W): the 5x5 convolution with zero padding, less what the ring outside adds."""
    height, width = support.shape[-2:]
    padded = np.pad(support, [(0, 0)] * 3 + [(2, 2), (2, 2)])
    windows = np.lib.stride_tricks.sliding_window_view(padded, (5, 5), axis=(-2, -1))  # (K,S,2,H,W,5,5)
    out = np.einsum("ksihwyx,ciyx->kschw", windows, convolution, optimize=True)
    along_rows = windows[..., 2, :]  # (K,S,2,H,W,5): the pixel's own row
    along_columns = windows[..., :, 2]
    for row, part in ((0, TOP), (height - 1, BOTTOM)):
        out[..., row, :] -= np.einsum("ksiwt,cit->kscw", along_rows[..., row, :, :], border[..., part : part + 5])
    for column, part in ((0, LEFT), (width - 1, RIGHT)):
        out[..., column] -= np.einsum("ksiht,cit->ksch", along_columns[..., column, :], border[..., part : part + 5])
    corners = [(0, 0), (0, width - 1), (height - 1, 0), (height - 1, width - 1)]
    for n, (row, column) in enumerate(corners):
        out[..., row, column] += np.einsum("ksi,ci->ksc", support[..., row, column], border[..., CORNER + n])
    return out


def _leaky_relu(x: np.ndarray, slope: float) -> np.ndarray:
    # The slope is float32 in the kernels; anything else would be another function.
    return np.where(x >= 0, x, np.float64(np.float32(slope)) * x)


def _weighted(weights: np.ndarray, maps: np.ndarray) -> np.ndarray:
    sums = [np.tensordot(w, maps[:, k], axes=(0, 1)) for k, w in enumerate(weights)]
    return np.stack(sums, axis=1)


def _checked(support_term, query_term, weights, negative_slope, any_dtype=False):
    support, query, weights = np.asarray(support_term), np.asarray(query_term), np.asarray(weights)
    if not any_dtype:
        names = _dtype_name("support_term", support), _dtype_name("query_term", query)
        if names[0] != names[1]:
            raise InputError(f"support_term is {names[0]} and query_term {names[1]}; give both in one type")
    if isinstance(negative_slope, bool) or not isinstance(negative_slope, (int, float, np.floating)) \
            or not (math.isfinite(negative_slope) and 0.0 < negative_slope <= 1.0):
        raise InputError(f"negative_slope is {negative_slope!r}; it must lie in (0, 1]")
    if support.ndim != 6 or query.ndim != 6 or query.shape[2] != 1:
        raise InputError(
            f"support_term has shape {support.shape} and query_term {query.shape}; give (Bs, K, S, C, H, W) and "
            "(B, Kq, 1, C, H, W)"
        )
    if 0 in support.shape or 0 in query.shape:
        raise InputError(
            f"support_term {support.shape} or query_term {query.shape} is empty; every axis needs at least 1")
    if support.shape[0] not in (1, query.shape[0]):
        raise InputError(
            f"support_term has {support.shape[0]} queries and query_term {query.shape[0]}; give 1 or as many")
    if query.shape[1] not in (1, support.shape[1]):
        raise InputError(f"query_term has {query.shape[1]} sets and support_term {support.shape[1]}; give 1 or as many")
    if query.shape[3:] != support.shape[3:]:
        raise InputError(
            f"maps are {support.shape[3:]} in support_term and {query.shape[3:]} in query_term; give one shape")
    if weights.dtype != np.float32 or weights.shape != support.shape[1:3]:
        raise InputError(f"weights are {weights.dtype} {weights.shape}; give float32 {support.shape[1:3]}")
    if not np.isfinite(weights).all() or np.abs(weights.sum(axis=1, dtype=np.float64) - 1).max() > 1e-3:
        raise InputError("weights must be finite and sum to 1 in each support set; divide each set's by their sum")
    return support.astype(np.float64), query.astype(np.float64), weights.astype(np.float64)


def _dtype_name(name: str, array: np.ndarray) -> str:
    if array.dtype.name not in DTYPES:
        raise InputError(f"{name} is {array.dtype}; accepted: {', '.join(DTYPES)}")
    return array.dtype.name
