"""Opens a built plugin library under the running TensorRT; a library of another generation is refused by name."""

from __future__ import annotations

import ctypes
import hashlib
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from types import ModuleType

from ....errors import InputError, RunnerError

NAMESPACE = "universeg_rt"
OPERATIONS = ("SupportMean", "SupportMeanPool")


@dataclass(frozen=True)
class PluginInfo:
    """generation: 8 (TensorRT 8.5 to 9) or 10 (10 and later); headers: the version it was compiled against, as
    "10.14"."""

    path: Path
    generation: int
    headers: str


def inspect(path: str | Path) -> PluginInfo:
    """What a plugin library is; opens it, needs neither TensorRT nor a GPU. InputError where it is no such library."""
    path = Path(path)
    if not path.is_file():
        raise InputError(
            f"{path} does not exist; build the plugin with `python -m universeg_rt.kernels.build --plugin`")
    try:
        library = ctypes.CDLL(str(path))
        library.universeg_rt_plugin_headers.restype = ctypes.c_char_p
        return PluginInfo(path, library.universeg_rt_plugin_generation(),
                          library.universeg_rt_plugin_headers().decode())
    except (OSError, AttributeError) as error:
        raise InputError(f"{path} is not a universeg_rt plugin library: {error}") from None


def required_generation(tensorrt_version: str) -> int:
    """8 or 10, from TensorRT's version; TensorRT-RTX counts from 1 and has the interfaces of 10."""
    try:
        major = int(tensorrt_version.split(".")[0])
    except ValueError:
        raise InputError(f"{tensorrt_version!r} is no TensorRT version; give one such as '10.14.1'") from None
    return 8 if 8 <= major < 10 else 10


def load(path: str | Path, tensorrt: ModuleType, libnvinfer: ctypes.CDLL | None = None) -> PluginInfo:
    """Registers the operations with `tensorrt` (the Python module) and says what was loaded.

    TensorRT 8.6 and later load the library themselves. 8.5 cannot: pass `libnvinfer`, the library its module opened.
    Raises RunnerError where the library is of another generation or TensorRT refuses it.
    """
    info = inspect(path)
    needed = required_generation(tensorrt.__version__)
    if info.generation != needed:
        raise RunnerError(
            f"{info.path.name} was built against TensorRT {info.headers} and TensorRT {tensorrt.__version__} runs "
            f"here; build it against headers of {'8.5 to 9' if needed == 8 else '10 or later'} (TENSORRT_INCLUDE)")
    registry = tensorrt.get_plugin_registry()
    if libnvinfer is None and hasattr(registry, "load_library"):
        registry.load_library(str(path))
        return info
    if libnvinfer is None:
        raise RunnerError(
            f"TensorRT {tensorrt.__version__} has no load_library; pass libnvinfer, opened with ctypes.CDLL")
    library = ctypes.CDLL(str(path))
    library.universeg_rt_register.argtypes = [ctypes.c_void_p]
    library.universeg_rt_last_error.restype = ctypes.c_char_p
    if library.universeg_rt_register(libnvinfer._handle) != 0:
        raise RunnerError(f"TensorRT refused {info.path.name}: {library.universeg_rt_last_error().decode()}")
    return info


def find(sha256: str, named: Sequence[Path] = ()) -> Path | None:
    """The plugin library with this sha256: of those named, else beside the kernels of this installation; None where
    there is none."""
    built = sorted((Path(__file__).parents[3] / "kernels" / "lib").glob("libuniverseg_rt_plugin_trt*.so"))
    spec = importlib.util.find_spec("universeg_rt.kernels")  # an editable installation keeps it elsewhere
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        built += sorted((Path(folder) / "lib").glob("libuniverseg_rt_plugin_trt*.so"))
    for path in (*named, *built):
        if path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == sha256:
            return path
    return None


_loaded: set[tuple[str, Path]] = set()
_lock = Lock()


def ensure(path: Path, tensorrt: ModuleType) -> None:
    """`load`, once a process for each library; with TensorRT 8.5 it finds the library that the module opened."""
    key = (tensorrt.__name__, path.resolve())
    with _lock:
        if key in _loaded:
            return
        handle = None
        if not hasattr(tensorrt.get_plugin_registry(), "load_library"):
            handle = _libnvinfer(tensorrt)
        load(path, tensorrt, handle)
        _loaded.add(key)


def _libnvinfer(tensorrt: ModuleType) -> ctypes.CDLL:
    major = tensorrt.__version__.split(".")[0]
    file: str | None = getattr(tensorrt, "__file__", None)
    folders = [Path(file).parent] if file else []
    names = [str(folder / f"libnvinfer.so.{major}") for folder in folders] + [f"libnvinfer.so.{major}"]
    for name in names:
        try:
            return ctypes.CDLL(name)
        except OSError as error:
            reason = error
    raise RunnerError(f"the plugin needs TensorRT's own library and it was not found ({reason}); put its folder on "
                      "LD_LIBRARY_PATH")
