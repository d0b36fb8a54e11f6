"""ONNX Runtime with a provider that can start here, and the CUDA libraries that it wants; or why there is none."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from contextlib import redirect_stdout, suppress
from io import StringIO
from pathlib import Path
from types import ModuleType

from ...errors import RunnerError
from ..libraries import has_cuda_provider, import_onnxruntime
from .identity import has_driver

PROVIDER = "CUDAExecutionProvider"
INSTALL = "pip install onnxruntime-gpu (in the place of onnxruntime, not beside it)"


def onnxruntime_with(provider: str) -> ModuleType:
    """The module, its CUDA libraries loaded; RunnerError with the package to install where it has no such provider."""
    if importlib.util.find_spec("onnxruntime") is None:
        raise RunnerError(f"onnxruntime is not installed; {INSTALL}", short="not installed")
    if provider == PROVIDER and not has_cuda_provider():  # said without importing what will not run
        raise RunnerError(f"the installed onnxruntime has no {provider}; {INSTALL}",
                          short="onnxruntime-gpu is not installed")
    if provider == PROVIDER and not has_driver():
        raise RunnerError(f"{provider} wants a GPU of NVIDIA's and its driver, and the driver is not installed",
                          short="no NVIDIA driver")
    try:
        onnxruntime = import_onnxruntime()
    except Exception as error:  # a build whose libraries are missing raises many types
        raise RunnerError(f"onnxruntime cannot be loaded ({error}); {INSTALL}", short="cannot be loaded") from None
    if provider not in onnxruntime.get_available_providers():
        raise RunnerError(f"the installed onnxruntime has no {provider}; {INSTALL}",
                          short="onnxruntime-gpu is not installed")
    if provider == PROVIDER and hasattr(onnxruntime, "preload_dlls"):
        preload(onnxruntime.preload_dlls)
    return onnxruntime


def preload(preload_dlls: Callable[..., None]) -> None:
    """Load CUDA and cuDNN by ONNX Runtime's own function. It looks beside ONNX Runtime and where the system does;
    NVIDIA's packages, which PyTorch brings too, may lie elsewhere on Python's path."""
    folders = [folder for place in dict.fromkeys(sys.path) for folder in sorted(Path(place, "nvidia").glob("*/lib"))]
    with redirect_stdout(StringIO()), suppress(Exception):  # it prints what it lacks; the session says it better
        for folder in folders:
            cudnn = folder.parent.name == "cudnn"
            preload_dlls(cuda=not cudnn, cudnn=cudnn, directory=str(folder.absolute()))
        preload_dlls()
