"""WeightStore: collects a bundle's numbers, equal ones once, and lets graphs name them in the one file that they are
written to."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping

import numpy as np
import onnx
from onnx import numpy_helper

from universeg_rt.bundle.weights import ALIGNMENT, TYPES, WEIGHTS, split_weights
from universeg_rt.spec import NetworkSpec

_NAMES = {dtype: name for name, dtype in TYPES.items()}
# Graph constants that are numbers of the network, not shapes, limits or defaults: NAME/weight, NAME/bias/scales
# (graph.py).
_NUMBERS = {"weight", "bias"}


class WeightStore:
    """Numbers by name. Those that were put in first give their names to equal ones that come later."""

    def __init__(self) -> None:
        self._tensors: dict[str, np.ndarray] = {}
        self._names: dict[tuple[np.dtype, bytes], str] = {}

    def add_reference(self, spec: NetworkSpec, weights: Mapping[str, np.ndarray]) -> None:
        """Put the reference network's weights in, each under its own name, before all that is made of them."""
        for name, value in split_weights(weights, spec).items():
            self._tensors[name] = value
            self._names.setdefault((value.dtype, value.tobytes()), name)

    def add(self, name: str, value: np.ndarray) -> str:
        """Puts numbers in, unless equal ones are there; returns their name. ValueError where that has other numbers."""
        value = np.ascontiguousarray(value)
        value = value.astype(value.dtype.newbyteorder("<"))
        key = value.dtype, value.tobytes()
        if key not in self._names:
            if name in self._tensors:
                raise ValueError(f"two different tensors are called {name}")
            self._tensors[name] = value
            self._names[key] = name
        return self._names[key]

    def add_graph(self, model: onnx.ModelProto) -> dict[str, str]:
        """Put a graph's numbers in; the name in the file of each initializer that is one."""
        return {tensor.name: self.add(tensor.name, numpy_helper.to_array(tensor)) for tensor in model.graph.initializer
                if _NUMBERS & set(tensor.name.split("/")[-2:])}

    def file(self, metadata: Mapping[str, str]) -> StoredWeights:
        """The file's bytes. Tensors whose size is a multiple of ALIGNMENT come first: each of them begins at one."""
        ordered = sorted(self._tensors.items(), key=lambda item:
                         (item[1].nbytes % ALIGNMENT != 0, -item[1].itemsize, item[0]))
        header: dict[str, object] = {"__metadata__": dict(metadata)}
        at = 0
        for name, value in ordered:
            header[name] = {
                "dtype": _NAMES[value.dtype], "shape": list(value.shape), "data_offsets": [at, at + value.nbytes]
            }
            at += value.nbytes
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-(8 + len(text)) % ALIGNMENT)
        places, begin = {}, 8 + len(text)
        for name, value in ordered:
            places[name] = (begin, value.nbytes)
            begin += value.nbytes
        return StoredWeights(b"".join([struct.pack("<Q", len(text)), text, *(value.tobytes() for _, value in ordered)]),
                             places)


class StoredWeights:
    """A finished file. data: its bytes. places: (offset, length) of each tensor in them."""

    def __init__(self, data: bytes, places: Mapping[str, tuple[int, int]]) -> None:
        self.data, self.places = data, places

    def move_out(self, model: onnx.ModelProto, names: Mapping[str, str]) -> bytes:
        """The graph as bytes, its numbers named in the file instead of in it. names: as `add_graph` gave them."""
        moved = onnx.ModelProto()
        moved.CopyFrom(model)
        for tensor in moved.graph.initializer:
            if tensor.name not in names:
                continue
            offset, length = self.places[names[tensor.name]]
            for data in ("raw_data", "float_data", "int32_data"):
                tensor.ClearField(data)
            tensor.data_location = onnx.TensorProto.EXTERNAL
            for key, value in (("location", WEIGHTS), ("offset", str(offset)), ("length", str(length))):
                tensor.external_data.add(key=key, value=value)
        return moved.SerializeToString(deterministic=True)
