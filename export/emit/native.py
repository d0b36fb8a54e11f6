"""The folded network's weights as plain arrays, for the native CPU runner (kernels/cpu/), in one uncompressed `.npz` file.

Block i, in the order in which they run: `i.cross`, `i.support` (but for the last block) and `i.target`, each `.weight`
(out,in,3,3) and `.bias` (out,); `first` (9,2,5,5,out), the first block's composed kernels for the nine positions of a pixel,
(top, middle, bottom) x (left, middle, right), where taps that fall outside the image are zero; `head.weight` (in,), `head.bias`
(1,). All float32.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping

import numpy as np

from ..folded import FoldedBlock, FoldedNetwork

_POSITIONS = (("top_left", "top", "top_right"), ("left", None, "right"), ("bottom_left", "bottom", "bottom_right"))
_INSIDE = (slice(2, 5), slice(0, 5), slice(0, 3))  # taps of a first, a middle and a last row or column


def emit_native(network: FoldedNetwork) -> bytes | None:
    """The file's bytes, the same for the same network; None where the native runner cannot run it: its order of work needs
    the folds compose and mean before convolution, and 2x2 max pooling."""
    spec = network.spec
    if network.blocks[0].border_kernels is None or spec.downsample != "max_pool" \
            or not all(b.mean_before_convolution for b in network.blocks):
        return None
    arrays = {}
    for i, block in enumerate(network.blocks):
        arrays[f"{i}.cross.weight"], arrays[f"{i}.cross.bias"] = block.cross_weight, block.cross_bias
        arrays[f"{i}.target.weight"], arrays[f"{i}.target.bias"] = block.target_weight, block.target_bias
        if block.support_weight is not None:
            arrays[f"{i}.support.weight"], arrays[f"{i}.support.bias"] = block.support_weight, block.support_bias
    arrays["first"] = _first_block(network.blocks[0])
    arrays["head.weight"], arrays["head.bias"] = network.head_weight.reshape(-1), network.head_bias
    return _npz({name: np.ascontiguousarray(value, np.float32) for name, value in arrays.items()})


def _first_block(block: FoldedBlock) -> np.ndarray:
    features, inputs = block.composed_weight.shape[:2]
    kernels = np.zeros((3, 3, features, inputs, 5, 5), np.float32)
    for row, names in enumerate(_POSITIONS):
        for column, name in enumerate(names):
            kernel = block.composed_weight if name is None else getattr(block.border_kernels, name)
            kernels[row, column][:, :, _INSIDE[row], _INSIDE[column]] = kernel
    return kernels.reshape(9, features, inputs, 5, 5).transpose(0, 2, 3, 4, 1)


def _npz(arrays: Mapping[str, np.ndarray]) -> bytes:
    """As numpy.savez writes it, but without the time of writing."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for name, value in sorted(arrays.items()):
            entry = io.BytesIO()
            np.lib.format.write_array(entry, value, allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0)), entry.getvalue())
    return out.getvalue()
