"""The child process in which the vendor's library runs: it may abort here without taking the exporter along.

    python -m universeg_rt.export.engine.worker MODULE PLUGIN      (PLUGIN may be empty)

Speaks `protocol` on stdin and stdout: says hello with the facts of library and machine, takes one build, gives
progress, and ends with the plan or with an error. Whatever the library prints goes to stderr. It ends when the other
side goes.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import re
import sys
import threading
from pathlib import Path
from types import ModuleType
from typing import BinaryIO

from universeg_rt.cli.common import child_arguments
from universeg_rt.errors import UniverSegError
from universeg_rt.runners.gpu.identity import gpu_facts, present_gpu

from . import features
from .protocol import read_message, write_message


class Refused(Exception):
    """What the library or the machine does not do; the text is for the user."""


class Talk:
    """Messages to the exporter, from any of the library's threads; the library's warnings and errors are kept."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream, self._lock = stream, threading.Lock()
        self.complaints: list[str] = []
        self.memory: dict[str, int] = {}

    def send(self, kind: str, *blobs: bytes, **values: object) -> None:
        with self._lock:
            write_message(self._stream, {"kind": kind, **values}, *blobs)

    def log(self, level: str, text: str) -> None:
        """One line of the library's; also where it says how much memory running takes."""
        found = re.search(r"Total (Activation|Weights|Device Persistent) Memory: (\d+)( bytes)?\s*$", text)
        if found:
            self.memory[found[1]] = int(found[2])
        if level in ("error", "warning"):
            self.complaints.append(text)
            self.send("log", level=level, text=text)


def main(arguments: list[str]) -> None:
    module, plugin = arguments
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    talk = Talk(out)
    try:
        trt = _import(module)
        logger = _logger(trt, talk)
        info = _load_plugin(trt, plugin)
        builder = _builder(trt, logger)
        gpu = present_gpu()
        talk.send("hello", version=str(trt.__version__), strong=features.is_strongly_typed(trt), plugin_version=info,
                  gpu_bytes=gpu.memory_bytes if gpu else 0, **gpu_facts(gpu))
        message = read_message(sys.stdin.buffer)
        if message is None:
            return
        threading.Thread(target=_end_with_the_exporter, daemon=True).start()
        plan, cache = _build(trt, logger, builder, talk, *message)
        talk.send("built", plan, cache, memory_bytes=sum(talk.memory.values()))
    except (Refused, UniverSegError) as error:
        talk.send("refused", text=str(error))
    except MemoryError:
        talk.send("refused", text="this machine's main memory is used up")
    except Exception as error:
        talk.send("refused", text=f"the library failed with {type(error).__name__}: {error}")
        raise


def _end_with_the_exporter() -> None:
    sys.stdin.buffer.read()
    os._exit(1)


def _import(module: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise Refused(f"the Python package {module} cannot be imported ({error})") from None
    except (OSError, AttributeError) as error:
        raise Refused(f"the Python package {module} is there, but not its libraries ({error})") from None


def _logger(trt: ModuleType, talk: Talk) -> object:
    levels = {int(getattr(trt.ILogger, name)): level for name, level in
              (("INTERNAL_ERROR", "error"), ("ERROR", "error"), ("WARNING", "warning"), ("INFO", "info"))}

    class Logger(trt.ILogger):
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: object, text: str) -> None:
            talk.log(levels.get(int(severity), "verbose"), str(text))

    return Logger()


def _load_plugin(trt: ModuleType, plugin: str) -> str:
    """Register the plugin library, if one is given; returns the version of the headers it was built against."""
    if not plugin:
        return ""
    from universeg_rt.runners.gpu.tensorrt.plugin import load

    libnvinfer = None
    if not hasattr(trt.get_plugin_registry(), "load_library"):
        libnvinfer = ctypes.CDLL(_opened("libnvinfer.so"))
    return load(plugin, trt, libnvinfer).headers


def _opened(name: str) -> str:
    """The path of a library that this process has opened."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        path = line.split(maxsplit=5)[-1]
        if Path(path).name.startswith(name):
            return path
    raise Refused(f"{name} was not opened by the package; this version cannot load a plugin library")


def _builder(trt: ModuleType, logger: object) -> object:
    try:
        builder = trt.Builder(logger)
    except (TypeError, RuntimeError):  # what the bindings make of a null pointer
        builder = None
    if builder is None:
        raise Refused("the library cannot start a builder: it needs an NVIDIA GPU and its driver here")
    return builder


def _build(trt: ModuleType, logger: object, builder: object, talk: Talk, request: dict,
           blobs: list[bytes]) -> tuple[bytes, bytes]:
    """The plan and the timing cache."""
    model, *caches = blobs
    network = features.create_network(trt, builder)
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(model):
        raise Refused("the parser does not take the model: " + "; ".join(features.parser_errors(parser)))
    config = builder.create_builder_config()
    if not features.is_strongly_typed(trt):
        features.set_precision(trt, config, network, request["allowed"], request["float32_tensors"])
    features.set_tf32(trt, config, request["tf32"])
    features.set_workspace(trt, config, request["workspace"])
    features.set_level(config, request["level"])
    features.set_hardware(trt, config, request["hardware"])
    features.set_capabilities(trt, config, request["capabilities"])
    features.add_profile(builder, config, network, request["shapes"])
    refused = features.set_timing_caches(config, caches, talk.complaints)
    if refused:
        talk.send("cache_refused", text=refused)
    monitor = _monitor(trt, talk)
    if monitor is not None and hasattr(config, "progress_monitor"):
        config.progress_monitor = monitor
    complaints = len(talk.complaints)
    talk.send("progress", phase="building the engine", done=0, of=0)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise Refused("the library built no engine: " + " | ".join(talk.complaints[complaints:][-3:]))
    return bytes(plan), features.timing_cache(config)


def _monitor(trt: ModuleType, talk: Talk) -> object | None:
    """Tells how far the build is, where the version has such an interface (TensorRT 9 and later)."""
    base = getattr(trt, "IProgressMonitor", None)
    if base is None:
        return None

    class Monitor(base):
        def __init__(self) -> None:
            base.__init__(self)
            self.steps: dict[str, int] = {}

        def phase_start(self, name: str, parent: str | None, steps: int) -> None:
            self.steps[name] = steps
            talk.send("progress", phase=name, done=0, of=steps)

        def step_complete(self, name: str, step: int) -> bool:
            talk.send("progress", phase=name, done=step + 1, of=self.steps.get(name, step + 1))
            return True

        def phase_finish(self, name: str) -> None:
            pass

    return Monitor()


if __name__ == "__main__":
    main(child_arguments("universeg_rt.export.engine.worker", "universeg-export", "MODULE", "PLUGIN"))
