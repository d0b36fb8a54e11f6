"""A bundle is a folder with `manifest.json` and the models it lists; opening one checks every file."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from .errors import BundleError
from .manifest import FileEntry, Manifest, Models

MANIFEST = "manifest.json"
SHIPPED = Path(__file__).parent / "bundles" / "universeg_rt_v1"


@dataclass(frozen=True)
class Bundle:
    """An opened, checked bundle. sha256 is that of the manifest, which holds those of all other files."""

    path: Path
    manifest: Manifest
    sha256: str

    @classmethod
    def open(cls, path: str | os.PathLike | None = None) -> "Bundle":
        """Open a bundle (None: the one shipped in the package) and check all of its files.

        Raises BundleError naming the file and the cure where one is missing, altered, truncated or of a newer schema.
        """
        shipped = path is None
        path = SHIPPED if path is None else Path(path)
        cure = "reinstall universeg_rt" if shipped else "export it again with universeg-export, or copy it again"
        if not path.is_dir():
            raise BundleError(f"no bundle at {path}: {'it is not a folder' if path.exists() else 'nothing is there'}; {cure}")
        manifest_path = path / MANIFEST
        try:
            text = manifest_path.read_bytes()
        except OSError as error:
            raise BundleError(f"{manifest_path} cannot be read ({error.strerror}); {cure}") from None
        try:
            manifest = Manifest.from_json(text.decode(), str(manifest_path))
        except UnicodeDecodeError:
            raise BundleError(f"{manifest_path} is not text; {cure}") from None
        for name, entry in manifest.files.items():
            _check_file(path, name, entry, cure)
        listed = [file for m in manifest.models.values() for file in m.listed]
        listed += [file for engine in manifest.engines for file in engine.files]
        unknown = sorted(set(listed) - set(manifest.files))
        if unknown or not manifest.models:
            raise BundleError(f"{manifest_path} lists models or engines without their files ({', '.join(unknown) or 'none at all'}); {cure}")
        return cls(path, manifest, hashlib.sha256(text).hexdigest())

    def file(self, name: str) -> Path:
        return self.path / name

    def stages(self, precision: str) -> list[tuple[str, Path]]:
        """Names and files of a precision's stages, in order; BundleError where the bundle has no such precision."""
        return [(name, self.file(file)) for name, file in self._models(precision).stages]

    def model(self, precision: str, part: str = "whole") -> Path:
        """File of a precision's `whole`, `prepare` or `predict` model or `native` weights; BundleError where it has none."""
        models = self._models(precision)
        name = {"whole": models.whole, "prepare": models.prepare, "predict": models.predict, "native": models.native}[part]
        if name is None:
            old = f"it was exported by an older version: export it again with universeg-export --precision {precision}"
            if part == "native" and self.manifest.spec.cross_activation != "none":
                old = "this network has an activation in the cross convolution, which the native runner does not do"
            raise BundleError(f"{self.path} holds no {part} model of {precision}; {old}")
        return self.file(name)

    def _models(self, precision: str) -> Models:
        models = self.manifest.models
        if precision not in models:
            raise BundleError(
                f"{self.path} holds no {precision} models; it has {', '.join(models)}: choose one of these, or export the "
                f"bundle again with universeg-export --precision {precision}")
        return models[precision]


def file_entry(path: Path) -> FileEntry:
    """Size and sha256 of a file."""
    data = path.read_bytes()
    return FileEntry(hashlib.sha256(data).hexdigest(), len(data))


def _check_file(folder: Path, name: str, entry: FileEntry, cure: str) -> None:
    parts = PurePosixPath(name)
    if parts.is_absolute() or ".." in parts.parts:
        raise BundleError(f"{folder / MANIFEST} names a file outside the bundle ({name}); {cure}")
    path = folder / name
    try:
        size = path.stat().st_size
    except OSError:
        raise BundleError(f"{path} is missing; {cure}") from None
    if size != entry.bytes:
        kind = "truncated" if size < entry.bytes else "altered"
        raise BundleError(f"{path} is {kind}: {size} bytes instead of {entry.bytes}; {cure}")
    if file_entry(path).sha256 != entry.sha256:
        raise BundleError(f"{path} is altered: its sha256 is not the manifest's; {cure}")
