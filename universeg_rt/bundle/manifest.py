"""Manifest: what a bundle is, file by file; read from and written to `manifest.json`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from ..errors import BundleError, SpecError
from ..spec import NetworkSpec
from .engine import EngineEntry
from .weights import WEIGHTS

SCHEMA_VERSION = 3
LARGEST_FILE = 2**32  # bytes of one file of a bundle


@dataclass(frozen=True)
class FileEntry:
    """One file: its sha256 and its size in bytes."""

    sha256: str
    bytes: int


@dataclass(frozen=True)
class Models:
    """The models of one precision: the whole network, its stages (name, file) in the order in which they run, the
    network cut in two for runners that keep a prepared support on their device, the list of the native runner's arrays,
    and the template of frozen tasks (None in bundles that lack them). The numbers of all lie in WEIGHTS.

    The tensors between `prepare` and `predict` are described in export/emit/whole.py, the arrays in
    export/emit/native.py, the template in export/emit/static.py.
    """

    whole: str
    stages: tuple[tuple[str, str], ...]
    prepare: str | None = None
    predict: str | None = None
    native: str | None = None
    static: str | None = None

    @property
    def listed(self) -> tuple[str, ...]:
        """Every file of this precision."""
        return tuple(file for file, _ in self.kinds)

    @property
    def on_device(self) -> tuple[str, ...]:
        """What a GPU's runner reads: the pair, or the whole network where there is no pair."""
        return ("prepare", "predict") if self.prepare is not None and self.predict is not None else ("whole",)

    @property
    def kinds(self) -> tuple[tuple[str, str], ...]:
        """Every file with what it says of itself as `universeg.kind`."""
        parts = ((self.whole, "whole"), (self.prepare, "prepare"), (self.predict, "predict"), (self.native, "native"),
                 (self.static, "static"))
        stages = ((file, f"stage:{name}") for name, file in self.stages)
        return (*((file, kind) for file, kind in parts if file is not None), *stages)


@dataclass(frozen=True)
class InputContract:
    """What the network is given: grid height and width in pixels, and how images get there.

    normalisation, labels: stated for other programs that read the files; they have one value each.
    """

    height: int
    width: int
    size_multiple: int
    normalisation: str = "per-image min-max to [0, 1]"
    labels: str = "binary, 0 and 1"


def network_metadata(spec: NetworkSpec, weights_sha256: str, given: InputContract, version: str) -> dict[str, str]:
    """What every model of a bundle says of its network, in its own metadata; the exporter adds `universeg.precision`
    (of `precision.PRECISIONS`) and `universeg.kind` (as `Models.kinds`)."""
    return {"universeg.spec": spec.to_json(), "universeg.weights_sha256": weights_sha256, "universeg.version": version,
            "universeg.input": json.dumps(asdict(given), sort_keys=True)}


@dataclass(frozen=True)
class Manifest:
    """A bundle's table of contents. `parity`, `provenance` and `licence` are plain values, documented in README.md.

    engines: built from the models for one kind of GPU each; their files are in `files`, as all others are. The text
    holds the sha256 of its own body, and the parity report of a precision that of the models that were compared.
    """

    name: str
    version: str
    spec: NetworkSpec
    weights_sha256: str
    input: InputContract
    models: dict[str, Models]
    files: dict[str, FileEntry]
    parity: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    licence: dict[str, Any] = field(default_factory=dict)
    engines: tuple[EngineEntry, ...] = ()
    schema_version: int = SCHEMA_VERSION

    @property
    def precisions(self) -> tuple[str, ...]:
        return tuple(self.models)

    @property
    def metadata(self) -> dict[str, str]:
        """As `network_metadata`: what every model must say of its network."""
        return network_metadata(self.spec, self.weights_sha256, self.input, self.version)

    def models_sha256(self, precision: str) -> str:
        """Of all models of a precision and the weights together: what its parity report was measured on."""
        kinds = (*self.models[precision].kinds, (WEIGHTS, "weights"))
        return _sha256([[kind, self.files[file].sha256] for file, kind in kinds])

    def with_parity(self, parity: Mapping[str, Mapping[str, Any]]) -> Manifest:
        """The same with these parity reports, each tied to the models that it was measured on."""
        return replace(self,
                       parity={p: {**report, "models_sha256": self.models_sha256(p)}
                               for p, report in parity.items()})

    def to_json(self) -> str:
        values = asdict(self)
        values["spec"] = self.spec.to_dict()
        return sealed(json.loads(json.dumps(values)))

    @classmethod
    def from_json(cls, text: str, source: str) -> Manifest:
        """Raises BundleError naming `source` where the text is no manifest, was changed after it was written, or has
        another schema than this version writes."""
        again = "export or install the bundle again"
        try:
            values = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise BundleError(f"{source} is not whole JSON ({error}); {again}") from None
        schema = values.get("schema_version") if isinstance(values, dict) else None
        if schema is None or not _is_count(schema):
            raise BundleError(f"{source} is not a universeg_rt manifest; give a folder that universeg-export wrote")
        if schema != SCHEMA_VERSION:
            cure = "upgrade universeg_rt" if schema > SCHEMA_VERSION else again
            raise BundleError(f"{source} has schema version {schema}, this installation reads {SCHEMA_VERSION}; {cure}")
        try:
            _check_sha256(values)
            manifest = cls._of(values)
            manifest._check()
            return manifest
        except Exception as error:  # a text may be wrong in more ways than can be listed; nothing but it is read here
            reason = str(error) if isinstance(error, (ValueError, SpecError)) else repr(error)
            raise BundleError(f"{source} is incomplete or altered ({reason}); {again}") from None

    @classmethod
    def _of(cls, values: dict[str, Any]) -> Manifest:
        return cls(
            name=_text(values["name"]),
            version=_text(values["version"]),
            spec=NetworkSpec.from_dict(values["spec"]),
            weights_sha256=_text(values["weights_sha256"]),
            input=InputContract(**values["input"]),
            models={
                precision: Models(_text(m["whole"]), tuple((_text(n), _text(f)) for n, f in m["stages"]),
                                  *(_optional(m.get(part)) for part in ("prepare", "predict", "native", "static")))
                for precision, m in values["models"].items()
            },
            files={name: FileEntry(_text(f["sha256"]), f["bytes"]) for name, f in values["files"].items()},
            parity=dict(values["parity"]),
            provenance=dict(values["provenance"]),
            licence=dict(values["licence"]),
            engines=tuple(EngineEntry.from_dict(e) for e in values.get("engines", ())),
            schema_version=values["schema_version"],
        )

    def _check(self) -> None:
        """ValueError where parts do not fit one another."""
        given, multiple = self.input, self.spec.size_multiple
        sides = (given.height, given.width)
        if any(not _is_count(side) or side % multiple for side in sides):
            raise ValueError(f"input size {sides} is no multiple of {multiple}")
        accepted = asdict(InputContract(*sides, multiple))
        for name, value in asdict(given).items():
            if value != accepted[name]:
                raise ValueError(f"of its input, {name} is {value!r}; accepted: {accepted[name]!r}")
        for name, entry in self.files.items():
            if not (isinstance(entry.bytes, int) and not isinstance(entry.bytes, bool)
                    and 0 <= entry.bytes <= LARGEST_FILE):
                raise ValueError(f"{name} has {entry.bytes!r} bytes; a file has up to {LARGEST_FILE}")
        listed = [WEIGHTS] + [file for m in self.models.values()
                              for file in m.listed] + [file for e in self.engines for file in e.files]
        unknown = sorted(set(listed) - set(self.files))
        if unknown or not self.models:
            raise ValueError(f"it lists models or engines without their files ({', '.join(unknown) or 'none at all'})")
        for precision, report in self.parity.items():
            if precision not in self.models:
                raise ValueError(f"it has a parity report of {precision} and no such models")
            if report["models_sha256"] != self.models_sha256(precision):
                raise ValueError(
                    f"the models of {precision} are not those that were compared with the reference network")


def sealed(values: Mapping[str, Any]) -> str:
    """The text of a manifest's plain values with the sha256 of this body, which replaces one that is there already."""
    body = {key: value for key, value in values.items() if key != "sha256"}
    return json.dumps({**body, "sha256": _sha256(body)}, indent=2, sort_keys=True) + "\n"


def _check_sha256(values: dict[str, Any]) -> None:
    if values.pop("sha256", None) != _sha256(values):
        raise ValueError("its sha256 is not that of its body: a value was changed after it was written")


def _sha256(values: object) -> str:
    """Of plain values, however their text is spaced and ordered."""
    return hashlib.sha256(json.dumps(values, sort_keys=True, separators=(",", ":"),
                                     ensure_ascii=False).encode()).hexdigest()


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} where a text belongs")
    return value


def _optional(value: object) -> str | None:
    return None if value is None else _text(value)
