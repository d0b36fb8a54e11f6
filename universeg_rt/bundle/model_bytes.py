"""ModelBytes: all that a runner loads of one model, in memory; a runner never opens a model's file itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from ..errors import BundleError
from .onnx_file import external_locations, with_data_inside
from .weights import WEIGHTS

if TYPE_CHECKING:
    from ..named_types import AnyPath


@dataclass(frozen=True, eq=False)
class ModelBytes:
    """A model's bytes, and those of the files that its tensors lie in (ONNX external data), by the name that the model
    gives; of the native runner's list of arrays, those of the bundle's weights.

    `Bundle.load` gives them checked. Runtimes take bytes and no path, so that nothing else is ever read.
    """

    name: str
    data: bytes
    external: Mapping[str, bytes] = field(default_factory=dict)

    @classmethod
    def collect(cls, name: str, read: Callable[[str], bytes]) -> ModelBytes:
        """Read a model and what it names. read: gives a file's bytes by its name, or raises. BundleError where the file
        is no ONNX model; what `read` raises where it names a file that is not there to be read."""
        data, beside = read(name), PurePosixPath(name).parent
        if not name.endswith(".onnx"):
            return cls(name, data, {WEIGHTS: read((beside / WEIGHTS).as_posix())})
        try:
            locations = sorted(external_locations(data))
        except ValueError as error:  # UnicodeDecodeError is one
            raise BundleError(f"{name} is no ONNX model ({error}); export the bundle again") from None
        return cls(name, data, {location: read((beside / location).as_posix()) for location in locations})

    @classmethod
    def of_file(cls, path: AnyPath) -> ModelBytes:
        """Of a file of one's own, which nobody vouches for: what an exporter has just written."""
        path = Path(path)
        return cls.collect(path.name, lambda name: (path.parent / name).read_bytes())

    @staticmethod
    def bytes_in_all(models: Iterable[ModelBytes]) -> int:
        """Of several models, files that they share counted once."""
        models = list(models)
        files = {id(content): len(content) for model in models for content in model.external.values()}
        return sum(len(model.data) for model in models) + sum(files.values())

    def whole(self) -> bytes:
        """The model as one run of bytes, external data put into it; BundleError where its tensors do not fit them."""
        try:
            return with_data_inside(self.data, self.external)
        except ValueError as error:
            raise BundleError(
                f"{self.name} does not fit its external data ({error}); export the bundle again") from None
