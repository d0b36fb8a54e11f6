"""Manifest: what a bundle is, file by file; read from and written to `manifest.json`."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field

from .engine import EngineEntry
from .errors import BundleError, SpecError
from .spec import NetworkSpec

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class FileEntry:
    """One file: its sha256 and its size in bytes."""

    sha256: str
    bytes: int


@dataclass(frozen=True)
class Models:
    """The models of one precision: the whole network, its stages (name, file) in the order in which they run, and the
    network cut in two for runners that keep a prepared support on their device (None in bundles that lack them).

    The tensors between `prepare` and `predict` are described in export/emit/whole.py.
    """

    whole: str
    stages: tuple[tuple[str, str], ...]
    prepare: str | None = None
    predict: str | None = None

    @property
    def listed(self) -> tuple[str, ...]:
        """Every file of this precision."""
        files = (self.whole, self.prepare, self.predict, *(file for _, file in self.stages))
        return tuple(file for file in files if file is not None)


@dataclass(frozen=True)
class InputContract:
    """What the network is given: grid height and width in pixels, and how images get there."""

    height: int
    width: int
    size_multiple: int
    normalisation: str = "per-image min-max to [0, 1]"
    labels: str = "binary, 0 and 1"


@dataclass(frozen=True)
class Manifest:
    """A bundle's table of contents. `parity`, `provenance` and `licence` are plain values, documented in README.md.

    engines: built from the models for one kind of GPU each; their files are in `files`, as all others are.
    """

    name: str
    version: str
    spec: NetworkSpec
    weights_sha256: str
    input: InputContract
    models: dict[str, Models]
    files: dict[str, FileEntry]
    parity: dict = field(default_factory=dict)
    provenance: dict = field(default_factory=dict)
    licence: dict = field(default_factory=dict)
    engines: tuple[EngineEntry, ...] = ()
    schema_version: int = SCHEMA_VERSION

    @property
    def precisions(self) -> tuple[str, ...]:
        return tuple(self.models)

    def to_json(self) -> str:
        values = asdict(self)
        values["spec"] = self.spec.to_dict()
        values["precisions"] = list(self.precisions)
        return json.dumps(values, indent=2, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: str, source: str) -> "Manifest":
        """Raises BundleError naming `source` where the text is no manifest, or one of a newer schema."""
        try:
            values = json.loads(text)
        except ValueError as error:
            raise BundleError(f"{source} is not whole JSON ({error}); export or install the bundle again") from None
        if not isinstance(values, dict) or not isinstance(values.get("schema_version"), int):
            raise BundleError(f"{source} is not a universeg_rt manifest; give a folder that universeg-export wrote")
        if values["schema_version"] > SCHEMA_VERSION:
            raise BundleError(
                f"{source} has schema version {values['schema_version']}, this installation reads up to "
                f"{SCHEMA_VERSION}; upgrade universeg_rt")
        try:
            manifest = cls(
                name=str(values["name"]),
                version=str(values["version"]),
                spec=NetworkSpec.from_dict(values["spec"]),
                weights_sha256=str(values["weights_sha256"]),
                input=InputContract(**values["input"]),
                models={
                    precision: Models(str(m["whole"]), tuple((str(n), str(f)) for n, f in m["stages"]),
                                      _optional(m.get("prepare")), _optional(m.get("predict")))
                    for precision, m in values["models"].items()
                },
                files={name: FileEntry(str(f["sha256"]), int(f["bytes"])) for name, f in values["files"].items()},
                parity=dict(values["parity"]),
                provenance=dict(values["provenance"]),
                licence=dict(values["licence"]),
                engines=tuple(EngineEntry.from_dict(e) for e in values.get("engines", ())),
                schema_version=values["schema_version"],
            )
            sides = (manifest.input.height, manifest.input.width)
            if any(not isinstance(side, int) or side < 1 or side % manifest.spec.size_multiple for side in sides):
                raise ValueError(f"input size {sides} is no multiple of {manifest.spec.size_multiple}")
            return manifest
        except (KeyError, TypeError, ValueError, AttributeError, SpecError) as error:
            raise BundleError(f"{source} is incomplete or altered ({error!r}); export or install the bundle again") from None


def _optional(value: object) -> str | None:
    return None if value is None else str(value)
