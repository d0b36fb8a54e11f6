"""A stand-in for the Python module of several TensorRT versions: what each has and has not, and how each reacts.

The names are those of the headers (tests/export/engine/test_features.py compares them). One half builds plans
(builder.py), the other runs them on a stand-in GPU (runtime.py). A plan is MAGIC, a line of JSON
(what the builder was told, the type it would compute each tensor in, the shapes of each input) and the ONNX model.
"""

from __future__ import annotations

import enum
import json
from types import ModuleType

MAGIC = b"stand-in plan\n"
RTX = "rtx"

CHILD = """import os, sys
from tests.fakes.tensorrt import make
sys.modules[__name__] = make(os.environ["FAKE_TENSORRT"], fault=os.environ["FAKE_FAULT"])
"""  # the text of a tensorrt.py for child processes


def write_plan(facts: dict, model: bytes) -> bytes:
    """facts: with "shapes", the smallest, best and largest shape of each input by its name."""
    return MAGIC + json.dumps(facts).encode() + b"\n" + model


def read_plan(data: bytes) -> tuple[dict, bytes] | None:
    """The facts and the model; None where it is no plan."""
    if not data.startswith(MAGIC):
        return None
    facts, model = data.removeprefix(MAGIC).split(b"\n", 1)
    return json.loads(facts), model


class ILogger:
    INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)
    Severity = enum.IntEnum("Severity", {"INTERNAL_ERROR": 0, "ERROR": 1, "WARNING": 2, "INFO": 3, "VERBOSE": 4})


def make(version: str = "10.14.1", device=None, fault: str = "") -> ModuleType:
    """The module of this version, or of TensorRT-RTX for RTX; with a stand-in GPU (../device.py) it also runs plans.

    fault: what goes wrong in building (`builder.Builder`), or "library": OSError, as where it lacks a library.
    """
    if fault == "library":
        raise OSError("libnvinfer.so.10: cannot open shared object file: No such file or directory")
    from . import builder

    trt = ModuleType("tensorrt")
    trt.__version__ = "1.7.1" if version == RTX else version
    trt.ILogger = ILogger
    numbers = (11, 0) if version == RTX else tuple(int(part) for part in version.split(".")[:2])
    builder.add_to(trt, numbers, fault)
    if device is not None:
        from . import runtime

        runtime.add_to(trt, numbers, version == RTX, device)
    return trt


def bound(trt: ModuleType, cls: type, *more: type) -> type:
    """The class for this module, with what only some versions have."""
    return type(cls.__name__, (*more, cls), {"trt": trt})


def use(monkeypatch, device, version: str = "10.14.1") -> ModuleType:
    """The module that the TensorRT runners then import, with this stand-in GPU, which they then open."""
    from universeg_rt.runners.gpu.tensorrt import runner

    trt = make(version, device)
    monkeypatch.setattr(runner, "open_device", lambda *_: device)
    monkeypatch.setattr(runner.TensorRT, "imported", classmethod(lambda cls: trt))
    return trt
