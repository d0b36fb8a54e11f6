"""The stages of a bundle on OpenVINO's CPU plugin, streamed, with what it compiled kept in a cache.

An extra: `pip install '.[openvino]'` in a clone. The cache lies in `$UNIVERSEG_RT_CACHE/openvino` (default: the user's
cache folder), in a folder named after OpenVINO's version and the processor, then one named after the bundle's sha256;
what another version wrote is neither used nor touched. `Runner.notes` says where the cache was of no use.
"""

from __future__ import annotations

import functools
import hashlib
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from types import ModuleType

import numpy as np

from ...bundle.bundle import Bundle
from ...bundle.model_bytes import ModelBytes
from ...errors import RunnerError
from ...install import install_hint
from ...named_types import Floats, Vendor
from ...storage.cache import CachedFiles
from ..libraries import import_openvino
from ..options import Options
from .streaming import StagedRunner, StageSession

CONVERSION = 1  # counts up when openvino_ops.py changes what it builds
_creating = threading.Lock()


def shared_core() -> Vendor:
    """The one openvino.Core of this process, with our operators, kept until the process ends.

    The CPU plugin of each Core gives the thread a stack for signals and puts the one before it back when it goes. Of
    two that go in the order in which they came, the thread keeps the first one's, whose memory is gone, and the next
    signal that Python handles (of a child that ended, Ctrl-C) ends the process (seen with OpenVINO 2026.4).
    """
    with _creating:
        return _new_core()


@functools.cache
def _new_core() -> Vendor:
    openvino = import_openvino()

    from .openvino_ops import extensions

    core = openvino.Core()
    for extension in extensions():
        core.add_extension(extension)
    return core


def started() -> tuple[ModuleType, Vendor, list[str]]:
    """The module, the shared core and what the processor is; RunnerError with the cure where OpenVINO does not
    start."""
    try:
        openvino, core = import_openvino(), shared_core()
        facts = ("FULL_DEVICE_NAME", "OPTIMIZATION_CAPABILITIES")
        return openvino, core, [str(core.get_property("CPU", name)) for name in facts]
    except ImportError as error:
        raise RunnerError(f"openvino is not installed ({error}); {install_hint('openvino')}") from None
    except Exception as error:  # a broken installation, or one without the CPU plugin
        said = str(error).strip().splitlines()[-1]
        raise RunnerError(f"OpenVINO cannot start here: {said}; reinstall openvino") from None


def settings(threads: int | None) -> dict[str, object]:
    """Of every model that is compiled: one stream, in float32 however the processor likes to compute."""
    return {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": "f32"}


class StreamedOpenVino(StagedRunner):
    """OpenVINO, one compiled model a stage, in float32 however the processor likes to compute."""

    name = "openvino"
    engine = "OpenVINO"
    process_bytes, chunk_maps, query_maps = 1.35e8, 8.2, 31.5  # each stage keeps its own working memory

    def __init__(self, stages: Sequence[tuple[str, ModelBytes]], threads: int | None = None,
                 cache: Path | None = None) -> None:
        """cache: a folder for these stages alone, under which a folder for this version is made (None: no cache)."""
        self._cache_root = cache
        self._cache: CachedFiles | None = None
        super().__init__(stages, threads)
        if self._cache is not None:
            self.notes += tuple(self._cache.notes)

    @classmethod
    def open(cls, bundle: Bundle, precision: str, options: Options) -> StreamedOpenVino:
        precision = "fp32" if precision == "auto" else precision
        cache = options.cache_folder / "openvino" / f"{bundle.sha256[:32]}-{precision}"
        runner = cls(bundle.load_stages(precision), options.threads, cache)
        runner.precision = precision
        return runner

    @classmethod
    def check_here(cls, options: Options) -> None:
        started()

    def _start(self) -> None:
        openvino, self._core, device = started()
        self._ov = openvino
        version = openvino.__version__.split("-")[0]
        self._config = settings(self.threads)
        if self._cache_root is not None:
            key = hashlib.sha256(repr(
                (openvino.__version__, CONVERSION, self.threads, device)).encode()).hexdigest()[:16]
            self._open_cache(self._cache_root, f"{version}-{key}", version)

    def _open_cache(self, root: Path, name: str, version: str) -> None:
        self._cache = CachedFiles(root / name)
        try:
            others = sorted({p.name.split("-")[0] for p in root.iterdir() if p.is_dir()} - {version})
        except OSError:
            others = []
        if others and not self._cache.folder.is_dir():
            self.notes += (
                f"the cache in {root} is of OpenVINO {', '.join(others)}: left as it is, compiled again for {version}",)

    def _session(self, model: ModelBytes) -> StageSession:
        name = f"{PurePosixPath(model.name).stem}.blob"
        blob = self._cache.read(name) if self._cache is not None else None
        if blob is not None:
            try:
                compiled = self._core.import_model(blob, "CPU", self._config)
                return _Session(compiled, _names(compiled))
            except Exception as error:  # OpenVINO raises plain RuntimeErrors; the model itself is still at hand
                self.notes += (
                    f"OpenVINO refused {name} of its cache ({str(error).strip().splitlines()[-1]}): compiled again", )
        read = self._core.read_model(model.whole())
        compiled = self._core.compile_model(read, "CPU", self._config)
        if self._cache is not None:
            exported = compiled.export_model()
            self._cache.write(name, exported.getvalue() if hasattr(exported, "getvalue") else bytes(exported))
        return _Session(compiled, _names(read))

    def _value(self, array: Floats) -> Vendor:
        return self._ov.Tensor(np.ascontiguousarray(array), shared_memory=True)

    def _array(self, value: Vendor) -> Floats:
        array: Floats = value.data
        return array


class _Session(StageSession):
    def __init__(self, compiled: Vendor, outputs: tuple[str, ...]) -> None:
        self._compiled = compiled
        self._ports = list(compiled.outputs)
        self.inputs = {
            i.any_name: tuple(d.get_length() if d.is_static else None for d in i.partial_shape)
            for i in compiled.inputs
        }
        self.outputs = outputs

    def run(self, feed: Mapping[str, Vendor]) -> list[Vendor]:
        # A request of its own for each call: its outputs stay valid after it, and threads do not meet.
        request = self._compiled.create_infer_request()
        for name in self.inputs:
            request.set_tensor(name, feed[name])
        request.infer()
        return [request.get_tensor(port) for port in self._ports]


def _names(model: Vendor) -> tuple[str, ...]:
    """The one name of each output, as the file has it (a model just compiled has names of inner tensors, too)."""
    names = [output.names for output in model.outputs]
    if any(len(of_one) != 1 for of_one in names):
        raise RuntimeError(f"outputs have several names: {names}")
    return tuple(next(iter(of_one)) for of_one in names)
