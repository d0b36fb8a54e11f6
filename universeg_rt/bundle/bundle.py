"""A bundle is a folder with `manifest.json` and the models it lists; opening one checks every file, and nothing else is
read."""

from __future__ import annotations

import errno
import functools
import hashlib
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import BundleError
from ..precision import PRECISIONS
from ..storage.atomic import recover_folder
from . import onnx_file
from .manifest import FileEntry, Manifest, Models
from .model_bytes import ModelBytes
from .weights import WEIGHTS, mapping, read_metadata, read_tensors, reference_weights

if TYPE_CHECKING:
    from ..named_types import AnyPath, Floats

MANIFEST = "manifest.json"
LARGEST_MANIFEST = 2**24  # bytes
# An installation may be made of links: the folder beside the file that this module is.
SHIPPED = Path(__file__).resolve().parents[1] / "bundles" / "universeg_rt_v1"
# What a network with an activation in the cross convolution lacks, and why.
_NEEDS_NONE = {
    "native": "which the native runner does not do",
    "static": "so its query reads every support entry anew and a task can only be frozen as exact"}
AGAIN = "export it again with universeg-export, or copy it again"


@dataclass(frozen=True)
class Bundle:
    """An opened, checked bundle. sha256 is that of the manifest, which holds those of all other files."""

    path: Path
    manifest: Manifest
    sha256: str

    @classmethod
    def open(cls, path: AnyPath | None = None) -> Bundle:
        """Open a bundle (None: the one shipped in the package) and check all of its files, against the manifest and by
        what the models say of themselves.

        Raises BundleError naming the file and the cure where one is missing, altered, truncated, no regular file, not
        of this network, or of another schema.
        """
        shipped = path is None
        path = SHIPPED if path is None else Path(path)
        cure = "reinstall universeg_rt" if shipped else AGAIN
        if not os.path.lexists(path):
            recover_folder(path)
        if not path.is_dir():
            raise BundleError(
                f"no bundle at {path}: {'it is not a folder' if path.exists() else 'nothing is there'}; {cure}")
        manifest, text = read_manifest(path, cure)
        network = manifest.metadata
        said = {WEIGHTS: [{**network, "universeg.kind": "weights"}]}
        for precision, models in manifest.models.items():
            for file, kind in models.kinds:
                said.setdefault(file, []).append({**network, "universeg.precision": precision, "universeg.kind": kind})
        for name, entry in manifest.files.items():
            data = _read_checked(path, name, entry, cure)
            for expected in said.get(name, ()):
                _check_metadata(path / name, data, expected, cure)
        return cls(path, manifest, hashlib.sha256(text).hexdigest())

    def read(self, name: str) -> bytes:
        """Bytes of a file that the manifest lists, as the manifest says they are; BundleError where they are not, or it
        is not listed."""
        if name not in self.manifest.files:
            raise BundleError(f"{name!r} is not among the files that the manifest of {self.path} lists; {AGAIN}")
        return _read_checked(self.path, name, self.manifest.files[name], AGAIN)

    def load(self, precision: str, part: str = "whole") -> ModelBytes:
        """A precision's model as in `model`, with all that it takes data from; BundleError as there and in `read`."""
        return self._load(self.model(precision, part), self.read)

    def load_stages(self, precision: str) -> list[tuple[str, ModelBytes]]:
        """Names and models of a precision's stages, in order. They share the weights' bytes.
        BundleError as in `load`."""
        read = functools.cache(self.read)
        return [(name, self._load(path, read)) for name, path in self.stages(precision)]

    def weights(self) -> dict[str, Floats]:
        """The reference network's weights by state-dict key, as float32 arrays; BundleError as in `read`."""
        return reference_weights(read_tensors(self.read(WEIGHTS)), self.manifest.spec)

    def _load(self, path: Path, read: Callable[[str], bytes]) -> ModelBytes:
        return ModelBytes.collect(path.relative_to(self.path).as_posix(), read)

    def file(self, name: str) -> Path:
        return self.path / name

    def stages(self, precision: str) -> list[tuple[str, Path]]:
        """Names and files of a precision's stages, in order; BundleError where the bundle has no such precision."""
        return [(name, self.file(file)) for name, file in self._models(precision).stages]

    def model(self, precision: str, part: str = "whole") -> Path:
        """File of a precision's `whole`, `prepare`, `predict` or `static` model or `native` weights; BundleError where
        it has none."""
        models = self._models(precision)
        name = {"whole": models.whole, "prepare": models.prepare, "predict": models.predict,
                "native": models.native, "static": models.static}[part]
        if name is None:
            old = f"it was exported by an older version: export it again with universeg-export --precision {precision}"
            if part in _NEEDS_NONE and self.manifest.spec.cross_activation != "none":
                old = f"this network has an activation in the cross convolution, {_NEEDS_NONE[part]}"
            elif part == "static" and precision in PRECISIONS and not PRECISIONS[precision].is_static:
                old = "take " + " or ".join(name for name, each in PRECISIONS.items() if each.is_static)
            raise BundleError(f"{self.path} holds no {part} model of {precision}; {old}")
        return self.file(name)

    def _models(self, precision: str) -> Models:
        models = self.manifest.models
        if precision not in models:
            raise BundleError(
                f"{self.path} holds no {precision} models; it has {', '.join(models)}: choose one of these, or export "
                f"the bundle again with universeg-export --precision {precision}")
        return models[precision]


def file_entry(path: Path) -> FileEntry:
    """Size and sha256 of a file."""
    data = path.read_bytes()
    return FileEntry(hashlib.sha256(data).hexdigest(), len(data))


def read_manifest(folder: Path, cure: str = AGAIN) -> tuple[Manifest, bytes]:
    """A bundle's manifest and its text; BundleError where there is none or it is no manifest."""
    path = folder / MANIFEST
    text = _read(folder, MANIFEST, LARGEST_MANIFEST + 1, cure)
    if len(text) > LARGEST_MANIFEST:
        raise BundleError(f"{path} has more than {LARGEST_MANIFEST} bytes and is no manifest; {cure}")
    try:
        return Manifest.from_json(text.decode(), str(path)), text
    except UnicodeDecodeError:
        raise BundleError(f"{path} is not text; {cure}") from None


def _read_checked(folder: Path, name: str, entry: FileEntry, cure: str) -> bytes:
    """Bytes of a listed file; BundleError where they are not those of the manifest."""
    data = _read(folder, name, entry.bytes + 1, cure, entry.bytes)
    if len(data) != entry.bytes or hashlib.sha256(data).hexdigest() != entry.sha256:
        raise BundleError(f"{folder / name} is altered: its sha256 is not the manifest's; {cure}")
    return data


def _read(folder: Path, name: str, limit: int, cure: str, size: int | None = None) -> bytes:
    """Up to `limit` bytes of a regular file.
    BundleError, before any byte is read, where it is none or has another size."""
    parts = name.split("/")
    if any(part in ("", ".", "..", "_ORT_MEM_ADDR_") for part in parts) or any(c in name for c in "\\:\0"):
        raise BundleError(f"{folder / MANIFEST} names a file outside the bundle ({name!r}); {cure}")
    try:
        handle = _open(folder, parts)
    except FileNotFoundError:
        raise BundleError(
            f"{folder / name} {'cannot be read (nothing is there)' if size is None else 'is missing'}; {cure}"
        ) from None
    except (OSError, ValueError) as error:  # ValueError: a name that the file system cannot hold
        raise BundleError(
            f"{folder / name} cannot be read ({getattr(error, 'strerror', None) or error}); {cure}") from None
    try:
        with open(handle, "rb") as file:
            found = os.fstat(handle).st_size
            if size is not None and found != size:
                kind = "truncated" if found < size else "altered"
                raise BundleError(f"{folder / name} is {kind}: {found} bytes instead of {size}; {cure}")
            return file.read(min(limit, found + 1))
    except OSError as error:
        raise BundleError(f"{folder / name} cannot be read ({error.strerror}); {cure}") from None


def _open(folder: Path, parts: list[str]) -> int:
    """Opens a regular file of a folder; OSError where it is none, or where it or a folder between is a link."""
    inner, last = parts[:-1], parts[-1]
    flags = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
    follow = {"follow_symlinks": False}
    # not on Windows, where a link can still be put in between the look and the opening
    if os.open not in os.supports_dir_fd:
        for i in range(1, len(parts) + 1):
            _check_kind(os.stat(folder.joinpath(*parts[:i]), **follow).st_mode, i < len(parts))
        return os.open(folder.joinpath(*parts), flags)
    here = os.open(folder, flags | os.O_DIRECTORY)
    try:
        for part in inner:
            _check_kind(os.stat(part, dir_fd=here, **follow).st_mode, True)
            below = os.open(part, flags | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=here)
            os.close(here)
            here = below
        _check_kind(os.stat(last, dir_fd=here, **follow).st_mode, False)  # opening a device may do something
        handle = os.open(last, flags | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=here)
    finally:
        os.close(here)
    try:
        _check_kind(os.fstat(handle).st_mode, False)
    except OSError:
        os.close(handle)
        raise
    return handle


def _check_kind(mode: int, is_folder: bool) -> None:
    if stat.S_ISLNK(mode):
        raise OSError(
            errno.ELOOP,
            "it is a link, or lies in a linked folder; a bundle holds its files itself: cp -rL makes such a copy")
    if is_folder != stat.S_ISDIR(mode) or not (is_folder or stat.S_ISREG(mode)):
        raise OSError(errno.EINVAL, "it is no regular file")


def _check_metadata(path: Path, data: bytes, expected: dict[str, str], cure: str) -> None:
    """BundleError where a model is not the one that the manifest describes."""
    try:
        found = _SAYS.get(path.suffix, onnx_file.metadata)(data)
    except Exception as error:  # the bytes may be anything, and nothing but they is read here
        raise BundleError(f"{path} is no model of ours ({error}); {cure}") from None
    for key, value in expected.items():
        if found.get(key) != value:
            raise BundleError(
                f"{path} is not the model that the manifest describes: its {key} is {found.get(key)!r}, the manifest's "
                f"{value!r}; {cure}")


# How a file says what it is, by its suffix.
_SAYS: dict[str,
            Callable[[bytes],
                     dict[str,
                          str]]] = {".safetensors": read_metadata, ".json": functools.partial(mapping, key="metadata")}
