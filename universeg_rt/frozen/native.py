"""Frozen files by this package's own CPU kernels, in float32: a static network alone, or the folded one with the
support that the file holds."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy

import numpy as np

from ..bundle.onnx_bind import STORED
from ..bundle.onnx_file import metadata, tensors
from ..errors import RunnerError
from ..named_types import Floats
from ..predictor import sigmoid
from ..runners.cpu.native import NativeRunner, check_instructions, native_part, places
from ..runners.cpu.native_weights import FIRST, FIRST_BLOCK, first_block
from ..runners.options import Options
from ..runners.threads import cores
from ..spec import NetworkSpec
from .base import FrozenRunner, logits_of
from .record import INT8, PRECISION, PROBABILITY, SINGLE, STATIC, constant_name


class Native(FrozenRunner):
    """A static file."""

    name, precision = "native", SINGLE

    def __init__(self, model: bytes, kind: str, spec: NetworkSpec, options: Options) -> None:
        native = native_part()
        with _opening(model, spec) as held:
            self._network = native.StaticNetwork(_static_arrays(held, spec), places(spec), spec.negative_slope,
                                                 options.instruction_set, options.threads or cores())
            maps = [stored_constant(held, constant_name(block)) for block in spec.blocks()]
            self._constants = self._network.constants(maps)
        self.device = f"CPU, {self._network.instructions}"
        self.threads = self._network.threads

    def with_constants(self, maps: Sequence[Floats]) -> Native:
        other = copy(self)
        other._constants = self._network.constants(list(maps))
        return other

    def run(self, queries: Floats) -> Floats:
        try:
            logits: Floats = self._network.run(self._constants, queries[:, 0])[:, None]
        except MemoryError:
            raise RunnerError("not enough memory for these images; give fewer at once") from None
        return logits

    def loops(self, queries: Floats) -> list[tuple[int, list[float]]]:
        """As `NativeRunner.loops`, of queries as `run` takes them."""
        found: list[tuple[int, list[float]]] = self._network.loops(self._constants, queries[:, 0])
        return found


class NativeExact(FrozenRunner):
    """An exact file, whose support is prepared when it is opened. Members that drew the same set share it, as they do
    in a Task."""

    name, precision = "native", SINGLE

    def __init__(self, model: bytes, kind: str, spec: NetworkSpec, options: Options) -> None:
        with _opening(model, spec) as held:
            self._runner = NativeRunner(_exact_arrays(held, spec), spec, options.threads, options.instruction_set)
            images, labels, weights = held["support_images"], held[f"support_labels{STORED}"], held["weights"]
            if not np.isfinite(images).all():
                raise ValueError("its support holds NaN or infinity")
            sets: dict[bytes, list[int]] = {}
            for place in range(len(images)):
                drawn = b"".join(each[place].tobytes() for each in (images, labels, weights))
                sets.setdefault(hashlib.sha256(drawn).digest(), []).append(place)
            first = [same[0] for same in sets.values()]
            support = np.concatenate([images[first], labels[first]], axis=2, dtype=np.float32)
            self._prepared = self._runner.prepare(support, weights[first])
            self._shares = np.array([len(same) for same in sets.values()]) / len(images)
        self.device, self.notes = self._runner.device, self._runner.notes
        self.threads = self._runner.threads or 1

    def run(self, queries: Floats) -> Floats:
        logits = self._runner.run(self._prepared, queries)
        if len(self._shares) == 1:
            return logits[:, 0]
        return logits_of(np.average(sigmoid(logits), axis=1, weights=self._shares), PROBABILITY)


def open_native(model: bytes, kind: str, spec: NetworkSpec, options: Options) -> FrozenRunner:
    """The runner of the file's kind; raises as FrozenRunner, and InputError for instructions that are not here."""
    check_instructions(options.instruction_set)
    return (Native if kind == STATIC else NativeExact)(model, kind, spec, options)


def stored_constant(held: Mapping[str, Floats], name: str) -> Floats:
    """(C,h,w) float32 from the tensors of a static model in floating point, of whatever type it is stored in."""
    stored = held[name + STORED] if name + STORED in held else held[name]
    out: Floats = stored[0].astype(np.float32)
    if not np.isfinite(out).all():
        raise ValueError(f"{name} holds NaN or infinity")
    return out


@contextmanager
def _opening(model: bytes, spec: NetworkSpec) -> Iterator[Mapping[str, Floats]]:
    """The model's tensors; RunnerError where the native runner cannot run it, whatever tells so."""
    if metadata(model).get(PRECISION) == INT8:
        raise RunnerError(
            "the native runner computes frozen files in float32, not in int8; use runner='onnxruntime', or freeze "
            "without int8")
    try:
        if spec.cross_activation != "none":
            raise ValueError("its cross convolution has an activation")
        if spec.downsample != "max_pool":
            raise ValueError(f"its downsampling is {spec.downsample}")
        yield tensors(model)
    except MemoryError:
        raise RunnerError(
            "not enough memory for this frozen file; give this process more, or freeze a smaller support") from None
    except (ValueError, KeyError, IndexError, AttributeError) as error:
        said = f"it has no tensor {error}" if isinstance(error, KeyError) else error
        raise RunnerError(f"the native runner cannot run this file ({said}); use runner='onnxruntime'") from None


def _static_arrays(held: Mapping[str, Floats], spec: NetworkSpec) -> dict[str, Floats]:
    """The native runner's arrays from a static model's initialisers (export/emit/static.py names them)."""
    arrays = {"head.weight": held["head/weight"].reshape(-1), "head.bias": held["head/bias"]}
    for block in spec.blocks():
        if block.is_first:
            kernels = [held[f"{block.label}/target/{name or 'composed'}/weight"] for name in FIRST_BLOCK]
            label = ((0, 0), (0, 1), (0, 0), (0, 0))  # the kernel's second input, a label in the exact network: zero
            arrays[FIRST] = first_block([np.pad(kernel.astype(np.float32), label) for kernel in kernels])
        else:
            arrays[f"{block.index}.query.weight"] = held[f"{block.label}/query_term/weight"]
            arrays[f"{block.index}.target.weight"] = held[f"{block.label}/target/weight"]
    return _as_float32(arrays)


def _exact_arrays(held: Mapping[str, Floats], spec: NetworkSpec) -> dict[str, Floats]:
    """The native runner's arrays (export/emit/native.py) from a whole model's initialisers (export/emit/layers.py names
    them). KeyError where the model is not folded as the native runner needs it."""
    arrays = {"head.weight": held["head/weight"].reshape(-1), "head.bias": held["head/bias"]}
    for block in spec.blocks():
        layers = {"cross": "query_term", "target": "target", "support": "support_query_term"}
        for name, layer in layers.items():
            if name != "support" or not block.is_last:  # nothing reads its entries
                for part in ("weight", "bias"):
                    arrays[f"{block.index}.{name}.{part}"] = held[f"{block.label}/{layer}/{part}"]
        cross = f"{block.index}.cross.weight"
        arrays[cross] = np.concatenate([arrays[cross], held[f"{block.label}/mean_term/weight"]], axis=1)
        if block.is_first:
            kernels = [held[f"{block.label}/{name or 'composed'}/weight"] for name in FIRST_BLOCK]
            arrays[FIRST] = first_block([kernel.astype(np.float32) for kernel in kernels])
    return _as_float32(arrays)


def _as_float32(arrays: Mapping[str, Floats]) -> dict[str, Floats]:
    return {name: np.ascontiguousarray(value, np.float32) for name, value in arrays.items()}
