"""Weights files: damaged .safetensors and .pt, headers with odd values, and state dicts of odd things."""

from __future__ import annotations

import json
import random
import struct
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch

from universeg_rt.spec import NetworkSpec
from universeg_rt.training.network.checkpoint import load_checkpoint, save_checkpoint

from ..conftest import SMALL_SPEC, random_weights
from .mutate import ODD_VALUES, changed, damaged

ODD_TENSORS = (torch.zeros(3), torch.zeros(()), torch.full(
    (1, ), torch.nan), torch.zeros(1, dtype=torch.complex64), torch.zeros(1, dtype=torch.bool),
               torch.zeros(1, dtype=torch.bfloat16), torch.zeros(1, dtype=torch.int64), torch.zeros(1, device="meta"),
               torch.eye(3).to_sparse(), torch.zeros(1).expand(2**40), torch.zeros(1, requires_grad=True),
               torch.full((1, ), 1e300, dtype=torch.float64))


def cases(rng: random.Random, folder: Path) -> Iterator[tuple[str, Callable[[], object]]]:
    tensors = {key: torch.from_numpy(value) for key, value in random_weights(SMALL_SPEC).items()}
    save_checkpoint(folder / "w.safetensors", SMALL_SPEC, random_weights(SMALL_SPEC), {"licence": "x"})
    torch.save(tensors, folder / "w.pt")
    torch.save(tensors, folder / "old.pt", _use_new_zipfile_serialization=False)
    whole = {name: (folder / name).read_bytes() for name in ("w.safetensors", "w.pt", "old.pt")}
    while True:
        kind = rng.random()
        if kind < 0.5:
            name = rng.choice(sorted(whole))
            done, data = damaged(rng, whole[name])
            yield f"{name}, {done}", lambda name=name, data=data: _load(folder / name, data)
        elif kind < 0.7:
            done, data = _odd_header(rng, whole["w.safetensors"])
            yield f"header, {done}", lambda data=data: _load(folder / "w.safetensors", data)
        elif kind < 0.85:
            done, spec = changed(rng, SMALL_SPEC.to_dict())
            yield f"specification, {done}", lambda spec=spec: NetworkSpec.from_dict(spec).weight_shapes()
        else:
            key, value, old = rng.choice(sorted(tensors)), rng.choice((*ODD_TENSORS, *ODD_VALUES)), rng.random() < 0.5
            whole_thing = rng.random() < 0.2
            odd = value if whole_thing else OrderedDict({**tensors, key: value})
            yield f"state dict, {key} is {type(value).__name__}, old {old}", lambda odd=odd, old=old: _load_saved(
                folder / "odd.pt", odd, old)


def _odd_header(rng: random.Random, data: bytes) -> tuple[str, bytes]:
    (size,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8: 8 + size])
    done, header = changed(rng, header)
    try:
        text = json.dumps(header, default=str, skipkeys=True).encode()
    except (RecursionError, ValueError):
        text = b"[" * 3000
    return done, struct.pack("<Q", len(text)) + text + data[8 + size:]


def _load(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    spec, weights, metadata = load_checkpoint(path, SMALL_SPEC)
    assert spec == SMALL_SPEC and {k: v.shape for k, v in weights.items()} == SMALL_SPEC.weight_shapes()
    assert all(v.dtype == np.float32 and np.isfinite(v).all() for v in weights.values())
    assert all(isinstance(k, str) and isinstance(v, str) for k, v in metadata.items())


def _load_saved(path: Path, odd: object, old: bool) -> None:
    try:
        torch.save(odd, path, _use_new_zipfile_serialization=not old)
    except Exception:  # what cannot be saved is no file to read
        return
    _load(path, path.read_bytes())
