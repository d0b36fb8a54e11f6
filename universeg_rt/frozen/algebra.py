"""The static network of a frozen task, in arrays.

Without a cross activation a block's query path reads the support through one map, its support term m = Wv * mean_i(v_i):

    u' = φ(Wt * (Wu * u + b + m) + bt)  =  φ(Wt * (Wu * u) + c),    c = Wt * (b + m) + bt

A static task holds c, one constant map a block: the mean of those that some images of the task gave, as queries.
In the first block, where one channel comes in, Wt * (Wu * u) is one 5x5 convolution, with kernels of their own along the
border as export/folds/border_term.py explains.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from ..errors import InputError
from ..runners.cpu.native_weights import first_block
from ..spec import BlockSpec, NetworkSpec

Floats = npt.NDArray[np.float32]
REFUSED = (
    "this network has an activation in the cross convolution, so its support is read entry by entry and no constant map "
    "stands for it; take kind='exact'"
)


def check_static(spec: NetworkSpec) -> None:
    """InputError where the network has no static form."""
    if spec.cross_activation != "none":
        raise InputError(REFUSED)


def static_weights(spec: NetworkSpec, weights: Mapping[str, Floats]) -> dict[str, Floats]:
    """The native runner's arrays of the static network, from the reference's by key.

    For each block but the first `i.query.weight` and `i.target.weight`; `first` (9,2,5,5,C), the first block's composed
    kernels by the position of a pixel, zero for the second channel, which stands for a label; `head.weight` (C,) and
    `head.bias` (1,).
    """
    arrays: dict[str, Floats] = {}
    for block in spec.blocks():
        query, target = _query_weight(block, weights), weights[f"{block.name}.target.vmapped.conv.weight"]
        if block.is_first:
            kernels = border_kernels(target, query)
            arrays["first"] = first_block([np.pad(kernel, ((0, 0), (0, 1), (0, 0), (0, 0))) for kernel in kernels])
        else:
            arrays[f"{block.index}.query.weight"], arrays[f"{block.index}.target.weight"] = query, target
    arrays["head.weight"] = weights["out_conv.conv.weight"].reshape(-1)
    arrays["head.bias"] = weights["out_conv.conv.bias"]
    return {name: np.ascontiguousarray(value, np.float32) for name, value in arrays.items()}


def compose(second: np.ndarray, first: np.ndarray) -> np.ndarray:
    """Kernel of `second * (first * v)`: (C,M,a,b) and (M,Cv,c,d) -> (C,Cv,a+c-1,b+d-1), summed in float64.

    Kernels are those of cross-correlation, as every deep-learning library stores them.
    """
    height, width = first.shape[2:]
    out = np.zeros((second.shape[0], first.shape[1], second.shape[2] + height - 1, second.shape[3] + width - 1))
    for a in range(second.shape[2]):
        for b in range(second.shape[3]):
            out[:, :, a : a + height, b : b + width] += np.einsum(
                "om,mcyx->ocyx", second[:, :, a, b].astype(np.float64), first.astype(np.float64)
            )
    return out.astype(second.dtype)


def border_kernels(second: np.ndarray, first: np.ndarray) -> tuple[np.ndarray, ...]:
    """`compose(second, first)` of 3x3 kernels for the nine positions of a pixel, (top, middle, bottom) x (left, middle,
    right): along the border without the taps that fall outside the image."""
    dtype = second.dtype
    second, first = second.astype(np.float64), first.astype(np.float64)

    def kernel(y: int | None, x: int | None) -> np.ndarray:
        """y, x: 0 on the first row or column, 2 on the last, None elsewhere; taps that leave the image are cut off."""
        out = compose(second, first)
        if y is not None:
            out[:, :, 2:3] -= compose(second[:, :, y : y + 1], first[:, :, 2 - y : 3 - y])
        if x is not None:
            out[:, :, :, 2:3] -= compose(second[:, :, :, x : x + 1], first[:, :, :, 2 - x : 3 - x])
        if y is not None and x is not None:
            out[:, :, 2:3, 2:3] += compose(second[:, :, y : y + 1, x : x + 1], first[:, :, 2 - y : 3 - y, 2 - x : 3 - x])
        inside = {0: slice(2, 5), 2: slice(0, 3), None: slice(0, 5)}
        return np.ascontiguousarray(out[:, :, inside[y], inside[x]]).astype(dtype)

    return tuple(kernel(y, x) for y in (0, None, 2) for x in (0, None, 2))


def _query_weight(block: BlockSpec, weights: Mapping[str, Floats]) -> Floats:
    """Wu, the part of the cross convolution that reads the query."""
    return weights[f"{block.name}.cross.cross_conv.weight"][:, : block.query_channels]
