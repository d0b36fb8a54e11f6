"""The arithmetic that GPUs are measured in: the precisions of bundles, and float32 with its products in TF32."""

from __future__ import annotations

import numpy as np

from universeg_rt.precision import PRECISIONS

# Type of the maps by name, in the order of the measurements.
FLOATS = {"fp32": PRECISIONS["fp32"].dtype, "tf32": PRECISIONS["fp32"].dtype, "fp16": PRECISIONS["fp16"].dtype}
# Bytes of a map's value in memory; those between int8 convolutions are counted as halves.
ITEM = {name: np.dtype(dtype).itemsize for name, dtype in FLOATS.items()} | {
    name: 2 for name, precision in PRECISIONS.items() if precision.is_quantised}


def torch_type(torch, name: str):
    """PyTorch's type of the maps; torch: the module."""
    return getattr(torch, np.dtype(FLOATS[name]).name)
