"""The half of the stand-in that runs plans, over ONNX Runtime on the stand-in GPU.

As strict as the real one is: shapes outside the profile are refused, a run wants every shape and address, memory that
was freed cannot be read, graphs can be captured only of shapes that ran before.
"""

from __future__ import annotations

from types import ModuleType, SimpleNamespace

import numpy as np
import onnxruntime

from ..device import StandIn
from . import ILogger, bound, read_plan

TYPES = {"tensor(float)": "FLOAT", "tensor(float16)": "HALF"}
NUMPY = {"FLOAT": np.float32, "HALF": np.float16}


def add_to(trt: ModuleType, version: tuple[int, ...], rtx: bool, device: StandIn) -> None:
    """Give the module what this version runs with: 8.5 lends memory as a whole, 10 and later by shapes, RTX has graphs
    of its own. `fail` on it makes the next run fail with that message, `no_context` every new context; `contexts`
    counts those made."""
    trt.device, trt.fail, trt.contexts, trt.no_context = device, "", 0, False
    trt.TensorIOMode, trt.nptype = SimpleNamespace(INPUT="in", OUTPUT="out"), lambda kind: NUMPY[kind]
    trt.IExecutionContext, trt.ICudaEngine, trt.Runtime = Context, bound(trt, Engine), bound(trt, Runtime)
    if rtx:
        trt.CudaGraphStrategy = SimpleNamespace(WHOLE_GRAPH_CAPTURE="whole")
        trt.ICudaEngine.create_runtime_config = lambda self: SimpleNamespace(cuda_graph_strategy=None)
    elif version >= (10, 0):
        trt.ExecutionContextAllocationStrategy = SimpleNamespace(USER_MANAGED="user")
        trt.IExecutionContext = SizedContext
    else:
        trt.ICudaEngine.create_execution_context_without_device_memory = Engine.create_execution_context


def scratch(shapes) -> int:
    """Bytes that running at these input shapes takes."""
    return 8 * int(sum(np.prod(shape) for shape in shapes))


class Runtime:
    def __init__(self, logger) -> None:
        self.logger = logger

    def deserialize_cuda_engine(self, data: bytes):
        plan = read_plan(data)
        if plan is None:
            self.logger.log(ILogger.Severity.ERROR, "Serialization assertion failed:\n magic tag does not match")
            return None
        return self.trt.ICudaEngine(self.logger, plan[1], plan[0]["shapes"])


class Engine:
    @property
    def device_memory_size(self) -> int:
        return scratch(self.get_tensor_profile_shape(name, 0)[2] for name in self.inputs)

    def __init__(self, logger, model: bytes, shapes: dict) -> None:
        """shapes: the smallest, best and largest of each input."""
        self.device, self.logger = self.trt.device, logger
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = 1, 3
        self.session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self.tensors = {t.name: t for t in (*self.session.get_inputs(), *self.session.get_outputs())}
        self.inputs = [t.name for t in self.session.get_inputs()]
        self.num_io_tensors = len(self.tensors)
        self.sides = {side: range_ for name in self.inputs
                      for side, *range_ in zip(self.tensors[name].shape, *shapes[name])}

    def get_tensor_name(self, index: int) -> str:
        return list(self.tensors)[index]

    def get_tensor_mode(self, name: str) -> str:
        return "in" if name in self.inputs else "out"

    def get_tensor_dtype(self, name: str) -> str:
        return TYPES[self.tensors[name].type]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return tuple(
            self.side(side, 0) if self.side(side, 0) == self.side(side, 2) else -1 for side in self.tensors[name].shape)

    def get_tensor_profile_shape(self, name: str, index: int) -> list[tuple[int, ...]]:
        assert index == 0
        return [tuple(self.side(side, which) for side in self.tensors[name].shape) for which in range(3)]

    def side(self, side: int | str, which: int) -> int:
        return side if isinstance(side, int) else self.sides[side][which]

    def create_execution_context(self, strategy=None):
        if self.trt.no_context:
            self.logger.log(ILogger.Severity.ERROR, "CUDA out of memory")
            return None
        self.trt.contexts += 1
        return (SizedContext if strategy == "user" else Context)(self)


class Context:
    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.shapes: dict[str, tuple] = {}
        self.addresses: dict[str, int] = {}
        self.ran: set = set()
        self.scratch: tuple[int, int] | None = None
        self.stream_handle = None

    @property
    def device_memory(self) -> int:
        return self.scratch[0] if self.scratch else 0

    @device_memory.setter
    def device_memory(self, address: int) -> None:
        assert self.engine.device.blocks[address].size >= self.engine.device_memory_size
        self.scratch = (address, self.engine.device_memory_size)

    def check_scratch(self) -> None: ...

    def set_input_shape(self, name: str, shape: tuple) -> bool:
        low, _, high = self.engine.get_tensor_profile_shape(name, 0)
        if len(shape) != len(low) or not all(a <= s <= b for a, s, b in zip(low, shape, high)):
            self.engine.logger.log(ILogger.Severity.ERROR,
                                   f"Supplied binding dimension {shape} for {name} exceed min ~ max")
            return False
        self.shapes[name] = tuple(shape)
        return True

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        known: dict = {}
        for given, shape in self.shapes.items():
            known.update(zip(self.engine.tensors[given].shape, shape))
        return tuple(side if isinstance(side, int) else known.get(side, -1) for side in self.engine.tensors[name].shape)

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return name in self.engine.tensors

    def execute_async_v3(self, stream_handle: int) -> bool:
        engine, device = self.engine, self.engine.device
        assert self.stream_handle in (None, stream_handle), "a context on two streams"
        self.stream_handle = stream_handle
        stream, key = device.streams[stream_handle], tuple(sorted(self.shapes.items()))
        if engine.trt.fail:
            engine.logger.log(ILogger.Severity.ERROR, engine.trt.fail)
            engine.trt.fail = ""
            return False
        if stream.captured is not None and key not in self.ran:
            engine.logger.log(ILogger.Severity.ERROR, "a shape changed; run it once before capturing")
            return False
        if set(self.addresses) != set(engine.tensors) or set(self.shapes) != set(engine.inputs):
            engine.logger.log(ILogger.Severity.ERROR, "an address or a shape was not set")
            return False
        self.check_scratch()
        self.ran.add(key)
        addresses, scratch = dict(self.addresses), self.scratch
        shapes = {
            name: self.get_tensor_shape(name) if name not in self.shapes else self.shapes[name]
            for name in engine.tensors
        }
        kinds = {name: NUMPY[engine.get_tensor_dtype(name)] for name in engine.tensors}

        def work() -> None:
            if scratch is not None:
                device.blocks[scratch[0]]  # KeyError where it is gone
            feed = {name: np.array(device.view(addresses[name], shapes[name], kinds[name])) for name in engine.inputs}
            names = [name for name in engine.tensors if name not in engine.inputs]
            for name, value in zip(names, engine.session.run(names, feed)):
                device.view(addresses[name], shapes[name], kinds[name])[...] = value
            device.count("run")

        stream.put(work)
        return True


class SizedContext(Context):
    """Its scratch memory is sized by the shapes that run."""

    def update_device_memory_size_for_shapes(self) -> int:
        return scratch(self.shapes.values())

    def set_device_memory(self, address: int, size: int) -> None:
        self.scratch = (address, size)

    def check_scratch(self) -> None:
        address, size = self.scratch
        needed = self.update_device_memory_size_for_shapes()
        assert self.engine.device.blocks[address].size >= size >= needed, "scratch memory freed or too small"
