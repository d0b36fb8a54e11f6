"""TensorRT and TensorRT-RTX: engines that the bundle holds, a prepared support that stays on the device, CUDA
graphs."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from importlib import import_module
from threading import Lock, local
from types import ModuleType

import numpy as np

from ....bundle.bundle import Bundle
from ....bundle.engine import EngineEntry
from ....errors import EngineError, InputError, RunnerError
from ....named_types import Floats
from ...base import Runner
from ...options import Options
from ..cuda.device import Device, open_device
from .choose import Plans, choose
from .engine import Engine, Execution, Scratch
from .worker import Network, Prepared, Tensors, Worker


class TensorRT(Runner):
    """Engines of the bundle under the installed TensorRT. Each thread runs in contexts of its own.

    A shape that comes again is captured as a CUDA graph (copies to and from the device included) and launched as one
    from then on; `graph_failures` keeps the reason where that does not work, and the shape runs without.
    """

    name = "tensorrt"
    module = "tensorrt"
    package = "tensorrt"

    def __init__(self, device: Device, networks: Sequence[Network], precision: str, *, graphs: bool = True) -> None:
        self._device, self._networks, self._graphs = device, list(networks), graphs
        self.precision = precision
        self.support_sizes = (min(n.profile.entries[0] for n in networks), max(n.profile.entries[2] for n in networks))
        self.device = device.place
        self.graph_failures: list[str] = []
        self._workers = local()
        self._prepare_lock = Lock()
        self._prepare_stream = device.stream()
        self._prepare_scratch = Scratch(device, self._prepare_stream)
        self._prepare_executions: dict[int, Execution] = {}

    @classmethod
    def open(cls, bundle: Bundle, precision: str, options: Options) -> TensorRT:
        """Of the options, device and plugin have an effect here. Runs the smallest shapes once, so
        that the first request finds all loaded."""
        trt = cls.imported()
        if not any(e.fingerprint.builder == cls.name for e in bundle.manifest.engines):
            raise RunnerError(
                f"{bundle.path} holds no {cls.name} engine; build one on this machine with universeg-export "
                f"--engine {cls.name}", short="no engine in the bundle")
        device = open_device(options.device)
        precision, plans = choose(bundle, cls.name, precision, trt, device, options.plugins)
        return cls.start(bundle, plans, precision, trt, device)

    @classmethod
    def check_here(cls, options: Options) -> str:
        return cls.here(options)[1].place

    @classmethod
    def here(cls, options: Options) -> tuple[ModuleType, Device]:
        """TensorRT's module and the GPU; RunnerError, with what to install, where one cannot be had."""
        return cls.imported(), open_device(options.device)

    @classmethod
    def start(cls, bundle: Bundle, plans: Sequence[Plans], precision: str, trt: ModuleType, device: Device, *,
              graphs: bool = True) -> TensorRT:
        """A runner of these engines of the bundle, warm. EngineError or RunnerError where one cannot be loaded or
        run."""

        def engine(entry: EngineEntry) -> Engine:
            return Engine(trt, device, bundle.read(entry.file), entry.file)

        networks = [Network(None if p.prepare is None else engine(p.prepare), engine(p.predict), p.profile)
                    for p in plans]
        runner = cls(device, networks, precision, graphs=graphs)
        runner.warm_up()
        return runner

    @classmethod
    def imported(cls) -> ModuleType:
        """TensorRT's module; RunnerError, with what to install, where it cannot be loaded."""
        if importlib.util.find_spec(cls.module) is None:
            raise RunnerError(
                f"{cls.module} is not installed; pip install {cls.package}, in the version that the engines were "
                "built with", short="not installed")
        try:
            return import_module(cls.module)
        except Exception as error:  # a wheel without its libraries or driver raises many types
            raise RunnerError(
                f"{cls.module} is installed and cannot be loaded ({error}); it needs the NVIDIA driver and its own "
                f"libraries: pip install {cls.package}", short="cannot be loaded") from None

    @property
    def notes(self) -> tuple[str, ...]:  # type: ignore[override]  # follows graph_failures, where others keep a value
        return tuple(f"no CUDA graph for {why}" for why in self.graph_failures)

    def warm_up(self) -> None:
        """Run each network once at the smallest shapes of its profile."""
        for network in self._networks:
            p = network.profile
            sets, entries, (height, width) = p.sets[0], p.entries[0], p.image
            support = np.zeros((sets, entries, 2, height, width), np.float32)
            prepared = self._prepare_with(network, support, np.full((sets, entries), 1 / entries, np.float32))
            self._run(prepared, np.zeros((p.queries[0], 1, height, width), np.float32))

    # The contract -------------------------------------------------------------------------------------------------

    def _prepare(self, support: Floats, weights: Floats) -> Prepared:
        sets, entries, _, height, width = support.shape
        for pad in (False, True):
            for network in self._networks:
                p = network.profile
                # Entries of no weight change nothing: a set of fewer than an engine takes (an ensemble's draw often is)
                # is filled up with them, where no engine takes it as it is.
                missing = max(0, p.entries[0] - entries) if pad else 0
                if p.fits(p.queries[0], sets, entries + missing, height, width):
                    if missing:
                        support = np.pad(support, ((0, 0), (0, missing), (0, 0), (0, 0), (0, 0)))
                        weights = np.pad(weights, ((0, 0), (0, missing)))
                    return self._prepare_with(network, support, weights)
        # None fits: the profile that takes the most entries says what is allowed.
        largest = max((n.profile for n in self._networks), key=lambda p: p.entries[2] * p.sets[2])
        largest.check(largest.queries[0], sets, entries, height, width)
        raise InputError(
            f"no engine of the bundle takes {sets} sets of {entries} entries of {height}x{width}; profiles: " +
            "; ".join(str(n.profile) for n in self._networks))

    def _run(self, prepared: Prepared, queries: Floats) -> Floats:
        return self._worker().run_in_parts(prepared, queries)

    def peak_bytes(self, support_size: int, members: int, height: int, width: int) -> int:
        """Of the GPU: engines, what is kept of the support, inputs and outputs, and what running takes."""
        network = self._networks[0]
        p = network.profile
        share = min(1.0, support_size * members / (p.entries[2] * p.sets[2]))
        total, images = 0, 2 * members * support_size * height * width * 4
        for engine in (network.prepare, network.predict):
            if engine is not None:
                total += int(engine.scratch_bytes * share) if engine.sized_by_shape else engine.scratch_bytes
        if network.prepare is None:
            return total + images
        for tensor in network.prepare.outputs.values():
            asked = (members, support_size)  # a dimension that changes is K or S, in this order
            shape = [side if side >= 0 else asked[min(i, 1)] for i, side in enumerate(tensor.shape)]
            total += int(np.prod(shape)) * tensor.dtype.itemsize
        return total + images

    # Running ------------------------------------------------------------------------------------------------------

    def _worker(self) -> Worker:
        worker = getattr(self._workers, "worker", None)
        if worker is None:
            worker = self._workers.worker = Worker(self._device, self._graphs, self.graph_failures)
        return worker

    def _prepare_with(self, network: Network, support: Floats, weights: Floats) -> Prepared:
        sets, entries, _, height, width = support.shape
        engine = network.prepare or network.predict
        feed = {"support_images": support[:, :, :1], "support_labels": support[:, :, 1:], "weights": weights}
        if "weights" not in engine.inputs:
            if not np.allclose(weights, 1 / entries, atol=1e-6):
                raise EngineError(
                    f"the engine {engine.name} takes no weights, and these differ within a set; build it again "
                    "with universeg-export")
            del feed["weights"]
        with self._prepare_lock, self._device.current():
            given, arrays = {}, []
            for name, array in feed.items():
                arrays.append(
                    np.ascontiguousarray(array, engine.inputs[name].dtype if name in engine.inputs else np.float32))
                buffer = self._device.allocate(arrays[-1].nbytes, f"{name} of {sets} sets of {entries} entries")
                self._device.upload(buffer, arrays[-1], self._prepare_stream)
                given[name] = (buffer, arrays[-1].shape)
            if network.prepare is None:
                self._prepare_stream.synchronize()
                return Prepared(network, given, sets, entries, (height, width))
            made = self._run_prepare(network.prepare, given)
            return Prepared(network, made, sets, entries, (height, width))

    def _run_prepare(self, engine: Engine, given: Tensors) -> Tensors:
        execution = self._prepare_executions.get(id(engine))
        if execution is None:
            execution = self._prepare_executions[id(engine)] = engine.execution(self._prepare_stream,
                                                                                self._prepare_scratch)
        shapes = execution.set_shapes({name: shape for name, (_, shape) in given.items()})
        made = {}
        for name, shape in shapes.items():
            size = int(np.prod(shape)) * engine.outputs[name].dtype.itemsize
            made[name] = (self._device.allocate(size, f"the prepared support ({name})"), shape)
        execution.enqueue({name: buffer.address for name, (buffer, _) in {**given, **made}.items()})
        self._prepare_stream.synchronize()
        return made


class TensorRTRTX(TensorRT):
    """The same over TensorRT for RTX, which compiles an engine for the GPU at hand when it is loaded."""

    name = "tensorrt-rtx"
    module = "tensorrt_rtx"
    package = "tensorrt-rtx"
