"""Runs the folded network by this package's own CPU kernels (kernels/cpu/): Winograd convolutions, streamed in pairs of blocks."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from ..bundle import Bundle
from ..errors import BundleError, InputError, RunnerError
from ..spec import NetworkSpec
from .base import Runner
from .threads import cores

INSTRUCTIONS = ("avx512", "avx2", "plain")
PRECISIONS = ("fp32", "int8")


class NativeRunner(Runner):
    """float32 arithmetic on the CPU, of the networks that `export/emit/native.py` writes; results do not depend on the number of
    threads. In int8 the weights come, and the maps of the support entries are held, in 8 bits, but for those of blocks that the
    export left in float.

    The environment variable UNIVERSEG_INSTRUCTIONS forces one of INSTRUCTIONS; else the best that the processor has is taken.
    """

    name = "native"

    def __init__(self, weights: Path, spec: NetworkSpec, threads: int | None = None, instructions: str = "auto") -> None:
        """weights: a `.npz` of `export/emit/native.py`. threads: default one a core.

        Raises RunnerError where the native part is not built, InputError for instructions that this processor lacks,
        BundleError where the weights cannot be read or do not fit the network.
        """
        try:
            from .. import _native
        except ImportError as error:
            raise RunnerError(
                f"the native runner is not built here ({error}); reinstall universeg_rt where there is a C++ compiler, or use "
                "runner='onnxruntime'", short="not built here") from None
        here = _native.available()
        if instructions != "auto" and instructions not in here:
            known = instructions in INSTRUCTIONS
            raise InputError(f"instructions are {instructions!r}; {'this processor runs' if known else 'accepted here: auto,'} "
                             f"{', '.join(here)}")
        self.threads = threads or cores()
        self._native, self._spec = _native, spec
        try:
            with np.load(weights, allow_pickle=False) as file:
                arrays = _in_float(dict(file))
            self._network = _native.Network(arrays, list(spec.encoder_features), list(spec.decoder_features),
                                            spec.negative_slope, instructions, self.threads)
        except MemoryError:
            raise RunnerError("not enough memory for the network; give this process more, or take fewer threads") from None
        except (OSError, ValueError, KeyError, BadZipFile) as error:
            raise BundleError(f"{weights} cannot be used ({error}); export the bundle again, or copy it again") from None
        if self._network.threads < self.threads:
            self.notes = (f"{self._network.threads} of {self.threads} threads: this process can start no more",)
        self.precision = "int8" if "int8" in arrays else "fp32"
        self._share_in_int8 = _share_in_int8(arrays, len(spec.encoder_features))
        self._weight_bytes = sum(array.nbytes for array in arrays.values())
        self.device = f"CPU, {self._network.instructions}"

    @classmethod
    def open(cls, bundle: Bundle, precision: str, threads: int | None) -> NativeRunner:
        precision = "fp32" if precision == "auto" else precision
        if precision not in PRECISIONS:
            raise RunnerError(f"the native runner runs {' and '.join(PRECISIONS)}, not {precision}; use runner='onnxruntime' for that")
        try:
            weights = bundle.model(precision, "native")
        except BundleError as error:  # others run such a bundle
            raise RunnerError(f"{error}, or use runner='onnxruntime'", short=f"the bundle has no {precision} weights for it") from None
        return cls(weights, bundle.manifest.spec, threads, os.environ.get("UNIVERSEG_INSTRUCTIONS", "auto"))

    def _prepare(self, support: np.ndarray, weights: np.ndarray) -> list:
        self._check_size(support.shape[3:])
        sets = []
        for entries, row in zip(support, weights):
            used = row != 0  # entries of no weight pad the array; they change nothing
            with _memory_for_support():
                sets.append(self._native.prepare(entries if used.all() else np.ascontiguousarray(entries[used]), row[used]))
        return [support.shape[3:], sets]

    def _run(self, prepared: list, queries: np.ndarray) -> np.ndarray:
        size, sets = prepared
        if queries.shape[2:] != size:
            raise InputError(f"queries are {queries.shape[2:]}, the support was prepared at {size}")
        with _memory_for_support():
            return np.stack([self._network.run(sets, query[0]) for query in queries])[:, :, None]

    def peak_bytes(self, support_size: int, members: int, height: int, width: int) -> int:
        # Counted from kernels/cpu/workspace.cpp: the process with its libraries; weights as they come and transformed (36/9 of
        # them); the support, ours and the caller's; maps of the query; of one chunk, and what is kept of each entry.
        pixels = height * width
        full_map = max(self._spec.encoder_features + self._spec.decoder_features) * pixels * 4
        of_entries = (5.2 * full_map + 0.363 * full_map * support_size) * (1 - 0.75 * self._share_in_int8)
        return int(4.5e7 + 5 * self._weight_bytes + 1.6 * members * support_size * 2 * pixels * 4 + 9.6 * full_map + of_entries)

    def _check_size(self, size: tuple[int, int]) -> None:
        multiple = self._spec.size_multiple
        if any(side < max(8, multiple) or side % multiple for side in size):
            raise InputError(f"images are {size[0]}x{size[1]}; height and width must be multiples of {multiple}, at least 8")


@contextmanager
def _memory_for_support() -> Iterator[None]:
    """Says the cure where memory runs out, in this thread or in one of the native part's."""
    try:
        yield
    except MemoryError:
        raise RunnerError("not enough memory for this support; take fewer entries, smaller images or fewer threads") from None


def _share_in_int8(arrays: dict[str, np.ndarray], encoders: int) -> float:
    """Of the bytes that are kept of each entry (the encoder blocks' outputs, but for the first), in float32, those held in int8."""
    held = arrays.get("int8")
    if held is None:
        return 0.0
    pixels = 0.25 ** np.arange(1, encoders)
    return float((pixels * held[1:encoders, 0]).sum() / pixels.sum())


def _in_float(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Weights of int8 times their scales (out, parts), each of its equal part of the inputs; ValueError where they do not fit."""
    for name in [name for name, value in arrays.items() if name.endswith(".weight") and value.dtype == np.int8]:
        weight, scale = arrays[name], arrays.pop(f"{name.removesuffix('.weight')}.scale")
        if scale.ndim != 2 or scale.shape[0] != weight.shape[0] or weight.shape[1] % scale.shape[1]:
            raise ValueError(f"the scales {scale.shape} of array {name} do not fit its {weight.shape}")
        parts = weight.reshape(*scale.shape, -1).astype(np.float32) * scale[..., None]
        arrays[name] = parts.reshape(weight.shape)
    return arrays
