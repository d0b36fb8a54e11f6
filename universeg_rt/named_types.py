"""Types that many modules name, stated once."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import numpy.typing as npt

AnyPath = str | os.PathLike[str]

Array = npt.NDArray[Any]  # of whatever type was given
Bools = npt.NDArray[np.bool_]
Bytes = npt.NDArray[np.uint8]  # of pictures
Doubles = npt.NDArray[np.float64]
Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.signedinteger[Any]]

Vendor = Any  # an object of a library that ships no types, or is not there where types are checked
