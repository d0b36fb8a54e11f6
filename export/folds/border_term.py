"""Border term: makes a composed 5x5 convolution exact along the image's border.

The second convolution of the reference sees zeros outside the image, where the composed one sees what the first would
have computed there. That is a ring one pixel wide, so only the outermost pixels differ:

    Ws * crop(Wv * v)  =  (Ws∘Wv) * v  -  Ws * ring(Wv * v)

The ring above the image comes from the image's first row alone (through the last row of Wv) and returns to the first
row alone (through the first row of Ws): 5 taps along that row. The same holds for the other three sides; a corner of
the ring lies on two sides and is given back once. The subtracted taps lie where the composed kernel has taps too, so
each edge and each corner of the image simply gets a composed kernel of its own, without the taps that would fall
outside.
Condition: the block is composed.
"""

from __future__ import annotations

import numpy as np

from .compose import compose
from .folded import BorderKernels, FoldedBlock, FoldedNetwork


def apply(network: FoldedNetwork) -> FoldedNetwork:
    def decide(_: FoldedNetwork, block: FoldedBlock):
        if block.composed_weight is None:
            return None, "the block is not composed"
        kernels = border_kernels(block.support_weight, block.support_term_weight)
        return {"border_kernels": kernels}, "follows from compose"

    return network.rewrite("border_term", decide)


def border_kernels(second: np.ndarray, first: np.ndarray) -> BorderKernels:
    """The kernels of the outermost pixels for `compose(second, first)` of 3x3 kernels (C,M,3,3) and (M,Cv,3,3)."""
    dtype = second.dtype
    second, first = second.astype(np.float64), first.astype(np.float64)

    def kernel(y: int | None, x: int | None) -> np.ndarray:
        """y, x: 0 on the first row or column, 2 on the last, None elsewhere; taps outside the image are cut off."""
        out = compose(second, first)
        if y is not None:
            out[:, :, 2:3] -= compose(second[:, :, y : y + 1], first[:, :, 2 - y : 3 - y])
        if x is not None:
            out[:, :, :, 2:3] -= compose(second[:, :, :, x : x + 1], first[:, :, :, 2 - x : 3 - x])
        if y is not None and x is not None:
            out[:, :, 2:3, 2:3] += compose(
                second[:, :, y : y + 1, x : x + 1], first[:, :, 2 - y : 3 - y, 2 - x : 3 - x])
        inside = {0: slice(2, 5), 2: slice(0, 3), None: slice(0, 5)}
        return np.ascontiguousarray(out[:, :, inside[y], inside[x]]).astype(dtype)

    return BorderKernels(
        top=kernel(0, None), bottom=kernel(2, None), left=kernel(None, 0), right=kernel(None, 2),
        top_left=kernel(0, 0), top_right=kernel(0, 2), bottom_left=kernel(2, 0), bottom_right=kernel(2, 2),
    )
