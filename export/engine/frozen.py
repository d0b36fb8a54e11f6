"""Engines of static frozen tasks: one input, one profile over the batch, no plugin; a file beside the task's."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from universeg_rt.bundle.bundle import Bundle
from universeg_rt.bundle.engine import EngineEntry, Profile
from universeg_rt.bundle.model_bytes import ModelBytes
from universeg_rt.bundle.onnx_bind import bind
from universeg_rt.bundle.onnx_file import metadata, tensors
from universeg_rt.errors import InputError
from universeg_rt.frozen import engine_file
from universeg_rt.frozen.base import readable
from universeg_rt.frozen.native import stored_constant
from universeg_rt.frozen.record import INT8, PROBABILITY, STATIC, constant_name
from universeg_rt.frozen_task import FrozenTask
from universeg_rt.precision import PRECISIONS

from .build import EngineOptions, Outcome, Progress, check_memory, fingerprint_of
from .process import Worker

WEIGHTS = "universeg.weights_sha256"


def build_frozen(task: Path, options: EngineOptions, output: Path | None, bundle: Bundle | None, progress: Progress,
                 say: Callable[[str], None]) -> Outcome:
    """Build the engine of a frozen file, and write it to `output`, or to its place beside the task.

    options: of its profile the queries count. A precision that is not the file's is that of the bundle's static
    network, with the file's constants. Raises InputError where the file is not static or the bundle of other weights,
    EngineError where the library is missing or refuses.
    """
    from .model import for_builder, read_model

    with FrozenTask.open(task, runner="onnxruntime") as frozen:
        record, model, spec = frozen.record, frozen.model, frozen.spec
    if record.kind != STATIC:
        raise InputError(f"{task} is {record.kind}; engines are built for static frozen tasks: freeze it with --kind "
                         "static, or export a bundle's engines")
    if options.plugin is not None:
        raise InputError("--plugin: a frozen task has no mean over a support to compute; leave it out")
    (precision,) = options.precisions
    profile = Profile(options.profile.queries, entries=(1, 1, 1), image=record.grid)
    source = model if precision == record.precision else in_precision(model, precision, bundle, spec, record.grid)
    source, _ = readable(source, STATIC)
    copy = for_builder(read_model(ModelBytes(str(task), source)), profile, plugin=False)
    with progress(f"{task.name} {precision}") as report, Worker(options.builder) as worker:
        made = fingerprint_of(options, worker.hello, precision, hashlib.sha256(model).hexdigest())
        built = worker.build(options.request(copy), copy.model, [], report)
        check_memory(built, worker.hello, say)
    target = engine_file.place(task, options.builder, precision) if output is None else output
    entry = EngineEntry("whole", target.name, "", made, profile, built.memory_bytes)
    engine_file.write(target, entry, built.plan)
    return Outcome(entry, target.stat().st_size, True)


def in_precision(model: bytes, precision: str, bundle: Bundle | None, spec, grid: tuple[int, int]) -> bytes:
    """The bundle's static network of this precision with the constants of a frozen file."""
    if precision == INT8 or metadata(model).get("universeg.precision") == INT8:
        raise InputError("an engine in int8 is built from a file in int8, and one in floating point from one in "
                         "floating point; freeze the task so")
    bundle = bundle or Bundle.open()
    said = metadata(model).get(WEIGHTS)
    if said != bundle.manifest.weights_sha256:
        raise InputError(f"the task is of other weights than {bundle.path}; give --bundle with its own")
    held = tensors(model)
    constants = {name: stored_constant(held, name)[None].astype(PRECISIONS[precision].dtype)
                 for name in (constant_name(block) for block in spec.blocks())}
    return bind(bundle.load(precision, STATIC).whole(), constants, {}, outputs=[PROBABILITY], query_size=grid)
