"""Reads and writes weights: our safetensors (with their NetworkSpec) and published `.pt` files, without running
pickles."""

from __future__ import annotations

import hashlib
import io
import json
import os
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from universeg_rt.bundle.bundle import Bundle
from universeg_rt.errors import CheckpointError, SpecError, shown
from universeg_rt.spec import NetworkSpec
from universeg_rt.storage.atomic import write_file
from universeg_rt.storage.reading import reading, reason, regular_file

if TYPE_CHECKING:
    import torch

SPEC_KEY = "universeg_spec"
MAX_BYTES = 1 << 32  # of a file; the widest network of a specification stays below
FLOATS = {"F64", "F32", "F16"}  # of safetensors, as NumPy has them


def load_checkpoint(
    path: str | os.PathLike, spec: NetworkSpec | None = None
) -> tuple[NetworkSpec, dict[str, np.ndarray], dict[str, str]]:
    """Read a checkpoint: (spec, weights by state-dict key as float32 arrays, metadata).

    A bundle's folder holds the weights that it was exported from. `.safetensors` files of ours carry their
    specification. A `.pt` file does not say which variant it is, and the two variants share keys and shapes, so `spec`
    must be given for it. It is read with `weights_only`, which refuses any pickle that would run code. Raises
    CheckpointError where the file is missing, is no checkpoint, contradicts `spec`, or lacks keys, has unknown ones, or
    holds misshapen or non-finite values (all are listed).
    """
    metadata: dict[str, str]
    if Path(path).is_dir():
        bundle = Bundle.open(path)
        weights = bundle.weights()
        if weights_sha256(weights) != bundle.manifest.weights_sha256:
            raise CheckpointError(f"{path} holds other weights than its manifest says; export the bundle again")
        metadata = {
            **bundle.manifest.provenance.get("checkpoint_metadata", {}), SPEC_KEY: bundle.manifest.spec.to_json()
        }
        return _fitting(Path(path), spec, weights, metadata)
    path = regular_file(path, CheckpointError)
    if path.suffix == ".safetensors":
        weights, metadata = _read_safetensors(path)
    elif path.suffix in (".pt", ".pth"):
        weights, metadata = _read_torch(path), {}
    else:
        raise CheckpointError(
            f"{path} is no known kind of checkpoint; accepted: .safetensors, .pt, .pth, or a bundle's folder")
    return _fitting(path, spec, weights, metadata)


def _fitting(path: Path, spec: NetworkSpec | None, weights: dict[str, np.ndarray],
             metadata: dict[str, str]) -> tuple[NetworkSpec, dict[str, np.ndarray], dict[str, str]]:
    """The same, checked against the specification that the file says or, where it says none, the given one."""
    if SPEC_KEY in metadata:
        try:
            stored = NetworkSpec.from_json(metadata[SPEC_KEY])
        except SpecError as error:
            raise CheckpointError(f"{path}: {error}") from None
        if spec is not None and spec != stored:
            raise CheckpointError(f"{path} says its network is {stored.to_json()}, but {spec.to_json()} was asked for")
        spec = stored
    if spec is None:
        raise CheckpointError(
            f"{path} does not say which network it holds; give the specification (--spec v1 for the published weights)")
    check_weights(spec, weights, str(path))
    return spec, {key: value.astype(np.float32) for key, value in weights.items()}, metadata


def save_checkpoint(
    path: str | os.PathLike, spec: NetworkSpec, weights: dict[str, np.ndarray], metadata: dict[str, str] | None = None
) -> None:
    """Write weights as safetensors with their specification, whole or not at all.

    Raises CheckpointError where the weights do not fit the specification, OutputError where they cannot be written.
    """
    from safetensors.numpy import save

    weights = {key: np.ascontiguousarray(value, dtype=np.float32) for key, value in weights.items()}
    check_weights(spec, weights, str(path))
    data = save(weights, metadata={**(metadata or {}), SPEC_KEY: spec.to_json()})
    with write_file(path) as file:
        file.write(data)


def check_weights(spec: NetworkSpec, weights: dict[str, np.ndarray], source: str) -> None:
    """Raise CheckpointError listing every missing, unexpected, misshapen and non-finite key (as float32)."""
    shapes = spec.weight_shapes()
    problems = []
    missing, unexpected = sorted(set(shapes) - set(weights)), sorted(set(weights) - set(shapes))
    if missing:
        problems.append(f"missing keys: {', '.join(missing)}")
    if unexpected:
        problems.append(f"unexpected keys: {_few(unexpected)}")
    misshapen = [
        f"{key} is {tuple(weights[key].shape)}, expected {shape}"
        for key, shape in shapes.items() if key in weights and tuple(weights[key].shape) != shape
    ]
    if misshapen:
        problems.append(f"misshapen: {'; '.join(misshapen)}")
    with np.errstate(over="ignore"):  # of float64: what overflows is not finite
        non_finite = [key for key, shape in shapes.items() if key in weights and tuple(weights[key].shape) == shape
                      and not np.isfinite(weights[key].astype(np.float32, copy=False)).all()]
    if non_finite:
        problems.append(f"not finite: {', '.join(non_finite)}")
    if problems:
        raise CheckpointError(f"{source} does not fit the network: {'. '.join(problems)}")


def weights_sha256(weights: dict[str, np.ndarray]) -> str:
    """sha256 of the weights themselves (sorted keys, shapes, little-endian float32), whatever file holds them."""
    digest = hashlib.sha256()
    for key in sorted(weights):
        value = np.ascontiguousarray(weights[key], dtype="<f4")
        digest.update(f"{key}{value.shape}".encode())
        digest.update(value.tobytes())
    return digest.hexdigest()


def read_torch(path: Path, what: str, device: str | torch.device = "cpu") -> object:
    """What torch.save wrote as `what` (with its article): tensors and plain values, never anything that runs code.

    Raises CheckpointError where the file is none, is not whole, or would unpack to more than itself.
    """
    import pickle

    import torch

    with reading(what, path, CheckpointError, cure="fetch or write it again"):
        data = _bytes(path)
        if not zipfile.is_zipfile(io.BytesIO(data)):
            raise CheckpointError(
                f"{path} cannot be read as {what}: it is not a whole archive as PyTorch 1.6 and later write; "
                "fetch it again, or load it with PyTorch and save it anew")
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = archive.infolist()
        if any(e.compress_type != zipfile.ZIP_STORED for e in entries) or sum(e.file_size for e in entries) > len(data):
            raise CheckpointError(
                f"{path} cannot be read as {what}: its parts are packed, which PyTorch does not do; save it again")
        try:
            return torch.load(io.BytesIO(data), map_location=device, weights_only=True)
        except pickle.UnpicklingError as error:
            raise CheckpointError(
                f"{path} cannot be read as {what}: loading it would run code or fail ({reason(error)}); "
                "save it again with torch.save(model.state_dict(), ...)") from None


def plain_arrays(tensors: object, source: str) -> dict[str, np.ndarray]:
    """A state dict's tensors as arrays, not copied;
    CheckpointError where it is none, or one is not of floating point and dense."""
    import torch

    if not isinstance(tensors, Mapping) or not tensors or not all(
            isinstance(k, str) and isinstance(v, torch.Tensor) for k, v in tensors.items()):
        raise CheckpointError(f"{source} holds no state dict (names with tensors); save model.state_dict() alone")
    odd = [
        key for key, v in tensors.items()
        if v.layout != torch.strided or v.is_meta or v.is_quantized or not v.is_floating_point() or v.numel() *
        v.element_size() > v.untyped_storage().nbytes()
    ]
    if odd:
        raise CheckpointError(
            f"{source}: {_few(odd)} are not dense arrays of floating-point numbers; save them as such")
    tensors = {key: value.detach().cpu() for key, value in tensors.items()}
    return {
        key: (v.float() if v.dtype not in (torch.float64, torch.float32, torch.float16) else v).numpy()
        for key, v in tensors.items()
    }


def _few(keys: list[str]) -> str:
    """Names of a file in a message: printable, and not more than can be read."""
    return ", ".join(shown(key)[1:-1] for key in keys[:20]) + (f" and {len(keys) - 20} more" if len(keys) > 20 else "")


def _bytes(path: Path) -> bytes:
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size > MAX_BYTES:
            raise CheckpointError(f"{path} has {size} bytes; accepted: weights of one network, at most {MAX_BYTES}")
        return file.read(size)


def _read_safetensors(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    from safetensors.numpy import load

    with reading("a whole safetensors file", path, CheckpointError, cure="fetch or write it again"):
        data = _bytes(path)
        (size,) = struct.unpack("<Q", data[:8])
        header = json.loads(data[8 : 8 + size])
        metadata = header.pop("__metadata__", None) or {}
        odd = [key for key, entry in header.items() if entry["dtype"] not in FLOATS]
        if odd:
            raise CheckpointError(
                f"{path}: {_few(odd)} are of another type than {', '.join(sorted(FLOATS))}; save them as float32")
        return load(data), metadata


def _read_torch(path: Path) -> dict[str, np.ndarray]:
    return plain_arrays(read_torch(path, "a PyTorch file of weights"), str(path))
