"""A deserialised TensorRT engine and its execution contexts: named tensors only, errors typed.

Written for TensorRT 8.5 to 11 and TensorRT-RTX by what their Python modules have, never by version number.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from ....errors import EngineError, RunnerError
from ....named_types import Vendor
from ..cuda.device import Buffer, Device, Stream


@dataclass(frozen=True)
class Tensor:
    """One input or output. shape: -1 for a dimension that changes. largest: of an input, its profile's maximum."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    largest: tuple[int, ...] = ()


def make_logger(trt: ModuleType) -> Vendor:
    """A logger of TensorRT's that prints nothing and keeps the last errors in `errors`."""

    class Log(trt.ILogger):  # type: ignore[misc, name-defined]  # a class of the module that was given
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: deque[str] = deque(maxlen=4)

        def log(self, severity: Vendor, message: str) -> None:
            if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
                self.errors.append(" ".join(str(message).split()))

    return Log()


class Engine:
    """A plan made ready to run on a device. Safe to share between threads; an `Execution` is not."""

    def __init__(self, trt: ModuleType, device: Device, plan: bytes, name: str) -> None:
        """name: how errors call it. EngineError where TensorRT refuses the plan."""
        self.trt, self.device, self.name = trt, device, name
        self._log = make_logger(trt)
        with device.current():
            self._runtime = trt.Runtime(self._log)
            self.handle = self._runtime.deserialize_cuda_engine(plan)
        if self.handle is None:
            raise EngineError(
                f"TensorRT {trt.__version__} refuses the engine {name}: {self.said()}; build it again here")
        self.inputs: dict[str, Tensor] = {}
        self.outputs: dict[str, Tensor] = {}
        for index in range(self.handle.num_io_tensors):
            tensor_name = self.handle.get_tensor_name(index)
            dtype = np.dtype(trt.nptype(self.handle.get_tensor_dtype(tensor_name)))
            shape = tuple(self.handle.get_tensor_shape(tensor_name))
            if self.handle.get_tensor_mode(tensor_name) == trt.TensorIOMode.INPUT:
                largest = tuple(self.handle.get_tensor_profile_shape(tensor_name, 0)[2])
                self.inputs[tensor_name] = Tensor(tensor_name, dtype, shape, largest)
            else:
                self.outputs[tensor_name] = Tensor(tensor_name, dtype, shape)

    def said(self) -> str:
        """TensorRT's last error, in one line."""
        return self._log.errors[-1] if self._log.errors else "it gave no reason"

    @property
    def scratch_bytes(self) -> int:
        """Device memory of one execution at the profile's largest shapes, inputs and outputs apart."""
        for name in ("device_memory_size_v2", "device_memory_size"):
            size = getattr(self.handle, name, None)
            if isinstance(size, int):
                return size
        return 0

    @property
    def graphs_inside(self) -> bool:
        """Whether it makes CUDA graphs by itself (TensorRT-RTX: it knows when its kernels for a shape are compiled)."""
        return hasattr(self.trt, "CudaGraphStrategy") and hasattr(self.handle, "create_runtime_config")

    @property
    def sized_by_shape(self) -> bool:
        """Whether the shapes that run size scratch memory (TensorRT 10 and later), not the profile's largest."""
        strategies = getattr(self.trt, "ExecutionContextAllocationStrategy", None)
        return not self.graphs_inside and hasattr(strategies, "USER_MANAGED") \
            and hasattr(self.trt.IExecutionContext, "update_device_memory_size_for_shapes")

    def execution(self, stream: Stream, scratch: Scratch) -> Execution:
        return Execution(self, stream, scratch)


class Scratch:
    """Memory for what runs on one stream, shared by its executions since they take turns. It only grows.

    generation: counts how often it moved; a graph captured before no longer holds.
    """

    def __init__(self, device: Device, stream: Stream) -> None:
        self._device, self._stream = device, stream
        self.buffer: Buffer | None = None
        self.generation = 0

    def fit(self, size: int, what: str) -> Buffer:
        """A buffer of at least `size` bytes; RunnerError saying how much is needed where there is none."""
        if self.buffer is None or self.buffer.size < size:
            self._stream.synchronize()  # what may still use the old one
            self.buffer = None
            self.buffer = self._device.allocate(size, what)
            self.generation += 1
        return self.buffer


class Execution:
    """One execution context on one stream, for one thread at a time."""

    def __init__(self, engine: Engine, stream: Stream, scratch: Scratch) -> None:
        """RunnerError saying how much memory is needed where TensorRT makes no context."""
        self.engine, self.stream, self.scratch = engine, stream, scratch
        self._lent = False  # whether scratch memory is ours
        self._generation = -1
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}
        with engine.device.current():
            self._context = self._make_context()
        if self._context is None:
            needed = engine.scratch_bytes
            if needed > engine.device.memory()[0]:
                raise engine.device.out_of_memory(needed, f"running the engine {engine.name}")
            raise RunnerError(f"TensorRT makes no execution context for the engine {engine.name}: {engine.said()}")

    def _make_context(self) -> Vendor:
        """With scratch memory of ours where TensorRT lets us, sized by the shapes that run from TensorRT 10 on."""
        trt, handle = self.engine.trt, self.engine.handle
        if self.engine.graphs_inside:
            config = handle.create_runtime_config()
            config.cuda_graph_strategy = trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
            return handle.create_execution_context(config)
        if self.engine.sized_by_shape:
            self._lent = True
            return handle.create_execution_context(trt.ExecutionContextAllocationStrategy.USER_MANAGED)
        if hasattr(handle, "create_execution_context_without_device_memory"):
            self._lent = True
            return handle.create_execution_context_without_device_memory()
        return handle.create_execution_context()

    def set_shapes(self, shapes: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
        """Shapes of the outputs for shapes of all inputs, which the profile has been checked for.

        EngineError where the engine has other inputs, RunnerError where TensorRT takes the shapes not, or where memory
        for them is not left.
        """
        engine = self.engine
        if set(engine.inputs) != set(shapes):
            raise EngineError(f"the engine {engine.name} takes {', '.join(engine.inputs)}, not {', '.join(shapes)}; "
                              "it was not built from a model of this bundle")
        with engine.device.current():
            changed = False
            for name, shape in shapes.items():
                if self._shapes.get(name) != tuple(shape):
                    if not self._context.set_input_shape(name, tuple(shape)):
                        self._shapes.clear()
                        raise RunnerError(
                            f"the engine {engine.name} does not take {name} of shape {tuple(shape)}: {engine.said()}")
                    self._shapes[name] = tuple(shape)
                    changed = True
            if self._lent and (changed or self._generation != self.scratch.generation):
                self._lend()
            out = {name: tuple(self._context.get_tensor_shape(name)) for name in engine.outputs}
        if any(side < 0 for shape in out.values() for side in shape):
            raise RunnerError(f"the engine {engine.name} does not know its output shapes {out} for inputs {shapes}")
        return out

    def _lend(self) -> None:
        engine = self.engine
        needed = engine.scratch_bytes
        if engine.sized_by_shape:
            needed = int(self._context.update_device_memory_size_for_shapes())
        try:
            buffer = self.scratch.fit(needed, f"running the engine {engine.name}")
        except RunnerError:
            self._shapes.clear()  # the next run asks again
            raise
        if hasattr(self._context, "set_device_memory"):
            self._context.set_device_memory(buffer.address, buffer.size)
        else:
            self._context.device_memory = buffer.address
        self._generation = self.scratch.generation

    def enqueue(self, addresses: dict[str, int]) -> None:
        """Enqueues one run. addresses: of every input and output, on the device. RunnerError where it fails."""
        engine = self.engine
        for name, address in addresses.items():
            if self._addresses.get(name) != address:
                if not self._context.set_tensor_address(name, address):
                    raise RunnerError(f"the engine {engine.name} refuses the address of {name}: {engine.said()}")
                self._addresses[name] = address
        with engine.device.current():
            if not self._context.execute_async_v3(stream_handle=self.stream.handle):
                raise RunnerError(f"the engine {engine.name} failed to run: {engine.said()}")
