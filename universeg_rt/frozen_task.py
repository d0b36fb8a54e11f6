"""FrozenTask: a task that needs neither support nor bundle; one ONNX file that any runtime runs."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from .answers.absence import Looks
from .bundle.manifest import LARGEST_FILE
from .bundle.onnx_bind import query_size
from .bundle.onnx_file import metadata
from .errors import BundleError, RunnerError, SpecError
from .frozen import engine_file, seal
from .frozen.base import FrozenRunner
from .frozen.record import IMAGE, Price, Record
from .frozen.runners import open_frozen_runner
from .named_types import AnyPath, Floats
from .predictor import Predictor, Ran
from .runners.options import Options
from .spec import NetworkSpec
from .storage.atomic import write_file
from .storage.reading import reading

SPEC = "universeg.spec"


class FrozenTask(Predictor):
    """A task whose support is part of the network; made by `Task.freeze`, or opened from a file. `predict` and
    so on as a Task has them.

    record: what the file says of itself, such as `record.kind` and `record.support_sha256`. kind: `static` or `exact`.
    reason: why this kind. price: what static costs on the support's own entries. The file has one input, `query`
    (B,1,h,w) float32 in [0, 1], and one output, `probability` (B,1,h,w); any ONNX runtime runs it.

    A static network gives one answer, the ensemble's members are in its constants: `spread` is zero, and logits, where
    they are asked for, are one map, which runners read before the file's last operation, the sigmoid. The file of an
    exact task gives one answer too, the mean over the members: its logits are computed from the probability, and one
    that float32 rounds to 1 counts as 16.6; of one member the native runner gives the network's own. The FrozenTask
    that `freeze` returned still runs on its Task, with all members, and closes with it. What is said of the support and
    of queries that are in it (`notes`) does not go into the file.
    """

    def __init__(
        self,
        model: bytes,
        record: Record,
        spec: NetworkSpec,
        runner: FrozenRunner | None,
        notes: tuple[str, ...] = (),
        task: Predictor | None = None,
        entries: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """model: the file's bytes. One of runner and task runs it: an exact task that is still there is faster.
        entries: as Predictor's; a file does not know them."""
        super().__init__(record.grid, record.aspect, record.normalise, notes, record.foreground, entries,
                         record.dims)
        self.record = record
        self.spec = spec
        self.threshold = record.threshold
        self._model = model
        self._runner = runner
        self._task = task
        self._said = Ran("", record.precision) if runner is None else Ran(
            runner.name, runner.precision or record.precision, runner.notes)
        self._asked: tuple[str, Options] = ("auto", Options())

    @classmethod
    def open(
        cls, path: AnyPath, *, runner: str = "auto", threads: int | None = None,
        instructions: str | None = None,
    ) -> FrozenTask:
        """Open a file that `save` or `universeg-export --freeze` wrote.

        runner: `tensorrt`, `tensorrt-rtx` (static files with an engine beside them), `onnxruntime-cuda`, `native`
        (not in int8), `onnxruntime`, `openvino`, or `auto` for the first that starts.
        threads, instructions: as `Segmenter.open`. Raises BundleError where the file cannot be read or is no frozen
        task, RunnerError where no runner runs it, InputError for an unknown runner or option.
        """
        with reading("a frozen task", path, BundleError):
            with open(path, "rb") as file:
                model = file.read(LARGEST_FILE)
        options = Options(threads, instructions=instructions, engines=engine_file.beside(Path(os.fsdecode(path))))
        return cls.of_bytes(model, runner, options, name=str(path))

    @classmethod
    def of_bytes(
        cls, model: bytes, runner: str, options: Options, notes: tuple[str, ...] = (), name: str = "the file",
        entries: Mapping[str, str] = MappingProxyType({}),
    ) -> FrozenTask:
        """A task from a file's bytes; raises as `open`."""
        record, spec = _read(model, name)
        opened = cls(model, record, spec, open_frozen_runner(model, record.kind, spec, runner, options), notes,
                     entries=entries)
        opened._asked = (runner, options)
        return opened

    @property
    def kind(self) -> str:
        return self.record.kind

    @property
    def reason(self) -> str:
        return self.record.reason

    @property
    def price(self) -> Price:
        return self.record.price

    @property
    def model(self) -> bytes:
        """The file's bytes."""
        return self._model

    @property
    def sha256(self) -> str:
        """Of the file's bytes."""
        return hashlib.sha256(self._model).hexdigest()

    @property
    def size(self) -> int:
        """Of the file, in bytes."""
        return len(self._model)

    @property
    def runner(self) -> FrozenRunner:
        """What runs the file; RunnerError where the FrozenTask is closed, or still runs on the Task that it was frozen
        from."""
        if self._task is not None:
            raise RunnerError("this FrozenTask runs on the Task that it was frozen from; open its file for a runner")
        if self._runner is None:
            raise RunnerError("this FrozenTask is closed; open its file again")
        return self._runner

    def save(self, path: AnyPath) -> None:
        """Write the ONNX file, whole or not at all; OutputError where it cannot be written."""
        with write_file(path) as file:
            file.write(self._model)

    def close(self) -> None:
        self._runner = self._task = None

    def __repr__(self) -> str:
        record = self.record
        state = "" if self._runner or self._task else ", closed"
        return (
            f"FrozenTask({record.bundle}, {record.kind}, {record.support_entries} entries, "
            f"{record.grid[0]}x{record.grid[1]}, {self.size / 1e6:.1f} MB{state})"
        )

    def __reduce__(self) -> tuple[object, ...]:
        if self._runner is None and self._task is None:
            raise RunnerError("a closed FrozenTask cannot be pickled; open its file again")
        return FrozenTask.of_bytes, (self._model, *self._asked, self.notes, "the file", dict(self.entries))

    @property
    def looks(self) -> Looks | None:
        return self.record.looks

    @property
    def _members(self) -> int:
        return 1 if self._task is None else self._task._members

    def _run(self, queries: Floats) -> Floats:
        task = self._task
        return self.runner.run(queries)[:, None] if task is None else task._run(queries)

    def _ran(self) -> Ran:
        return self._said if self._task is None else self._task._ran()


def _read(model: bytes, name: str) -> tuple[Record, NetworkSpec]:
    try:
        said: Mapping[str, str] = metadata(model)
        read = Record.from_metadata(said), NetworkSpec.from_json(said.get(SPEC, ""))
        seal.check(model)
        if IMAGE not in said and query_size(model) != read[0].grid:
            raise ValueError(f"its record states images of {read[0].grid}, its network takes {query_size(model)}")
    except (ValueError, TypeError, SpecError) as error:
        raise BundleError(
            f"{name} is no frozen task that this version reads ({error}); give a file that FrozenTask.save or "
            "universeg-export --freeze wrote"
        ) from None
    if IMAGE in said:
        raise BundleError(
            f"{name} prepares the image itself, for programs without universeg_rt; run it in an ONNX runtime, or "
            "freeze the task without --include-preprocessing")
    return read
