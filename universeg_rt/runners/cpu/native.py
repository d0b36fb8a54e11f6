"""Runs the folded network by this package's own CPU kernels (kernels/cpu/): Winograd convolutions, streamed in pairs of
blocks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType

import numpy as np

from ...bundle.bundle import Bundle
from ...bundle.model_bytes import ModelBytes
from ...errors import BundleError, InputError, RunnerError
from ...named_types import Array, Doubles, Floats, Vendor
from ...precision import PRECISIONS
from ...spec import NetworkSpec
from ..base import Runner
from ..options import Options
from ..shared import PreparedSupport
from ..threads import cores
from .native_weights import TABLE, in_float, read_weights

INSTRUCTIONS = ("avx512", "avx2", "plain")
TOGETHER = 8  # queries, times members, in one call: they share what does not depend on them, and nothing interrupts it
NATIVE = tuple(name for name, precision in PRECISIONS.items() if precision.is_native)


class NativeRunner(Runner):
    """float32 arithmetic on the CPU, of the networks that `export/emit/native.py` writes; results do not depend on the
    number of threads. In int8 the maps of the support entries are held in 8 bits, but for those of blocks that the
    export left in float; the inner blocks' weights come in 8 bits and are expanded to float32 when the file is loaded,
    so they save no memory here.

    The option `instructions` forces one of INSTRUCTIONS; else that one is taken which has the least to do for the
    network's features, padded to whole vectors, of those that the processor has.
    """

    name = "native"

    def __init__(self, weights: ModelBytes | Mapping[str, Array], spec: NetworkSpec, threads: int | None = None,
                 instructions: str = "auto") -> None:
        """weights: a bundle's list of native weights, with the file that it names; or the arrays themselves. threads:
        default one a core.

        Raises RunnerError where the native part is not built, InputError for instructions that this processor lacks,
        BundleError (of arrays ValueError) that names the array where the weights cannot be read or do not fit the
        network.
        """
        _native = native_part()
        check_instructions(instructions)
        self.threads = threads or cores()
        self._native, self._spec = _native, spec
        arrays = read_weights(weights, spec) if isinstance(weights, ModelBytes) else in_float(weights, spec)
        try:
            self._network = _native.Network(arrays, places(spec), spec.negative_slope, instructions, self.threads)
        except ValueError as error:
            raise RunnerError(
                f"the native runner cannot run this network ({error}); use runner='onnxruntime'") from None
        except MemoryError:
            raise RunnerError(
                "not enough memory for the network; give this process more, or take fewer threads") from None
        if self._network.threads < self.threads:
            self.notes = (f"{self._network.threads} of {self.threads} threads: this process can start no more",)
            self.threads = self._network.threads
        self.precision = "int8" if TABLE in arrays else "fp32"
        self._share_in_int8 = _share_in_int8(arrays, spec)
        self._weight_bytes = sum(array.nbytes for array in arrays.values())
        self.device = f"CPU, {self._network.instructions}"

    @classmethod
    def open(cls, bundle: Bundle, precision: str, options: Options) -> NativeRunner:
        precision = "fp32" if precision == "auto" else precision
        if precision not in NATIVE:
            raise RunnerError(
                f"the native runner runs {' and '.join(NATIVE)}, not {precision}; use runner='onnxruntime' for that")
        try:
            bundle.model(precision, "native")
        except BundleError as error:  # others run such a bundle
            raise RunnerError(f"{error}, or use runner='onnxruntime'",
                              short=f"the bundle has no {precision} weights for it") from None
        return cls(bundle.load(precision, "native"), bundle.manifest.spec, options.threads, options.instruction_set)

    @classmethod
    def check_here(cls, options: Options) -> None:
        native_part()

    def _prepare(self, support: Floats, weights: Floats) -> list[Vendor]:
        self._check_size(support.shape[3:])
        sets = []
        for entries, row in zip(support, weights):
            used = row != 0  # entries of no weight pad the array; they change nothing
            with _memory_for_support():
                sets.append(
                    self._native.prepare(entries if used.all() else np.ascontiguousarray(entries[used]), row[used]))
        return sets

    def _run(self, sets: list[Vendor], queries: Floats) -> Floats:
        with _memory_for_support():
            some = max(1, TOGETHER // len(sets))
            found = [self._network.run(sets, queries[i : i + some, 0]) for i in range(0, len(queries), some)]
        return np.concatenate(found)[:, :, None]

    def _mean_constants(
        self, sets: list[Vendor], query: Floats, shares: Doubles
    ) -> tuple[Floats, list[Floats]]:
        logits = np.empty((len(sets), *query.shape), np.float32)
        sums: list[Floats] = []
        for k, (prepared, share) in enumerate(zip(sets, shares)):
            with _memory_for_support():
                logits[k], maps = self._network.run_with_constants([prepared], query)
            maps = [each[0, 0] * np.float32(share) for each in maps]
            sums = [total + each for total, each in zip(sums, maps)] if sums else maps
        return logits, sums

    def loops(self, prepared: PreparedSupport, query: Floats) -> list[tuple[int, list[float]]]:
        """Of the loops of a run on one query (1,1,H,W): the threads that each takes in, and its items' seconds, done
        one after the other."""
        found: list[tuple[int, list[float]]] = self._network.loops(prepared.value, query[:, 0])
        return found

    def peak_bytes(self, support_size: int, members: int, height: int, width: int) -> int:
        # Counted from kernels/cpu/inference/workspace.cpp: the process with its libraries; weights as they come and
        # transformed (36/9 of them); the support, ours and the caller's; maps of the query; of one chunk, and what is
        # kept of each entry.
        pixels = height * width
        full_map = max(self._spec.encoder_features + self._spec.decoder_features) * pixels * 4
        of_entries = (5.2 * full_map + 0.363 * full_map * support_size) * (1 - 0.75 * self._share_in_int8)
        return int(4.5e7 + 5 * self._weight_bytes + 1.6 * members * support_size * 2 * pixels * 4 + 9.6 * full_map +
                   of_entries)

    def _check_size(self, size: tuple[int, int]) -> None:
        multiple = self._spec.size_multiple
        if any(side < max(8, multiple) or side % multiple for side in size):
            raise InputError(
                f"images are {size[0]}x{size[1]}; height and width must be multiples of {multiple}, at least 8")


def native_part() -> ModuleType:
    """The compiled module; RunnerError where it is not built."""
    try:
        return import_module("universeg_rt._native")
    except ImportError as error:
        raise RunnerError(
            f"the native runner is not built here ({error}); reinstall universeg_rt where there is a C++ compiler, or "
            "use runner='onnxruntime'", short="not built here") from None


def check_instructions(instructions: str) -> None:
    """InputError where the native kernels do not know them, or this processor lacks them; RunnerError as
    `native_part`."""
    here = native_part().available()
    if instructions != "auto" and instructions not in here:
        known = instructions in INSTRUCTIONS
        raise InputError(
            f"instructions are {instructions!r}; {'this processor runs' if known else 'accepted here: auto,'} "
            f"{', '.join(here)}")


def places(spec: NetworkSpec) -> list[tuple[int, int, int, int, list[int], bool]]:
    """Each block's place in the network, as the native part takes it."""
    return [(b.features, b.query_channels, b.support_channels, b.level, [edge.block for edge in b.sources], b.is_halved)
            for b in spec.blocks()]


@contextmanager
def _memory_for_support() -> Iterator[None]:
    """Says the cure where memory runs out, in this thread or in one of the native part's."""
    try:
        yield
    except MemoryError:
        raise RunnerError(
            "not enough memory for this support; take fewer entries, smaller images or fewer threads") from None


def _share_in_int8(arrays: Mapping[str, Array], spec: NetworkSpec) -> float:
    """The share held in int8 of what is kept of each entry:
    the encoder blocks' outputs but for the first, in float32 bytes."""
    held = arrays.get(TABLE)
    if held is None:
        return 0.0
    kept = [block for block in spec.blocks() if not (block.is_first or block.is_decoder)]
    pixels = np.array([0.25**block.level for block in kept])
    return float((pixels * held[[block.index for block in kept], 0]).sum() / pixels.sum())
