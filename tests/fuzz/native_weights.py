"""Weights of the native runner: damaged files, and whole ones with an array that is missing, foreign or of odd type,
shape or values."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from safetensors.numpy import save

from universeg_rt import Bundle
from universeg_rt.bundle.model_bytes import ModelBytes
from universeg_rt.bundle.weights import WEIGHTS, read_tensors
from universeg_rt.runners.cpu.native import NATIVE, NativeRunner
from universeg_rt.spec import NetworkSpec

from .mutate import damaged

SIZE = 32  # of the image that a file which opens is run on
VALUES = (0.0, -0.0, -1.0, 1.0, 2.0, 127.0, -128.0, 1e-45, 1e30, 3e38, np.nan, np.inf, -np.inf)
TYPES = ("<f4", "<f8", "<f2", "i1", "<i4", "<i8", "u1", "?")


def cases(rng: random.Random, folder: Path) -> Iterator[tuple[str, Callable[[], None]]]:
    bundle = Bundle.open()
    spec = bundle.manifest.spec
    files = {precision: bundle.load(precision, "native") for precision in NATIVE}
    while True:
        precision = rng.choice(NATIVE)
        model = files[precision]
        listed, numbers = model.data, model.external[WEIGHTS]
        how = rng.random()
        if how < 0.2:
            done, listed = damaged(rng, listed)
        elif how < 0.4:
            done, numbers = damaged(rng, numbers)
        else:
            done, arrays = _changed(rng, dict(read_tensors(numbers)))
            numbers = save({name: np.array(value) for name, value in arrays.items()})
            if rng.random() < 0.1:
                again, numbers = damaged(rng, numbers)
                done += f", {again}"
        yield f"{precision}, {done}", lambda listed=listed, numbers=numbers: _open(listed, numbers, spec)


def _open(listed: bytes, numbers: bytes, spec: NetworkSpec) -> None:
    runner = NativeRunner(ModelBytes("native.json", listed, {WEIGHTS: numbers}), spec, threads=1)
    support = np.zeros((1, 2, 2, SIZE, SIZE), np.float32)
    support[..., SIZE // 2 :] = 1
    runner.run(runner.prepare(support, np.full((1, 2), 0.5, np.float32)), support[:, 0, :1])


def _changed(rng: random.Random, arrays: dict[str, np.ndarray]) -> tuple[str, dict[str, np.ndarray]]:
    done = []
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        name = rng.choice(sorted(arrays))
        how = rng.choice((_left_out, _renamed, _retyped, _reshaped, _revalued, _revalued, _swapped))
        done.append(f"{how.__name__[1:]} {name}{how(rng, arrays, name)}")
    return ", ".join(done), arrays


def _left_out(rng: random.Random, arrays: dict[str, np.ndarray], name: str) -> str:
    del arrays[name]
    return ""


def _renamed(rng: random.Random, arrays: dict[str, np.ndarray], name: str) -> str:
    new = rng.choice(
        (name + "x", name.upper(), "9." + name, "int8", "../" + name, "native/int8/1.cross.scale", "\u00e9",
         name.replace("weight", "scale")))
    arrays[new] = arrays.pop(name)
    return f" to {new!r}"


def _retyped(rng: random.Random, arrays: dict[str, np.ndarray], name: str) -> str:
    kind, value = rng.choice(TYPES), arrays[name]
    if value.dtype.kind not in "fi":  # changed before
        value = np.zeros(value.shape, np.float32)
    with np.errstate(all="ignore"):
        arrays[name] = value.astype(kind)
    return f" to {kind}"


def _reshaped(rng: random.Random, arrays: dict[str, np.ndarray], name: str) -> str:
    value = arrays[name]
    arrays[name] = rng.choice(
        (value[:-1], value[:0], value[None], value.ravel(), value.T, value.sum(), np.concatenate([value, value]),
         np.zeros((1, ) * 20, value.dtype), np.zeros((0, 2**40), value.dtype), np.zeros(2**24, np.int8)))
    return f" to {arrays[name].shape}"


def _revalued(rng: random.Random, arrays: dict[str, np.ndarray], name: str) -> str:
    value, new = arrays[name].copy(), rng.choice(VALUES)
    share = rng.choice(("one", "all"))
    with np.errstate(all="ignore"):
        if value.size and value.dtype.kind in "fiu":
            number = np.array([new]).astype(value.dtype)[0]
            value.reshape(-1)[slice(None) if share == "all" else rng.randrange(value.size)] = number
    arrays[name] = value
    return f" {share} to {new}"


def _swapped(rng: random.Random, arrays: dict[str, np.ndarray], name: str) -> str:
    other = rng.choice(sorted(arrays))
    arrays[name], arrays[other] = arrays[other], arrays[name]
    return f" with {other}"
