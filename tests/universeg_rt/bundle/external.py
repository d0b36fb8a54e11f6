"""Bundles whose models keep their data in a file beside them, as ONNX external data."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from universeg_rt import Bundle
from universeg_rt.bundle.bundle import MANIFEST, file_entry


def outside(values: np.ndarray, location: str, offset: int, name: str = "w") -> TensorProto:
    """A tensor that lies in another file."""
    tensor = TensorProto(name=name, dims=values.shape, data_type=helper.np_dtype_to_tensor_dtype(values.dtype))
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", str(offset)), ("length", str(values.nbytes))):
        tensor.external_data.add(key=key, value=value)
    return tensor


def move_out(folder: Path, location: str = "weights.bin", listed: bool = True, smallest: int = 256) -> Bundle:
    """The bundle with the larger tensors of each folder's models in one file of that folder; opened again."""
    manifest = Bundle.open(folder).manifest
    names = [name for name in manifest.files if name.endswith(".onnx")]
    blobs: dict[str, bytearray] = {}
    for name in names:
        model = onnx.load(folder / name)
        blob = blobs.setdefault(str(Path(name).parent / "weights.bin"), bytearray())
        for i, tensor in enumerate(model.graph.initializer):
            if len(tensor.raw_data) >= smallest:
                values = onnx.numpy_helper.to_array(tensor)
                blob += bytes(-len(blob) % 64)
                model.graph.initializer[i].CopyFrom(outside(values, location, len(blob), tensor.name))
                blob += values.tobytes()
        (folder / name).write_bytes(model.SerializeToString())
    for name, blob in blobs.items():
        (folder / name).write_bytes(blob)
    relist(folder, [*manifest.files, *(blobs if listed else ())])
    return Bundle.open(folder)


def relist(folder: Path, names) -> None:
    """Write the manifest anew for the files as they are, without a parity report."""
    from universeg_rt.bundle.manifest import Manifest

    manifest = Manifest.from_json((folder / MANIFEST).read_text(), "m")
    files = {str(Path(name)): file_entry(folder / name) for name in names}
    (folder / MANIFEST).write_text(dataclasses.replace(manifest, files=files, parity={}).to_json())
