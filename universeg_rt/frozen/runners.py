"""Runs a frozen file on a CPU by ONNX Runtime or OpenVINO; and chooses among these, the native kernels (native.py) and
the GPU's (gpu.py)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from ..bundle.model_bytes import ModelBytes
from ..errors import EngineError, InputError, RunnerError, first_line
from ..named_types import Floats
from ..runners.cpu.onnxruntime import module as onnxruntime_module
from ..runners.cpu.onnxruntime import quiet_options
from ..runners.cpu.openvino import settings, started
from ..runners.libraries import open_session
from ..runners.options import Options
from ..runners.threads import cores
from ..spec import NetworkSpec
from .base import FrozenRunner, logits_of, readable
from .gpu import CudaFrozen, TensorRTFrozen, TensorRTRTXFrozen
from .native import Native, open_native

log = logging.getLogger(__name__)


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
        openvino, core, _ = started()
        model, self._output = readable(model, kind)
        self.threads = options.threads or cores()
        self.device = "CPU"
        try:
            self._compiled: Any = core.compile_model(core.read_model(model), "CPU", settings(self.threads))
        except Exception as error:  # OpenVINO raises many types of its own
            raise RunnerError(f"OpenVINO cannot load this file: {first_line(error)}") from None

    def run(self, queries: Floats) -> Floats:
        try:
            return logits_of(self._compiled.create_infer_request().infer({"query": queries})[0], self._output)
        except Exception as error:  # as above
            raise RunnerError(f"OpenVINO failed: {first_line(error)}") from None


RUNNERS: Mapping[str, Callable[[bytes, str, NetworkSpec, Options], FrozenRunner]] = {
    TensorRTFrozen.name: TensorRTFrozen, TensorRTRTXFrozen.name: TensorRTRTXFrozen, CudaFrozen.name: CudaFrozen,
    Native.name: open_native, OnnxRuntime.name: OnnxRuntime, OpenVino.name: OpenVino}


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
