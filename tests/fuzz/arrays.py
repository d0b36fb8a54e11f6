"""Arrays and options from Python callers: odd types, shapes and values at every door of the SDK, on a runner that
computes nothing."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from universeg_rt import Ensemble, Segmenter, SupportSet
from universeg_rt.runners.base import Runner

from .mutate import ODD_VALUES

DTYPES = ("u1", "i1", "<u2", ">i2", "i4", "i8", ">u8", "f2", "f4", ">f8", "g", "c8", "?", "S3", "U2", "O", "M8[s]",
          "m8[s]", "V4", [("a", "f4"), ("b", "u1")])
SHAPES = ((20, 20), (2, 20, 20), (2, 20, 15), (1, 20, 20), (0, 20, 20), (2, 0, 20), (20, ), (), (2, 20, 20, 1),
          (3, 20, 20), (2, 1, 1), (2, 2, 3), (1, 2, 20, 20))
SPECIAL = (0, 1, -1, 255, 2**31, 2**62, -(2**63), 2**63 - 1, float("nan"), float("inf"), -float("inf"), 5e-324, 1e-310,
           1.7e308, -1.7e308)


class Still(Runner):
    """Gives the query as logits for every set."""

    name = "still"

    @classmethod
    def open(cls, bundle, precision, options):
        return cls()

    def _prepare(self, support, weights):
        return len(support)

    def _run(self, prepared, queries):
        return np.repeat(queries[:, None] - np.float32(0.5), prepared, axis=1)

    def peak_bytes(self, support_size, members, height, width):
        return support_size * members


class Stubborn:
    """No array can be made of it."""

    def __array__(self, *_, **__):
        raise RuntimeError("not this time")


def cases(rng: random.Random, folder: Path) -> Iterator[tuple[str, Callable[[], object]]]:
    manifest = SimpleNamespace(input=SimpleNamespace(height=16, width=16))
    segmenter = Segmenter(SimpleNamespace(manifest=manifest), Still())
    images, labels = discs(4, 20)
    support = SupportSet.from_arrays(images, labels)
    task = segmenter.prepare(support)
    while True:
        kind = rng.choice(
            ("support", "support", "support", "query", "query", "batch", "ensemble", "prepare", "subset", "estimate"))
        if kind == "support":
            given = {"images": images, "labels": labels, "names": None}
            done = []
            for key in rng.sample(sorted(given), rng.choice((1, 1, 2))):
                how, given[key] = odd_value(rng, key)
                done.append(f"{key} {how}")
            yield f"support, {', '.join(done)}", lambda g=given: _prepare(segmenter, SupportSet.from_arrays(**g))
        elif kind in ("query", "batch"):
            how, value = odd_value(rng, "images")
            if kind == "batch" and rng.random() < 0.5:
                value = [images[0], value]
            call = task.predict if kind == "query" else task.predict_batch
            yield f"{kind} {how}", lambda call=call, value=value: _sound(call(value))
        elif kind in ("ensemble", "prepare"):
            options = {
                "members": rng.choice((1, 3)), "support_size": rng.choice((None, 2)), "replacement": rng.random() < 0.5,
                "seed": 3
            }
            name = rng.choice(sorted(options))
            options[name] = rng.choice(ODD_VALUES)
            given = [support, rng.choice(ODD_VALUES)] if kind == "prepare" else None
            aspect = rng.choice(("stretch", "pad", *ODD_VALUES, images))
            if given is None:
                yield f"ensemble {name} {options[name]!r:.40}", lambda o=options: segmenter.prepare(
                    support, Ensemble(**_bounded(o)))
            else:
                yield f"prepare {given[1]!r:.40}, aspect {aspect!r:.40}", lambda g=given, a=aspect: segmenter.prepare(
                    *g, aspect=a)
        elif kind == "subset":
            how, indices = odd_value(rng, "indices")
            if rng.random() < 0.5:
                how, indices = "odd", [rng.choice(ODD_VALUES), 0]
            yield f"subset {how} {indices!r:.60}", lambda i=indices: support.subset(i)
        else:
            size, members = rng.choice(ODD_VALUES), rng.choice((1, *ODD_VALUES))
            yield f"estimate {size!r:.40} {members!r:.40}", lambda s=size, m=members: segmenter.estimate(s, m)


def _bounded(options: dict) -> dict:
    """Large draws that are allowed are slow, and show nothing."""
    size = options["support_size"]
    return {**options, "support_size": size % 1000 if type(size) is int and 1000 < size <= 100_000 else size}


def _prepare(segmenter: Segmenter, support: SupportSet) -> None:
    assert len(support.images) == len(support.labels) == len(support.names)
    assert any(label.any() for label in support.labels)
    _sound([segmenter.prepare(support, aspect="pad").predict(support.images[0])])


def _sound(predictions: object) -> None:
    for prediction in predictions if isinstance(predictions, list) else [predictions]:
        assert prediction.mask.dtype == bool
        assert np.isfinite(prediction.probability).all() and np.isfinite(prediction.spread).all()


def discs(count: int, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Images (N,H,W) uint8 with a bright disc each, and the discs as labels bool."""
    y, x = np.mgrid[:side, :side]
    labels = np.stack([(y - side / 2) ** 2 + (x - side / 3 - i) ** 2 < (side / 4) ** 2 for i in range(count)])
    return (60 + 120 * labels + (y * 7 + x * 3) % 40).astype(np.uint8), labels


def odd_value(rng: random.Random, role: str) -> tuple[str, object]:
    """(what it is, an odd thing to give in the place of `images`, `labels`, `names` or `indices`)."""
    kind = rng.choice(("array", "array", "array", "array", "list", "plain", "object"))
    if kind == "array":
        return odd_array(rng, role)
    if kind == "list":
        parts = [
            odd_array(rng, role) if rng.random() < 0.6 else ("plain", rng.choice(ODD_VALUES))
            for _ in range(rng.choice((1, 2, 4)))
        ]
        return f"list of {[how for how, _ in parts]}", [value for _, value in parts]
    if kind == "plain":
        value = rng.choice(ODD_VALUES)
        return f"{value!r:.40}", value
    value = rng.choice((
        Stubborn(), [Stubborn()] * 4, range(4), {1, 2, 3, 4}, (i for i in range(4)), memoryview(b"abcd"),
        [[1, 2], [3]], [[[1, 2], [3]]] * 4, np.broadcast_to(np.uint8(1), (60_000, 60_000)),
        np.broadcast_to(np.float64(1), (4, 60_000, 60_000)), len, Ellipsis))
    return f"object {type(value).__name__}", value


def odd_array(rng: random.Random, role: str) -> tuple[str, np.ndarray]:
    """(what it is, an array that may or may not do as `role`)."""
    dtype, shape = np.dtype(rng.choice(DTYPES)), rng.choice(SHAPES)
    source = np.random.default_rng(rng.getrandbits(32))
    base = source.integers(0, 2 if role.startswith("label") else 256, shape)
    with np.errstate(all="ignore"):
        try:
            array = np.array(base.astype(dtype))
        except (TypeError, ValueError):
            array = np.zeros(shape, dtype)
    done = [f"{dtype} {shape}"]
    for _ in range(rng.choice((0, 0, 1, 2))):
        how = rng.choice(("special", "special", "constant", "masked", "strided", "matrix", "scaled"))
        value, at = rng.choice(SPECIAL), rng.random()
        array = _changed(array, how, value, at)
        done.append(f"{how} {value}" if how in ("special", "constant") else how)
    return ", ".join(done), array


def _changed(array: np.ndarray, how: str, value: float, at: float) -> np.ndarray:
    with np.errstate(all="ignore"):
        try:
            if how == "special" and array.size:
                array = array.copy()
                array.flat[int(at * array.size)] = value
            elif how == "constant":
                array = np.full_like(array, value)
            elif how == "masked":
                array = np.ma.array(array, mask=np.arange(array.size).reshape(array.shape) % 7 == int(at * 9))
            elif how == "strided":
                array = array[..., ::-1].T if array.ndim else array
            elif how == "matrix" and array.ndim == 2:
                array = np.asmatrix(array)
            elif how == "scaled":
                array = np.asarray(array * np.asarray(value).astype(array.dtype))
        except (TypeError, ValueError, OverflowError):  # this type does not bear it
            pass
    return array
