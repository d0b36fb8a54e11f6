"""A stand-in for the Python module of several TensorRT versions: what each has and has not, and how each reacts.

Copied as `tensorrt.py` to a folder on PYTHONPATH. FAKE_TENSORRT names the version, FAKE_FAULT what goes wrong. A "plan"
is
JSON: for each tensor the type it would be computed in, the profile, and what the builder was told. The rules are those
of the headers (test_engine_features.py compares the names with them) and of the documentation: on weakly typed versions
FP16 makes every float tensor half unless its layer is held at float32 and constraints are obeyed; a strongly typed
network takes neither flags nor layer types; Q/DQ wants INT8 where it exists; implicit batch cannot be parsed.
"""

import enum
import json
import os
import signal
import sys
import time

import onnx

__version__ = os.environ["FAKE_TENSORRT"]
FAULT = os.environ.get("FAKE_FAULT", "")
_V = tuple(int(part) for part in __version__.split(".")[:2])

if FAULT == "library":
    raise OSError("libnvinfer.so.10: cannot open shared object file: No such file or directory")


def _enum(name, *names):
    return enum.IntEnum(name, {n: i for i, n in enumerate(names)})


_weak = ("FP16", "INT8", "OBEY_PRECISION_CONSTRAINTS", "PREFER_PRECISION_CONSTRAINTS") if _V < (11, 0) else ()
BuilderFlag = _enum("BuilderFlag", *_weak, "DEBUG", "TF32")
NetworkDefinitionCreationFlag = _enum("NetworkDefinitionCreationFlag", *(["EXPLICIT_BATCH"] if _V < (11, 0) else []),
                                      *(["STRONGLY_TYPED"] if _V >= (9, 1) else []))
MemoryPoolType = _enum("MemoryPoolType", "WORKSPACE", "DLA_MANAGED_SRAM")
DataType = _enum("DataType", "FLOAT", "HALF", "INT8", "INT32", "BOOL", "INT64")
LayerType = _enum("LayerType", "CONVOLUTION", "CONSTANT", "SHAPE", "PLUGIN_V2")
if _V >= (8, 6):
    HardwareCompatibilityLevel = _enum("HardwareCompatibilityLevel", "NONE", "AMPERE_PLUS",
                                       *(["SAME_COMPUTE_CAPABILITY"] if _V >= (10, 14) else []))
if _V >= (9, 0):
    class IProgressMonitor:
        pass


_TYPES = {
    onnx.TensorProto.FLOAT: DataType.FLOAT, onnx.TensorProto.FLOAT16: DataType.HALF,
    onnx.TensorProto.INT8: DataType.INT8, onnx.TensorProto.INT64: DataType.INT64,
    onnx.TensorProto.INT32: DataType.INT32, onnx.TensorProto.BOOL: DataType.BOOL
}


class ILogger:
    INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)


class _Registry:
    if _V >= (8, 6):
        def load_library(self, path):
            pass


def get_plugin_registry():
    return _Registry()


class _Tensor:
    def __init__(self, name, dtype, shape=()):
        self.name, self.dtype, self.shape = name, dtype, tuple(shape)


class _Layer:
    def __init__(self, node, types):
        self.name, self._outputs = node.name, [_Tensor(n, types.get(n, DataType.FLOAT)) for n in node.output]
        self.type = {"Constant": LayerType.CONSTANT, "Shape": LayerType.SHAPE}.get(node.op_type, LayerType.CONVOLUTION)
        self.num_outputs = len(self._outputs)
        self.held, self.held_outputs = None, {}

    def get_output(self, i):
        return self._outputs[i]

    if _V < (11, 0):
        precision = property(lambda self: self.held, lambda self, value: setattr(self, "held", value))

        def set_output_type(self, i, value):
            self.held_outputs[i] = value


class _Network:
    def __init__(self, flags):
        self.flags, self.layers, self.inputs, self.nodes = flags, [], [], []

    num_layers = property(lambda self: len(self.layers))
    num_inputs = property(lambda self: len(self.inputs))

    def get_layer(self, i):
        return self.layers[i]

    def get_input(self, i):
        return self.inputs[i]

    def has(self, name):
        flag = getattr(NetworkDefinitionCreationFlag, name, None)
        return flag is not None and bool(self.flags & 1 << int(flag))


class _Error:
    def __init__(self, position, node):
        self._position, self._node = position, node

    def desc(self):
        return "No importer registered for op"

    def node(self):
        return self._position

    if _V >= (10, 0):
        def node_name(self):
            return self._node.name

        def node_operator(self):
            return self._node.op_type


class OnnxParser:
    def __init__(self, network, logger):
        self.network, self.logger, self.errors = network, logger, []

    num_errors = property(lambda self: len(self.errors))

    def get_error(self, i):
        return self.errors[i]

    def parse(self, content):
        model = onnx.shape_inference.infer_shapes(onnx.load_from_string(content))
        if _V < (10, 0) and not self.network.has("EXPLICIT_BATCH"):
            self.logger.log(ILogger.ERROR,
                            "This version of the ONNX parser only supports networks with an explicit batch dimension")
            return False
        self.errors = [_Error(i, n) for i, n in enumerate(model.graph.node) if n.domain and not model.functions]
        graph = model.graph
        types = {v.name: _TYPES[v.type.tensor_type.elem_type] for v in (*graph.input, *graph.output, *graph.value_info)}
        constants = {i.name for i in graph.initializer}
        self.network.nodes = list(graph.node)
        self.network.layers = [_Layer(n, types) for n in graph.node]
        self.network.inputs = [
            _Tensor(v.name, types[v.name], [d.dim_value or -1 for d in v.type.tensor_type.shape.dim])
            for v in graph.input if v.name not in constants]
        return not self.errors


class _Profile:
    def __init__(self):
        self.shapes = {}

    def set_shape(self, name, low, best, high):
        self.shapes[name] = [low, best, high]


class _Cache:
    def __init__(self, entries, version=__version__):
        self.entries, self.version = set(entries), version

    def combine(self, other, ignore_mismatch):
        if other.version != self.version:
            return False
        self.entries |= other.entries
        return True

    def serialize(self):
        return json.dumps([self.version, sorted(self.entries)]).encode()


class _Config:
    def __init__(self, logger):
        self.logger, self.flags, self.workspace, self.profiles, self.cache = logger, {BuilderFlag.TF32}, None, [], None
        self.told = {}
        if _V >= (8, 6):
            self.builder_optimization_level, self.hardware_compatibility_level = 3, HardwareCompatibilityLevel.NONE
        if _V >= (9, 0):
            self.progress_monitor = None

    def set_flag(self, flag):
        self.flags.add(BuilderFlag(flag))

    def clear_flag(self, flag):
        self.flags.discard(BuilderFlag(flag))

    def set_memory_pool_limit(self, pool, size):
        self.workspace = size

    def add_optimization_profile(self, profile):
        if any(not low <= best <= high for shapes in profile.shapes.values() for low, best, high in zip(*shapes)):
            return -1
        self.profiles.append(profile.shapes)
        return len(self.profiles) - 1

    def create_timing_cache(self, content):
        try:
            version, entries = json.loads(content) if content else (__version__, [])
        except ValueError:
            if _V < (10, 0):
                return None
            self.logger.log(ILogger.WARNING, "Failed to deserialize timing cache. Returning an empty timing cache.")
            return _Cache([])
        return _Cache(entries, version)

    def set_timing_cache(self, cache, ignore_mismatch):
        if cache.version != __version__ and not ignore_mismatch:
            return False
        self.cache = cache
        return True

    def get_timing_cache(self):
        return self.cache


class Builder:
    def __init__(self, logger):
        self.logger = logger
        if FAULT == "driver":
            logger.log(ILogger.ERROR, "CUDA initialization failure with error: 35")
            raise TypeError("pybind11::init(): factory function returned nullptr")

    def create_network(self, flags):
        return _Network(flags)

    def create_builder_config(self):
        return _Config(self.logger)

    def create_optimization_profile(self):
        return _Profile()

    def build_serialized_network(self, network, config):
        monitor = getattr(config, "progress_monitor", None)
        if monitor is not None:
            monitor.phase_start("Building engine", None, 2)
            monitor.step_complete("Building engine", 0)
        self._fault()
        wrong = self._misuse(network, config)
        if wrong:
            self.logger.log(ILogger.ERROR, f"API Usage Error: {wrong}")
            return None
        self.logger.log(ILogger.INFO, "Total Activation Memory: 1000 bytes")
        self.logger.log(ILogger.INFO, "Total Weights Memory: 234 bytes")
        types = {}
        for layer in network.layers:
            for i, tensor in enumerate(layer._outputs):
                types[tensor.name] = self._type(network, config, layer, i, tensor)
                config.cache.entries.add(tensor.name)
        level = getattr(config, "hardware_compatibility_level", None)
        return json.dumps({
            "version": __version__, "types": {name: kind.name
                                              for name, kind in types.items()}, "profiles": config.profiles,
            "operators": [n.op_type for n in network.nodes], "flags": sorted(f.name for f in config.flags),
            "outputs": {n.name: len(n.output)
                        for n in network.nodes}, "strong": network.has("STRONGLY_TYPED"), "workspace": config.workspace,
            "level": getattr(config, "builder_optimization_level",
                             None), "hardware": level.name if level is not None else None
        }).encode()

    def _misuse(self, network, config):
        names = {f.name for f in config.flags}
        held = [layer.name for layer in network.layers if layer.held is not None or layer.held_outputs]
        if network.has("STRONGLY_TYPED") and (held or names & {"FP16", "INT8", "OBEY_PRECISION_CONSTRAINTS"}):
            return "a strongly typed network takes neither precision flags nor layer types"
        quantised = any(n.op_type == "QuantizeLinear" for n in network.nodes)
        if quantised and not network.has("STRONGLY_TYPED") and "INT8" not in names:
            return "the network has Q/DQ layers, and INT8 is not allowed"
        dynamic = [t.name for t in network.inputs if -1 in t.shape]
        if dynamic and not config.profiles:
            return f"network has dynamic inputs {dynamic}, but no optimization profile has been defined"
        return ""

    def _type(self, network, config, layer, i, tensor):
        if network.has("STRONGLY_TYPED") or tensor.dtype not in (DataType.FLOAT, DataType.HALF):
            return tensor.dtype
        names = {f.name for f in config.flags}
        if "OBEY_PRECISION_CONSTRAINTS" in names and layer.held == DataType.FLOAT and i in layer.held_outputs:
            return layer.held_outputs[i]
        return DataType.HALF if "FP16" in names else DataType.FLOAT

    def _fault(self):
        if FAULT == "abort":
            print("terminate called after throwing an instance of 'std::bad_alloc'", file=sys.stderr, flush=True)
            os.abort()
        if FAULT == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if FAULT == "exit":
            print("a licence could not be found", flush=True)
            os._exit(7)
        if FAULT == "raise":
            raise ValueError("unexpected")
        if FAULT == "memory":
            self.logger.log(
                ILogger.WARNING, "Requested amount of GPU memory (17179869184 bytes) could not be allocated. There "
                "may not be enough free memory for allocation to succeed.")
            self.logger.log(
                ILogger.ERROR,
                "[virtualMemoryBuffer.cpp::resizePhysical::145] Error Code 2: OutOfMemory (no further information)")
        if FAULT.startswith("wait"):
            begun = FAULT.split(":", 1)[1]
            open(begun, "w").close()
            for _ in range(600):
                if not os.path.exists(begun):
                    break
                time.sleep(0.1)


if FAULT == "memory":
    Builder._misuse = lambda *_: "no memory"
