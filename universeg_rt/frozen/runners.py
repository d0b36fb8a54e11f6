"""Runs a frozen file on a CPU: static ones by the native kernels, all of them by ONNX Runtime, static ones by OpenVINO;
and chooses among these and the GPU's (gpu.py)."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from copy import copy
from typing import Any

import numpy as np

from ..bundle.model_bytes import ModelBytes
from ..bundle.onnx_bind import STORED
from ..bundle.onnx_file import metadata, tensors
from ..errors import EngineError, InputError, RunnerError, first_line
from ..named_types import Floats
from ..runners.cpu.native import native_part, places
from ..runners.cpu.native_weights import FIRST_BLOCK, first_block
from ..runners.cpu.onnxruntime import module as onnxruntime_module
from ..runners.cpu.onnxruntime import quiet_options
from ..runners.cpu.openvino import settings, started
from ..runners.libraries import open_session
from ..runners.options import Options
from ..runners.threads import cores
from ..spec import NetworkSpec
from .base import FrozenRunner, logits_of, readable
from .gpu import CudaFrozen, TensorRTFrozen, TensorRTRTXFrozen
from .record import INT8, PRECISION, STATIC, constant_name

log = logging.getLogger(__name__)


class Native(FrozenRunner):
    name = "native"

    def __init__(self, model: bytes, kind: str, spec: NetworkSpec, options: Options) -> None:
        if kind != STATIC:
            raise RunnerError(f"the native runner runs static frozen files, not {kind} ones; use runner='onnxruntime'")
        if metadata(model).get(PRECISION) == INT8:
            raise RunnerError(
                "the native runner computes static frozen files in float32, not in int8; use runner='onnxruntime' or "
                "'openvino', or freeze without int8")
        native = native_part()
        threads = options.threads or cores()
        try:
            held = tensors(model)
            self._network = native.StaticNetwork(
                _arrays(held, spec), places(spec), spec.negative_slope, options.instruction_set, threads
            )
            maps = [stored_constant(held, constant_name(block)) for block in spec.blocks()]
            self._constants = self._network.constants(maps)
        except (ValueError, KeyError, IndexError, AttributeError) as error:
            raise RunnerError(f"the native runner cannot run this file ({error}); use runner='onnxruntime'") from None
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


class OnnxRuntime(FrozenRunner):
    name = "onnxruntime"

    def __init__(self, model: bytes, kind: str, spec: NetworkSpec, options: Options) -> None:
        ort = onnxruntime_module()
        model, self._output = readable(model, kind)
        self.threads = options.threads or cores()
        self.device = "CPU"
        session_options = quiet_options(ort, self.threads)
        try:
            held = ModelBytes("the frozen file", model)
            self._session = open_session(ort, held, session_options, ["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime raises many types of its own
            raise RunnerError(f"ONNX Runtime cannot load this file: {first_line(error)}") from None

    def run(self, queries: Floats) -> Floats:
        try:
            return logits_of(self._session.run([self._output], {"query": queries})[0], self._output)
        except Exception as error:  # as above
            raise RunnerError(f"ONNX Runtime failed: {first_line(error)}") from None


class OpenVino(FrozenRunner):
    name = "openvino"

    def __init__(self, model: bytes, kind: str, spec: NetworkSpec, options: Options) -> None:
        if kind != STATIC:
            raise RunnerError(f"OpenVINO runs static frozen files, not {kind} ones; use runner='onnxruntime'")
        openvino, core, _ = started()
        model, _ = readable(model, kind)
        self.threads = options.threads or cores()
        self.device = "CPU"
        try:
            self._compiled: Any = core.compile_model(core.read_model(model), "CPU", settings(self.threads))
        except Exception as error:  # OpenVINO raises many types of its own
            raise RunnerError(f"OpenVINO cannot load this file: {first_line(error)}") from None

    def run(self, queries: Floats) -> Floats:
        try:
            logits: Floats = self._compiled.create_infer_request().infer({"query": queries})[0]
            return logits
        except Exception as error:  # as above
            raise RunnerError(f"OpenVINO failed: {first_line(error)}") from None


RUNNERS: Mapping[str, type[FrozenRunner]] = {each.name: each for each in (
    TensorRTFrozen, TensorRTRTXFrozen, CudaFrozen, Native, OnnxRuntime, OpenVino)}


def open_frozen_runner(model: bytes, kind: str, spec: NetworkSpec, runner: str, options: Options) -> FrozenRunner:
    """Start a runner on a frozen model; `auto` takes the first of RUNNERS that starts. InputError for an unknown one,
    RunnerError where none starts."""
    if runner != "auto":
        if runner not in RUNNERS:
            raise InputError(f"runner is {runner!r}; accepted for a frozen task: auto, {', '.join(RUNNERS)}")
        chosen = RUNNERS[runner](model, kind, spec, options)
        chosen.reason = "asked for"
        return chosen
    errors = {}
    for name, each in RUNNERS.items():
        try:
            chosen = each(model, kind, spec, options)
        except (RunnerError, EngineError) as error:
            log.info("the runner %s does not start on this frozen task: %s", name, error)
            errors[name] = getattr(error, "short", None) or str(error)
            continue
        chosen.reason = "; ".join(("the fastest that starts here", *(f"not {n} ({e})" for n, e in errors.items())))
        return chosen
    raise RunnerError("no runner starts here: " + "; ".join(f"{name}: {error}" for name, error in errors.items()))


def _arrays(held: Mapping[str, Floats], spec: NetworkSpec) -> dict[str, Floats]:
    """The native runner's arrays from a static model's initialisers (export/emit/static.py names them)."""
    arrays = {"head.weight": held["head/weight"].reshape(-1), "head.bias": held["head/bias"]}
    for block in spec.blocks():
        if block.is_first:
            kernels = [held[f"{block.label}/target/{name or 'composed'}/weight"] for name in FIRST_BLOCK]
            label = ((0, 0), (0, 1), (0, 0), (0, 0))  # the kernel's second input, a label in the exact network: zero
            arrays["first"] = first_block([np.pad(kernel.astype(np.float32), label) for kernel in kernels])
        else:
            arrays[f"{block.index}.query.weight"] = held[f"{block.label}/query_term/weight"]
            arrays[f"{block.index}.target.weight"] = held[f"{block.label}/target/weight"]
    return {name: np.ascontiguousarray(value, np.float32) for name, value in arrays.items()}


def stored_constant(held: Mapping[str, Floats], name: str) -> Floats:
    """(C,h,w) float32 from the tensors of a static model in floating point, of whatever type it is stored in."""
    stored = held[name + STORED] if name + STORED in held else held[name]
    out: Floats = stored[0].astype(np.float32)
    if not np.isfinite(out).all():
        raise ValueError(f"{name} holds NaN or infinity")
    return out
