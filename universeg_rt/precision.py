"""The precisions that a bundle's models come in: what each means, once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Precision:
    """dtype: of weights and maps in a graph. is_quantised: whether convolutions are int8 between them. is_native:
    whether the native CPU runner has weights of it. is_static: whether a bundle has a template of frozen tasks of
    it."""

    dtype: type
    is_quantised: bool = False
    is_native: bool = True

    @property
    def is_static(self) -> bool:
        return not self.is_quantised  # by scales that only a task's own images give


# In the order in which they are exported; float32 is in every bundle.
PRECISIONS = {
    "fp32": Precision(np.float32),
    "fp16": Precision(np.float16, is_native=False),
    "int8": Precision(np.float32, is_quantised=True),
}

# What precision `auto` takes on a GPU, the first that there is; int8 only where it is asked for.
GPU_AUTO = ("fp16", "fp32")
