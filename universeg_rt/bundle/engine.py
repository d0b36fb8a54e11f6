"""What a built engine is: the shapes it takes, the machine and files it was made for, and where it lies in its bundle.

Plain values, shared by whoever builds engines (`export/engine/`) and by the runners; nothing here loads a GPU library.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from ..errors import EngineError, InputError

BUILDERS = ("tensorrt", "tensorrt-rtx")
MODELS = ("whole", "prepare", "predict")

Range = tuple[int, int, int]  # smallest, the one to optimise for, largest
Options = Mapping[str, object] | Iterable[tuple[str, object]]  # of a builder: values by name, or pairs


@dataclass(frozen=True)
class Profile:
    """The shapes an engine takes: numbers of queries B, support sets K and entries S of a set, each from the first to
    the last value and fastest at the middle one, and one image size (height, width) in pixels. InputError where they
    cannot be.
    """

    queries: Range = (1, 1, 1)
    sets: Range = (1, 1, 1)
    entries: Range = (1, 64, 256)
    image: tuple[int, int] = (128, 128)

    def __post_init__(self) -> None:
        for name in ("queries", "sets", "entries"):
            object.__setattr__(self, name, _range(name, getattr(self, name)))
        try:
            image: tuple[object, ...] = tuple(self.image)
        except TypeError:
            image = (self.image,)
        if len(image) != 2 or any(not _is_count(side) for side in image):
            raise InputError(
                f"the profile's image is {self.image!r}; give a height and a width in pixels, such as (128, 128)")
        object.__setattr__(self, "image", image)

    @classmethod
    def parse(cls, queries: str = "1", sets: str = "1", entries: str = "1:64:256",
              image: tuple[int, int] = (128, 128)) -> Profile:
        """From texts as on the command line: `min:opt:max`, or one number where the shape never changes."""
        return cls(_parse("queries", queries), _parse("sets", sets), _parse("entries", entries), image)

    def check(self, queries: int, sets: int, entries: int, height: int, width: int) -> None:
        """Raise InputError, naming the allowed range, where a request does not fit."""
        for name, value in (("queries", queries), ("sets", sets), ("entries", entries)):
            low, best, high = getattr(self, name)
            if not low <= value <= high:
                allowed = f"exactly {low}" if low == high else f"{low} to {high}"
                wider = f"{max(1, min(low, value))}:{best}:{max(high, value)}"
                raise InputError(
                    f"{value} {_WORDS[name]}; this engine was built for {allowed}: stay within, or build another "
                    f"with universeg-export --engine ... --profile-{name} {wider}")
        if (height, width) != self.image:
            raise InputError(
                f"images of {height}x{width}; this engine was built for {self.image[0]}x{self.image[1]} only: "
                "bring them to this size, or export a bundle with another --grid")

    def fits(self, queries: int, sets: int, entries: int, height: int, width: int) -> bool:
        """Whether `check` passes."""
        try:
            self.check(queries, sets, entries, height, width)
        except InputError:
            return False
        return True

    def __str__(self) -> str:
        ranges = (f"{name} {':'.join(map(str, getattr(self, name)))}" for name in ("queries", "sets", "entries"))
        return f"{', '.join(ranges)}, image {self.image[0]}x{self.image[1]}"


@dataclass(frozen=True)
class Fingerprint:
    """All that an engine depends on. Texts; an empty one means that the engine is not bound to this fact.

    builder: of BUILDERS, with its version. cuda: that of the driver at build time; a driver of the same or a
    later major version runs the engine as well.
    gpu: the GPU's name. compute_capability: "9.0" this one, "8.0+" this one and later, "8.6 8.9" one of these.
    onnx_sha256: of the model in the bundle. plugin_version, plugin_sha256: of the plugin library; empty: native
    operators. precision: of `precision.PRECISIONS`. options: (name, value) of every builder option, sorted by name.
    """

    builder: str
    builder_version: str
    cuda: str
    gpu: str
    compute_capability: str
    onnx_sha256: str
    plugin_version: str
    plugin_sha256: str
    precision: str
    options: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        for name in _FACTS:
            if not isinstance(getattr(self, name), str):
                raise InputError(f"the fingerprint's {name} is {getattr(self, name)!r}; give a text")
        if self.builder not in BUILDERS:
            raise InputError(f"the fingerprint's builder is {self.builder!r}; accepted: {', '.join(BUILDERS)}")
        options = self.options.items() if isinstance(self.options, Mapping) else self.options
        object.__setattr__(self, "options", tuple(sorted((str(name), str(value)) for name, value in options)))

    def differences(self, options: Options | None = None, **present: str) -> tuple[str, ...]:
        """Of the facts given, as here and now, each one that does not fit: "gpu: built for 'A', here is 'B'".

        Give what the machine and the files at hand say, for example `differences(builder_version=tensorrt.__version__,
        gpu=..., compute_capability="9.0", onnx_sha256=..., plugin_sha256=...)`.
        options: the builder's, by name or as pairs.
        """
        out = []
        if options is not None:
            here = dict(options)
            out += [f"options.{name}: built with {value!r}, here is {str(here.get(name, ''))!r}"
                    for name, value in self.options if str(here.get(name, "")) != value]
        for name, value in present.items():
            if name not in _FACTS:
                raise TypeError(f"a fingerprint has no field {name!r}; it has {', '.join((*_FACTS, 'options'))}")
            built = getattr(self, name)
            if built and not _fits(name, built, value):
                out.append(f"{name}: built for {built!r}, here is {value!r}")
        return tuple(out)

    def check(self, engine: str, options: Options | None = None, **present: str) -> None:
        """Raise EngineError naming `engine` and every field of `differences`; an engine is never rebuilt in silence."""
        found = self.differences(options, **present)
        if found:
            raise EngineError(f"{engine} does not fit here; {'; '.join(found)}: build it here with "
                              f"universeg-export --engine {self.builder}")

    @property
    def digest(self) -> str:
        """Twelve hexadecimal digits over all fields."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:12]


@dataclass(frozen=True)
class EngineEntry:
    """One engine of a bundle: the model it was built from (of MODELS), its file and the timing cache it was built with
    (names in the bundle; no cache: empty), what it depends on, the shapes it takes, and the device memory in bytes
    that running it takes at the largest of them (0: not known, since no GPU was there to say it)."""

    model: str
    file: str
    timing_cache: str
    fingerprint: Fingerprint
    profile: Profile
    memory_bytes: int = 0

    def __post_init__(self) -> None:
        if self.model not in MODELS:
            raise InputError(f"an engine of the model {self.model!r}; accepted: {', '.join(MODELS)}")

    @property
    def files(self) -> tuple[str, ...]:
        return (self.file, self.timing_cache) if self.timing_cache else (self.file,)

    @property
    def key(self) -> str:
        """Twelve hexadecimal digits: the same for engines that may stand for one another."""
        text = json.dumps([self.model, self.fingerprint.digest, asdict(self.profile)], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> EngineEntry:
        """From a manifest's plain values; KeyError, TypeError or ValueError where they are none."""
        return cls(str(values["model"]), str(values["file"]), str(values["timing_cache"]),
                   Fingerprint(**values["fingerprint"]), Profile(**values["profile"]), int(values["memory_bytes"]))


_FACTS = tuple(f.name for f in fields(Fingerprint) if f.name != "options")
_WORDS = {
    "queries": "queries at once", "sets": "support sets (ensemble members)", "entries": "support entries in a set"
}


def _fits(name: str, built: str, here: str) -> bool:
    if name == "cuda":
        return bool(here) and _version(here)[0] >= _version(built)[0]
    if name == "compute_capability":
        if built.endswith("+"):
            return bool(here) and _version(here) >= _version(built[:-1])
        return here in built.split()
    return built == here


def _version(text: str) -> tuple[int, ...]:
    """Numbers of "9.0"; a text that is none stands below all."""
    try:
        return tuple(int(part) for part in text.split("."))
    except ValueError:
        return (-1,)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _range(name: str, value: Any) -> Range:
    text = f"the profile's {name} are {value!r}"
    try:
        low, best, high = value
    except (TypeError, ValueError):
        raise InputError(f"{text}; give three whole numbers, min:opt:max, such as 1:64:256") from None
    if not all(_is_count(v) for v in (low, best, high)):
        raise InputError(f"{text}; each of min:opt:max is a whole number from 1")
    if low > best:
        raise InputError(f"{text}; min ({low}) is above opt ({best}): give min <= opt <= max")
    if best > high:
        raise InputError(f"{text}; opt ({best}) is above max ({high}): give min <= opt <= max")
    return low, best, high


def _parse(name: str, text: str) -> Range:
    try:
        numbers = [int(part) for part in text.split(":")]
    except ValueError:
        numbers = []
    if len(numbers) not in (1, 3):
        raise InputError(f"--profile-{name} {text}: give min:opt:max, such as 1:64:256, or one number")
    return numbers[0], numbers[len(numbers) // 2], numbers[-1]
