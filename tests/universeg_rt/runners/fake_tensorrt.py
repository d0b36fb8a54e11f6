"""TensorRT's Python interface over ONNX Runtime: a plan is an ONNX file with its profile, run on the stand-in device.

As strict as the real one is: shapes outside the profile are refused, a run wants every shape and address, memory that
was freed cannot be read, graphs can be captured only of shapes that ran before.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from types import SimpleNamespace

import numpy as np
import onnxruntime

from universeg_rt.bundle.engine import Profile

from .standin import StandIn

MAGIC = b"fake plan\n"
NAMES = {"B": "queries", "K": "sets", "S": "entries"}
TYPES = {"tensor(float)": "FLOAT", "tensor(float16)": "HALF"}
NUMPY = {"FLOAT": np.float32, "HALF": np.float16}


def plan(onnx_file, profile: Profile) -> bytes:
    """What a build would give: the model as the builder gets it, and the shapes it takes."""
    import onnx
    from universeg_rt.export.engine.model import for_builder

    model = for_builder(onnx.load(onnx_file), profile, plugin=False).model
    return MAGIC + json.dumps(asdict(profile)).encode() + b"\n" + model


def scratch(shapes) -> int:
    """Bytes that running at these input shapes takes."""
    return 8 * int(sum(np.prod(shape) for shape in shapes))


class Severity:
    INTERNAL_ERROR, ERROR, WARNING = range(3)


class ILogger:
    Severity = Severity

    def __init__(self) -> None: ...


def make(device: StandIn, flavour: str = "10.14.1") -> SimpleNamespace:
    """A module as TensorRT of this version looks: 8.5 lends memory as a whole, 10 and later by shapes, `rtx` has graphs
    of its own. `fail` on it makes the next run fail with that message."""
    trt = SimpleNamespace(__name__="fake_tensorrt", __version__="1.7.1" if flavour == "rtx" else flavour,
                          ILogger=ILogger, TensorIOMode=SimpleNamespace(INPUT="in",
                                                                        OUTPUT="out"), nptype=lambda kind: NUMPY[kind],
                          fail="", contexts=0, no_context=False, IExecutionContext=type("IExecutionContext", (), {}))
    if flavour == "rtx":
        trt.CudaGraphStrategy = SimpleNamespace(WHOLE_GRAPH_CAPTURE="whole")
    elif not flavour.startswith("8."):
        trt.ExecutionContextAllocationStrategy = SimpleNamespace(USER_MANAGED="user")
        trt.IExecutionContext.update_device_memory_size_for_shapes = None

    class Runtime:
        def __init__(self, logger) -> None:
            self.logger = logger

        def deserialize_cuda_engine(self, data: bytes):
            if not data.startswith(MAGIC):
                self.logger.log(Severity.ERROR, "Serialization assertion failed:\n magic tag does not match")
                return None
            profile, model = data[len(MAGIC) :].split(b"\n", 1)
            engine = Engine(trt, device, self.logger, model, Profile(**json.loads(profile)))
            if flavour == "rtx":
                engine.create_runtime_config = lambda: SimpleNamespace(cuda_graph_strategy=None)
            elif flavour.startswith("8."):
                engine.create_execution_context_without_device_memory = engine.create_execution_context
            return engine

    trt.Runtime = Runtime
    return trt


class Engine:
    @property
    def device_memory_size(self) -> int:
        return scratch(self.get_tensor_profile_shape(name, 0)[2] for name in self.inputs)

    def __init__(self, trt, device, logger, model: bytes, profile: Profile) -> None:
        self.trt, self.device, self.logger, self.profile = trt, device, logger, profile
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = 1, 3
        self.session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self.tensors = {t.name: t for t in (*self.session.get_inputs(), *self.session.get_outputs())}
        self.inputs = [t.name for t in self.session.get_inputs()]
        self.num_io_tensors = len(self.tensors)

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
        if isinstance(side, int):
            return side
        return getattr(self.profile, NAMES[side])[which] if side in NAMES else self.profile.image["HW".index(side)]

    def create_execution_context(self, strategy=None):
        if self.trt.no_context:
            self.logger.log(Severity.ERROR, "CUDA out of memory")
            return None
        self.trt.contexts += 1
        return Context(self, strategy)


class Context:
    def __init__(self, engine: Engine, strategy) -> None:
        self.engine, self.strategy = engine, strategy
        self.shapes: dict[str, tuple] = {}
        self.addresses: dict[str, int] = {}
        self.ran: set = set()
        self.scratch: tuple[int, int] | None = None
        self.stream_handle = None
        if strategy == "user":
            self.update_device_memory_size_for_shapes = self._needed
            self.set_device_memory = lambda address, size: setattr(self, "scratch", (address, size))

    @property
    def device_memory(self) -> int:
        return self.scratch[0] if self.scratch else 0

    @device_memory.setter
    def device_memory(self, address: int) -> None:
        assert self.engine.device.blocks[address].size >= self.engine.device_memory_size
        self.scratch = (address, self.engine.device_memory_size)

    def _needed(self) -> int:
        return scratch(self.shapes.values())

    def set_input_shape(self, name: str, shape: tuple) -> bool:
        low, _, high = self.engine.get_tensor_profile_shape(name, 0)
        if len(shape) != len(low) or not all(a <= s <= b for a, s, b in zip(low, shape, high)):
            self.engine.logger.log(Severity.ERROR, f"Supplied binding dimension {shape} for {name} exceed min ~ max")
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
            engine.logger.log(Severity.ERROR, engine.trt.fail)
            engine.trt.fail = ""
            return False
        if stream.captured is not None and key not in self.ran:
            engine.logger.log(Severity.ERROR, "a shape changed; run it once before capturing")
            return False
        if set(self.addresses) != set(engine.tensors) or set(self.shapes) != set(engine.inputs):
            engine.logger.log(Severity.ERROR, "an address or a shape was not set")
            return False
        if self.strategy == "user":
            address, size = self.scratch
            assert device.blocks[address].size >= size >= self._needed(), "scratch memory freed or too small"
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
