"""The CPU runtimes, imported when a runner starts and with what they would report to their makers turned off.

Their settings are read once, when they are imported: where a program imported one before, its own choice stands.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module, metadata
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from ..bundle.model_bytes import ModelBytes

if TYPE_CHECKING:
    from ..named_types import Vendor

ORT_TELEMETRY = "ORT_DISABLE_TELEMETRY"
PACKAGES = {"onnxruntime": ("onnxruntime", "onnxruntime-gpu"), "openvino": ("openvino",)}


def import_onnxruntime() -> ModuleType:
    """The module; ImportError, or whatever a broken build raises. ORT_DISABLE_TELEMETRY is 1 unless the user set it."""
    os.environ.setdefault(ORT_TELEMETRY, "1")
    return import_module("onnxruntime")


def open_session(ort: ModuleType, model: ModelBytes, options: Vendor, providers: Sequence[object]) -> Vendor:
    """An ONNX Runtime session of a model and its external data, all from memory; raises ONNX Runtime's own errors."""
    if model.external:
        names, contents = zip(*model.external.items())
        options.add_external_initializers_from_files_in_memory(names, contents, [len(content) for content in contents])
    return ort.InferenceSession(model.data, options, providers=providers)


def import_openvino() -> ModuleType:
    """The module; ImportError, or whatever a broken build of it raises.

    It imports openvino_telemetry, which reports at once and has no switch but a file in the user's home. Where that
    package is missing OpenVINO goes without, and so it does here.
    """
    before = {name: module for name, module in sys.modules.items() if name == "openvino_telemetry"}
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # importing it raises ImportError
    try:
        return import_module("openvino")
    finally:
        del sys.modules["openvino_telemetry"]
        sys.modules.update(before)


def has_cuda_provider() -> bool:
    """Whether the installed onnxruntime comes with its CUDA provider; imports nothing."""
    spec = find_spec("onnxruntime")
    folders = (spec.submodule_search_locations or ()) if spec else ()
    return any(any(Path(folder, "capi").glob("*onnxruntime_providers_cuda.*")) for folder in folders)


def runtime_versions() -> dict[str, str]:
    """Versions of the runtimes that are installed; imports none of them."""
    out: dict[str, str] = {}
    for runtime, packages in PACKAGES.items():
        for package in packages:
            with suppress(metadata.PackageNotFoundError):
                out.setdefault(runtime, metadata.version(package))
    return out
