"""Bundles whose models keep their data in a file beside them, as ONNX external data."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from universeg_rt import Bundle
from universeg_rt.bundle.bundle import MANIFEST, file_entry
from universeg_rt.bundle.weights import WEIGHTS


def outside(values: np.ndarray, location: str, offset: int, name: str = "w") -> TensorProto:
    """A tensor that lies in another file."""
    tensor = TensorProto(name=name, dims=values.shape, data_type=helper.np_dtype_to_tensor_dtype(values.dtype))
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", str(offset)), ("length", str(values.nbytes))):
        tensor.external_data.add(key=key, value=value)
    return tensor


def move_out(folder: Path, location: str = "weights.bin", listed: bool = True) -> Bundle:
    """The bundle with its graphs' numbers in another file, which they call `location`; opened again."""
    manifest = Bundle.open(folder).manifest
    for name in manifest.files:
        if name.endswith(".onnx"):
            model = onnx.load(folder / name, load_external_data=False)
            for entry in (e for tensor in model.graph.initializer for e in tensor.external_data if e.key == "location"):
                entry.value = location
            (folder / name).write_bytes(model.SerializeToString())
    shutil.copyfile(folder / WEIGHTS, folder / "weights.bin")
    relist(folder, [*manifest.files, *(["weights.bin"] if listed else [])])
    return Bundle.open(folder)


def relist(folder: Path, names) -> None:
    """Write the manifest anew for the files as they are, without a parity report."""
    from universeg_rt.bundle.manifest import Manifest

    manifest = Manifest.from_json((folder / MANIFEST).read_text(), "m")
    files = {str(Path(name)): file_entry(folder / name) for name in names}
    (folder / MANIFEST).write_text(dataclasses.replace(manifest, files=files, parity={}).to_json())
