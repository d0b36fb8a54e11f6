"""The half of the stand-in that builds plans.

On weakly typed versions FP16 makes every float tensor half unless its layer is held at float32 and constraints are
obeyed; a strongly typed network takes neither flags nor layer types; Q/DQ wants INT8 where it exists; implicit batch
cannot be parsed.
"""

from __future__ import annotations

import enum
import json
import os
import signal
import sys
import time
from types import ModuleType

from . import ILogger, bound, write_plan
from .network import Layer, NamedError, Network, OnnxParser, ParserError, TypedLayer

PRECISIONS = ("FP16", "INT8", "OBEY_PRECISION_CONSTRAINTS", "PREFER_PRECISION_CONSTRAINTS")


def add_to(trt: ModuleType, version: tuple[int, ...], fault: str) -> None:
    """Give the module what this version builds with."""
    weak, named = version < (11, 0), version >= (10, 0)
    enumerations = {
        "BuilderFlag": [*(PRECISIONS if weak else []), "DEBUG", "TF32"],
        "NetworkDefinitionCreationFlag": [*(["EXPLICIT_BATCH"] if weak else []),
                                          *(["STRONGLY_TYPED"] if version >= (9, 1) else [])],
        "MemoryPoolType": ["WORKSPACE", "DLA_MANAGED_SRAM"],
        "DataType": ["FLOAT", "HALF", "INT8", "INT32", "BOOL", "INT64"],
        "LayerType": ["CONVOLUTION", "CONSTANT", "SHAPE", "PLUGIN_V2"],
    }
    if version >= (8, 6):
        enumerations["HardwareCompatibilityLevel"] = [
            "NONE", "AMPERE_PLUS", *(["SAME_COMPUTE_CAPABILITY"] if version >= (10, 9) else [])]
    for name, members in enumerations.items():
        setattr(trt, name, enum.IntEnum(name, {n: i for i, n in enumerate(members)}))
    trt.ILayer = bound(trt, Layer, *([TypedLayer] if weak else []))
    trt.IParserError = bound(trt, ParserError, *([NamedError] if named else []))
    trt.IPluginRegistry = bound(trt, Registry)
    trt.get_plugin_registry = trt.IPluginRegistry
    trt.INetworkDefinition, trt.ITimingCache = bound(trt, Network), bound(trt, Cache)
    trt.IBuilderConfig, trt.OnnxParser, trt.Builder = bound(trt, Config), bound(trt, OnnxParser), bound(trt, Builder)
    trt.OnnxParser.wants_explicit_batch = trt.IBuilderConfig.refuses_caches = not named
    trt.Builder.fault = fault
    if version >= (8, 6):
        trt.IPluginRegistry.load_library = lambda self, path: None
        trt.IBuilderConfig.builder_optimization_level = 3
        trt.IBuilderConfig.hardware_compatibility_level = trt.HardwareCompatibilityLevel.NONE
    if version >= (9, 0):
        trt.IProgressMonitor = type("IProgressMonitor", (), {})
        trt.IBuilderConfig.progress_monitor = None


class Registry:
    pass


class Profile:
    def __init__(self):
        self.shapes = {}

    def set_shape(self, name, low, best, high):
        self.shapes[name] = [low, best, high]


class Cache:
    def __init__(self, entries, version):
        self.entries, self.version = set(entries), version

    def combine(self, other, ignore_mismatch):
        if other.version != self.version:
            return False
        self.entries |= other.entries
        return True

    def serialize(self):
        return json.dumps([self.version, sorted(self.entries)]).encode()


class Config:
    def __init__(self, logger):
        self.logger, self.flags, self.workspace = logger, {self.trt.BuilderFlag.TF32}, None
        self.profiles, self.cache = [], None

    def set_flag(self, flag):
        self.flags.add(self.trt.BuilderFlag(flag))

    def clear_flag(self, flag):
        self.flags.discard(self.trt.BuilderFlag(flag))

    def set_memory_pool_limit(self, pool, size):
        self.workspace = size

    def add_optimization_profile(self, profile):
        if any(not low <= best <= high for shapes in profile.shapes.values() for low, best, high in zip(*shapes)):
            return -1
        self.profiles.append(profile.shapes)
        return len(self.profiles) - 1

    def create_timing_cache(self, content):
        version = self.trt.__version__
        try:
            return self.trt.ITimingCache(*(json.loads(content)[::-1] if content else ([], version)))
        except ValueError:
            if self.refuses_caches:
                return None
            self.logger.log(ILogger.WARNING, "Failed to deserialize timing cache. Returning an empty timing cache.")
            return self.trt.ITimingCache([], version)

    def set_timing_cache(self, cache, ignore_mismatch):
        if cache.version != self.trt.__version__ and not ignore_mismatch:
            return False
        self.cache = cache
        return True

    def get_timing_cache(self):
        return self.cache


class Builder:
    """fault: how it fails: "driver", "abort", "kill", "exit", "raise", "memory", or "wait:FILE": it makes the file and
    waits, a minute at most, until someone deletes it."""

    def __init__(self, logger):
        self.logger = logger
        if self.fault == "driver":
            logger.log(ILogger.ERROR, "CUDA initialization failure with error: 35")
            raise TypeError("pybind11::init(): factory function returned nullptr")

    def create_network(self, flags):
        return self.trt.INetworkDefinition(flags)

    def create_builder_config(self):
        return self.trt.IBuilderConfig(self.logger)

    def create_optimization_profile(self):
        return Profile()

    def build_serialized_network(self, network, config):
        monitor = getattr(config, "progress_monitor", None)
        if monitor is not None:
            monitor.phase_start("Building engine", None, 2)
            monitor.step_complete("Building engine", 0)
        if self._fails():
            return None
        wrong = self._misuse(network, config)
        if wrong:
            self.logger.log(ILogger.ERROR, f"API Usage Error: {wrong}")
            return None
        self.logger.log(ILogger.INFO, "Total Activation Memory: 1000 bytes")
        self.logger.log(ILogger.INFO, "Total Weights Memory: 234 bytes")
        types = {}
        for layer in network.layers:
            for i, tensor in enumerate(layer.outputs):
                types[tensor.name] = self._type(network, config, layer, i, tensor).name
                config.cache.entries.add(tensor.name)
        hardware = getattr(config, "hardware_compatibility_level", None)
        return write_plan({
            "types": types, "shapes": config.profiles[0], "operators": [n.op_type for n in network.nodes],
            "flags": sorted(f.name for f in config.flags), "outputs": {n.name: len(n.output) for n in network.nodes},
            "strong": network.has("STRONGLY_TYPED"), "workspace": config.workspace,
            "level": getattr(config, "builder_optimization_level", None),
            "hardware": hardware.name if hardware is not None else None
        }, network.content)

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
        kinds = self.trt.DataType
        if network.has("STRONGLY_TYPED") or tensor.dtype not in (kinds.FLOAT, kinds.HALF):
            return tensor.dtype
        names = {f.name for f in config.flags}
        if "OBEY_PRECISION_CONSTRAINTS" in names and layer.held == kinds.FLOAT and i in layer.held_outputs:
            return layer.held_outputs[i]
        return kinds.HALF if "FP16" in names else kinds.FLOAT

    def _fails(self):
        """Whether it builds nothing and has said why."""
        if self.fault == "abort":
            print("terminate called after throwing an instance of 'std::bad_alloc'", file=sys.stderr, flush=True)
            os.abort()
        if self.fault == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.fault == "exit":
            print("a licence could not be found", flush=True)
            os._exit(7)
        if self.fault == "raise":
            raise ValueError("unexpected")
        if self.fault == "memory":
            for level, text in (
                (ILogger.WARNING, "Requested amount of GPU memory (17179869184 bytes) could not be allocated. There "
                                  "may not be enough free memory for allocation to succeed."),
                (ILogger.ERROR, "[virtualMemoryBuffer.cpp::resizePhysical::145] Error Code 2: OutOfMemory (no further "
                                "information)"), (ILogger.ERROR, "API Usage Error: no memory")):
                self.logger.log(level, text)
            return True
        if self.fault.startswith("wait"):
            begun = self.fault.split(":", 1)[1]
            open(begun, "w").close()
            for _ in range(600):
                if not os.path.exists(begun):
                    break
                time.sleep(0.1)
        return False
