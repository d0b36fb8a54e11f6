"""The files of frozen tasks: a support as constants of the whole network, or constant maps in the static one."""

from __future__ import annotations

from abc import abstractmethod
from typing import Protocol

import numpy as np

from .bundle.bundle import Bundle
from .bundle.onnx_bind import bind
from .ensemble import Draw, Ensemble
from .errors import InputError
from .frozen.record import EXACT, KEY, SINGLE, STATIC, Price, Record, constant_name
from .frozen.seal import sealed
from .frozen_task import FrozenTask
from .named_types import Array, Floats
from .predictor import Predictor
from .runners import Options, Runner
from .runners.shared import PreparedSupport, SharedEntries, largest_set, written_out
from .support import Drawn, SupportSet

ENTRY_BYTES = 5  # of a pixel of an entry in an exact file: float32 image, label in a byte
LARGEST_ONNX = 2**31 - 2**20  # bytes: what protobuf reads, less some for names and the record

Maps = list[Floats]


class Opened(Protocol):
    """What freezing asks of a Segmenter."""

    bundle: Bundle
    runner: Runner

    @property
    def options(self) -> Options: ...


class Freezable(Predictor):
    """What it asks of a Task."""

    segmenter: Opened
    support: SupportSet
    ensemble: Ensemble

    @property
    @abstractmethod
    def draw(self) -> Draw: ...

    @property
    @abstractmethod
    def prepared(self) -> PreparedSupport | SharedEntries: ...


def static_task(
    task: Freezable, constants: Maps, reason: str, price: Price, proxies: str, half: bool, precision: str
) -> FrozenTask:
    record = _record(task, STATIC, reason, price, proxies, price.static_threshold, precision)
    model = sealed(with_constants(task, constants, half, record))
    return FrozenTask.of_bytes(model, "auto", task.segmenter.options, task.notes, entries=task.entries)


def exact_task(task: Freezable, reason: str, price: Price, threshold: float) -> FrozenTask:
    """The whole network with the support inside; labels in bytes, which loses nothing."""
    bundle, draw = task.segmenter.bundle, task.draw
    precision = task.segmenter.runner.precision
    network = bundle.load(precision, "whole").whole()
    entries = len(draw.places) * largest_set(draw.weights)
    size = len(network) + entries * (ENTRY_BYTES * task.grid[0] * task.grid[1])
    if size > LARGEST_ONNX:
        raise InputError(
            f"an exact file would hold {entries} entries, those of all members, in {size / 1e9:.1f} GB, and an ONNX "
            f"file holds up to {LARGEST_ONNX / 1e9:.1f} GB; prepare the task with fewer members or a smaller "
            "support_size, or take kind='static'")
    drawn = Drawn.of(task.support, draw.used, task.grid, task.aspect, task.normalise)
    support, weights = written_out(drawn.on_grid, draw.weights)
    # Members that drew the same set count as often as they did.
    support, weights = support[draw.places], weights[draw.places]
    record = _record(task, EXACT, reason, price, "none", threshold, precision)
    model = sealed(bind(
        network,
        {"support_images": support[:, :, :1], "support_labels": support[:, :, 1:].astype(np.uint8), "weights": weights},
        {KEY: record.to_json()},
        outputs=("probability",),
        query_size=task.grid,
    ))
    return FrozenTask(model, record, bundle.manifest.spec, None, task.notes, task, task.entries)


def stored(constants: Maps, half: bool) -> list[Array]:
    """The constant maps as a file holds them; InputError where half precision cannot."""
    if half and max(float(np.abs(each).max()) for each in constants) > np.finfo(np.float16).max:
        raise InputError("the constant maps of this task are too large for half precision; freeze with half=False")
    return [each.astype(np.float16 if half else np.float32) for each in constants]


def with_constants(task: Freezable, constants: Maps, half: bool, record: Record | None = None) -> bytes:
    """The static model with these constant maps inside; with a record in its precision, else in float32."""
    bundle, precision = task.segmenter.bundle, record.precision if record else SINGLE
    named = zip(bundle.manifest.spec.blocks(), stored(constants, half), strict=True)
    return bind(
        bundle.load(precision, STATIC).whole(),
        {constant_name(block): each[None] for block, each in named},
        {} if record is None else {KEY: record.to_json()},
        outputs=("probability",),
        query_size=task.grid,
    )


def _record(
    task: Freezable, kind: str, reason: str, price: Price, proxies: str, threshold: float, precision: str
) -> Record:
    manifest = task.segmenter.bundle.manifest
    return Record(
        kind, reason, task.grid, task.aspect, task.normalise, task.foreground, task.dims, task.support.sha256,
        len(task.support), task.ensemble.members, proxies, threshold, price, manifest.name, manifest.licence, precision,
        task.looks, task.support.label,
    )
