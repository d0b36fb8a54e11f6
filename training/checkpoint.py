"""Reads and writes weights: our safetensors (with their NetworkSpec) and published `.pt` files, without running pickles."""

from __future__ import annotations

import hashlib
import json
import os
import struct
from pathlib import Path

import numpy as np

from universeg_rt.atomic import write_file
from universeg_rt.errors import CheckpointError, SpecError
from universeg_rt.spec import NetworkSpec

SPEC_KEY = "universeg_spec"


def load_checkpoint(
    path: str | os.PathLike, spec: NetworkSpec | None = None
) -> tuple[NetworkSpec, dict[str, np.ndarray], dict[str, str]]:
    """Read a checkpoint: (spec, weights by state-dict key as float32 arrays, metadata).

    `.safetensors` files of ours carry their specification. A `.pt` file does not say which variant it is, and the two
    variants share keys and shapes, so `spec` must be given for it. It is read with `weights_only`, which refuses any
    pickle that would run code. Raises CheckpointError where the file is missing, is no checkpoint, contradicts `spec`,
    or lacks keys, has unknown ones, or holds misshapen or non-finite values (all are listed).
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"no checkpoint at {path}; give a .safetensors or .pt file")
    if path.suffix == ".safetensors":
        weights, metadata = _read_safetensors(path)
    elif path.suffix in (".pt", ".pth"):
        weights, metadata = _read_torch(path), {}
    else:
        raise CheckpointError(f"{path} is no known kind of checkpoint; accepted: .safetensors, .pt, .pth")

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
    return spec, weights, metadata


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
    """Raise CheckpointError listing every missing, unexpected, misshapen and non-finite key."""
    shapes = spec.weight_shapes()
    problems = []
    missing, unexpected = sorted(set(shapes) - set(weights)), sorted(set(weights) - set(shapes))
    if missing:
        problems.append(f"missing keys: {', '.join(missing)}")
    if unexpected:
        problems.append(f"unexpected keys: {', '.join(unexpected)}")
    misshapen = [
        f"{key} is {tuple(weights[key].shape)}, expected {shape}"
        for key, shape in shapes.items() if key in weights and tuple(weights[key].shape) != shape
    ]
    if misshapen:
        problems.append(f"misshapen: {'; '.join(misshapen)}")
    non_finite = [key for key in shapes if key in weights and not np.isfinite(weights[key]).all()]
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


def _read_safetensors(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    data = path.read_bytes()
    try:
        weights = load(data)
        (header_size,) = struct.unpack("<Q", data[:8])
        metadata = json.loads(data[8 : 8 + header_size]).get("__metadata__", {})
    except (SafetensorError, ValueError, struct.error, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path} is not a whole safetensors file ({error}); fetch or write it again") from None
    return {key: value.astype(np.float32) for key, value in weights.items()}, metadata


def _read_torch(path: Path) -> dict[str, np.ndarray]:
    import pickle

    import torch

    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(
            f"{path} is not a plain state dict: loading it would run code or fail ({reason}); "
            "save it again with torch.save(model.state_dict(), ...)") from None
    except Exception as error:  # whatever zipfile or torch trips over in a damaged file
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise CheckpointError(f"{path} is not a whole PyTorch file ({reason}); fetch or write it again") from None
    if not isinstance(state, dict) or not state or not all(
            isinstance(k, str) and isinstance(v, torch.Tensor) for k, v in state.items()):
        raise CheckpointError(f"{path} holds no state dict (names with tensors); save model.state_dict() alone")
    return {key: value.detach().to(torch.float32).numpy() for key, value in state.items()}
