"""The models of each precision, and the one file of their numbers: written into a bundle's folder, opened as the parity
gate calls them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from universeg_rt.bundle.manifest import Models
from universeg_rt.bundle.model_bytes import ModelBytes
from universeg_rt.bundle.onnx_bind import giving
from universeg_rt.bundle.weights import WEIGHTS
from universeg_rt.errors import RunnerError
from universeg_rt.frozen.record import LOGITS, PROBABILITY, constant_name
from universeg_rt.precision import PRECISIONS
from universeg_rt.runners import libraries
from universeg_rt.runners.base import Runner
from universeg_rt.runners.cpu.native import NativeRunner
from universeg_rt.runners.cpu.onnxruntime import StreamedOnnxRuntime

from .emit import emit_predict, emit_prepare, emit_stages, emit_static, emit_whole
from .emit.native import emit_native, native_arrays
from .emit.quantise import Quantisation
from .emit.store import WeightStore
from .folds import fold_static
from .folds.constant_through_target import constant
from .folds.folded import FoldedNetwork
from .gate.parity import Model
from .gate.terms import SupportTerms

WHOLE, PREPARE, PREDICT, NATIVE = "model.onnx", "prepare.onnx", "predict.onnx", "native.json"
STATIC = "static.onnx"


@dataclass(frozen=True)
class Precision:
    """How models of this precision are emitted. All lie beside the weights, which ONNX wants; all but fp32's begin with
    its name."""

    name: str
    quantisation: Quantisation | None = None

    @property
    def dtype(self) -> type:
        return PRECISIONS[self.name].dtype

    @property
    def prefix(self) -> str:
        return "" if self.name == "fp32" else f"{self.name}."


def write_models(folder: Path, network: FoldedNetwork, weights: Mapping[str, np.ndarray],
                 precisions: Sequence[Precision], metadata: Mapping[str, str], version: str) -> dict[str, Models]:
    """Write every model of these precisions and their numbers below `folder`; the same network gives the same bytes.

    weights: the network's before folding, by state-dict key.
    """
    store = WeightStore()
    store.add_reference(network.spec, weights)
    made, graphs, files = {}, {}, {}
    for precision in precisions:
        said, prefix = {**metadata, "universeg.precision": precision.name}, precision.prefix
        given = (said, version, precision.dtype, precision.quantisation)
        emitted = {prefix + file: emit(network, *given)
                   for file, emit in ((WHOLE, emit_whole), (PREPARE, emit_prepare), (PREDICT, emit_predict))}
        kind = PRECISIONS[precision.name]
        is_static = kind.is_static and network.spec.cross_activation == "none"
        if is_static:
            emitted[prefix + STATIC] = emit_static(fold_static(network), *given)
        stages = [(stage.name, f"{prefix}stage.{position:02}_{stage.name}.onnx", stage.model)
                  for position, stage in enumerate(emit_stages(network, *given))]
        emitted.update((file, model) for _, file, model in stages)
        graphs.update((file, (model, store.add_graph(model))) for file, model in emitted.items())
        arrays = native_arrays(network, precision.quantisation) if kind.is_native else None
        if arrays is not None:
            files[prefix + NATIVE] = emit_native(arrays, store, said, network)
        made[precision.name] = Models(prefix + WHOLE, tuple((name, file) for name, file, _ in stages), prefix + PREPARE,
                                      prefix + PREDICT, None if arrays is None else prefix + NATIVE,
                                      prefix + STATIC if is_static else None)
    stored = store.file({**metadata, "universeg.kind": "weights"})
    folder.mkdir(parents=True, exist_ok=True)
    for file, data in (*files.items(), *((file, stored.move_out(*graph))
                                         for file, graph in graphs.items()), (WEIGHTS, stored.data)):
        (folder / file).write_bytes(data)
    return made


def open_models(folder: Path, models: Models, network: FoldedNetwork, terms: SupportTerms) -> dict[str, Model]:
    """All forms of a precision's network: whole, pair and streamed, native where it is built on this machine, and
    static with the terms of each query itself, where there is one."""
    opened = {
        "whole": whole_model(folder / models.whole),
        "pair": pair_model(folder / models.prepare, folder / models.predict),
        "streamed": runner_model(
            StreamedOnnxRuntime([(name, ModelBytes.of_file(folder / file)) for name, file in models.stages])),
    }
    if models.native is not None:
        with suppress(RunnerError):
            opened["native"] = runner_model(NativeRunner(ModelBytes.of_file(folder / models.native), network.spec))
    if models.static is not None:
        opened["static"] = static_model(folder / models.static, network, terms)
    return opened


def whole_model(model: Path | bytes) -> Model:
    """A whole model, its file or its bytes, on ONNX Runtime, as the parity gate calls it."""
    session = open_session(model)
    return lambda support, weights, query: session.run(["logits"], {"query": query, **support_feed(support, weights)})[0
                                                                                                                       ]


def pair_model(prepare: Path, predict: Path) -> Model:
    """The two halves of a network on ONNX Runtime, as the parity gate calls them."""
    first, second = open_session(prepare), open_session(predict)
    between = [output.name for output in first.get_outputs()]

    def run(support: np.ndarray, weights: np.ndarray, query: np.ndarray) -> np.ndarray:
        prepared = dict(zip(between, first.run(between, support_feed(support, weights))))
        return second.run(["logits"], {"query": query, **prepared})[0]

    return run


def static_model(template: Path, network: FoldedNetwork, terms: SupportTerms) -> Model:
    """A template on ONNX Runtime as the parity gate calls it: each member's constants are those of the query itself."""
    model = giving(ModelBytes.of_file(template).whole(), LOGITS, PROBABILITY)
    session, blocks = open_session(model), fold_static(network).blocks
    types = {given.name: np.float16 if "float16" in given.type else np.float32 for given in session.get_inputs()}

    def run(support: np.ndarray, weights: np.ndarray, query: np.ndarray) -> np.ndarray:
        out = []
        for entries, row in zip(support, weights):
            feed = {"query": query}
            for block, term in zip(blocks, terms(entries, row, query), strict=True):
                name = constant_name(block.spec)
                feed[name] = constant(block, term)[None].astype(types[name])
            out.append(session.run([LOGITS], feed)[0])
        return np.stack(out, axis=1)

    return run


def runner_model(runner: Runner) -> Model:
    """A runner that users have."""
    return lambda support, weights, query: runner.run(runner.prepare(support, weights), query)


def open_session(model: Path | bytes):
    """An ONNX Runtime session of a model's file or bytes on the CPU."""
    onnxruntime = libraries.import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    # Gigabytes at S = 64, K = 3: given back after each run, since several models are open at once.
    options.enable_cpu_mem_arena = False
    return onnxruntime.InferenceSession(
        str(model) if isinstance(model, Path) else model, options, providers=["CPUExecutionProvider"])


def support_feed(support: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Support (K,S,2,H,W) and weights (K,S) by the models' names of their inputs."""
    return {"support_images": np.ascontiguousarray(support[:, :, :1]),
            "support_labels": np.ascontiguousarray(support[:, :, 1:]), "weights": weights}
