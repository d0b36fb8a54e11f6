"""A static task in int8: weights and constant maps in a quarter of the bytes, calibrated on images of the task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

import universeg_rt
from universeg_rt.bundle.bundle import Bundle
from universeg_rt.bundle.onnx_bind import bind
from universeg_rt.bundle.onnx_file import tensors
from universeg_rt.errors import InputError
from universeg_rt.frozen import seal
from universeg_rt.frozen.native import stored_constant
from universeg_rt.frozen.record import INT8, KEY, PRECISION, STATIC, Record, constant_name
from universeg_rt.frozen.seal import sealed
from universeg_rt.frozen_task import FrozenTask
from universeg_rt.imaging.metrics import dice
from universeg_rt.predictor import sigmoid
from universeg_rt.runners import Options

from .emit import emit_static
from .emit.quantise import Quantisation, static_convolutions
from .folds import fold, fold_static
from .folds.folded import FoldedNetwork
from .int8.calibration import SAMPLE, best_scale, instrumented, sample


def int8_task(bundle: Bundle, frozen: FrozenTask, proxies: np.ndarray, labels: Sequence[np.ndarray] | None = None,
              *, cpu_kernels: bool = True) -> FrozenTask:
    """A static FrozenTask in int8, with what rounding costs in its price.

    frozen: static, in floating point, of this bundle. proxies: (N,1,H,W) float32 in [0, 1] on the task's grid, which
    calibrate the maps and are segmented by both. labels: theirs, (H,W) bool, where they are known. cpu_kernels: as
    `quantise_frozen`. Raises InputError for an exact task, one that is int8 already, and as `quantise_frozen`.
    """
    if frozen.kind != STATIC or frozen.record.precision == INT8:
        raise InputError(f"int8 is for static frozen tasks in floating point, not for {frozen.kind} ones in "
                         f"{frozen.record.precision}, and this one is so because: {frozen.reason}; take kind='static', "
                         "or leave int8 out")
    held = tensors(frozen.model)
    constants = {name: stored_constant(held, name)[None]
                 for name in (constant_name(block) for block in bundle.manifest.spec.blocks())}
    record = replace(frozen.record, precision=INT8)
    trial = _int8(bundle, constants, proxies, record, cpu_kernels)
    masks, expected = ([sigmoid(task.runner.run(query[None])[0, 0]) >= frozen.threshold for query in proxies]
                       for task in (trial, frozen))
    price = replace(record.price, int8_images=len(proxies), int8_agreement=_mean_dice(masks, expected))
    if labels is not None:
        price = replace(price, int8_dice=_mean_dice(masks, labels), float_dice=_mean_dice(expected, labels))
    # Only the record changes: the trial's model with the price in it.
    model = trial.model[: -seal.LENGTH]
    said = {KEY: replace(record, price=price).to_json()}
    return FrozenTask.of_bytes(
        sealed(bind(model, {}, said, outputs=None, query_size=frozen.grid)), "auto", Options(), frozen.notes)


def _int8(bundle: Bundle, constants: Mapping[str, np.ndarray], proxies: np.ndarray, record: Record,
          cpu_kernels: bool) -> FrozenTask:
    model = quantise_frozen(bundle, constants, proxies, {KEY: record.to_json()}, cpu_kernels=cpu_kernels)
    return FrozenTask.of_bytes(sealed(model), "auto", Options())


def _mean_dice(masks: Sequence[np.ndarray], others: Sequence[np.ndarray]) -> float:
    return float(np.mean([dice(mask, other) for mask, other in zip(masks, others, strict=True)]))


def quantise_frozen(bundle: Bundle, constants: Mapping[str, np.ndarray], queries: np.ndarray,
                    metadata: Mapping[str, str] | None = None, *, cpu_kernels: bool = True) -> bytes:
    """A frozen static task as one ONNX file in int8, for queries (B,1,H,W) of one size.

    constants: of the bundle's `static` template, (1,C,h,w) by the input's name, floating-point. queries: (N,1,H,W) in
    [0, 1], images of the task, on which the maps' scales are calibrated: its proxies. metadata: put into the file
    beside the bundle's. cpu_kernels: as ONNX Runtime's CPU kernels and OpenVINO want it; TensorRT wants it without.

    The first block and the head stay in float. Raises InputError for a network without a static form, constants that
    are not the template's, and queries of another shape or none.
    """
    network = fold_static(fold(bundle.manifest.spec, bundle.weights()))
    queries = np.asarray(queries, np.float32)
    constants = _checked(network, constants, queries)
    plan = _calibrated(network, constants, queries)
    plan = plan.for_cpu_kernels() if cpu_kernels else plan
    said = {**bundle.manifest.metadata, PRECISION: INT8}
    model = emit_static(network, said, universeg_rt.__version__, quantisation=plan, constants=constants)
    return bind(model.SerializeToString(deterministic=True), {}, metadata or {}, outputs=None,
                query_size=queries.shape[2:])


def _checked(network: FoldedNetwork, constants: Mapping[str, np.ndarray], queries: np.ndarray) -> dict[str, np.ndarray]:
    """The constants as float32; InputError where they or the queries do not fit the network."""
    multiple = network.spec.size_multiple
    if queries.ndim != 4 or queries.shape[1] != 1 or not len(queries) or any(s % multiple or not s
                                                                             for s in queries.shape[2:]):
        raise InputError(f"the queries to calibrate on have the shape {queries.shape}; give one or more, (N,1,H,W), "
                         f"with H and W multiples of {multiple}")
    height, width = queries.shape[2:]
    expected = {constant_name(block.spec): (1, block.features, height >> block.spec.level, width >> block.spec.level)
                for block in network.blocks}
    found = {name: np.shape(value) for name, value in constants.items()}
    if found != expected:
        wrong = sorted(name for name in {**found, **expected} if found.get(name) != expected.get(name))
        raise InputError(f"the constants {', '.join(wrong)} do not fit queries of {height}x{width}: "
                         f"{wrong[0]} has the shape {found.get(wrong[0])}, expected is {expected.get(wrong[0])}")
    return {name: np.asarray(value, np.float32) for name, value in constants.items()}


def _calibrated(network: FoldedNetwork, constants: Mapping[str, np.ndarray], queries: np.ndarray) -> Quantisation:
    """Scales of the maps around the quantised convolutions, from the float32 network's maps of the queries."""
    names, ends = static_convolutions(network)
    session, tensors = instrumented(emit_static(network, {}, "0"), names)
    values: dict[str, list[np.ndarray]] = {name: [] for name in sorted(set(tensors.values()))}
    for query in queries:
        for name, array in zip(values, session.run(list(values), {"query": query[None], **constants})):
            values[name].append(sample(np.abs(array.ravel()), SAMPLE))
    scales = {name: best_scale(np.concatenate(parts), name) for name, parts in values.items()}
    return Quantisation({name: scales[tensors[name, "input"]] for name in names},
                        {name: scales[tensors[name, "output"]] for name in ends})
