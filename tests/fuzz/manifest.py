"""Mutated bundles: bytes, values and structure of the manifest, the kinds of its files, and the bytes of its models.

Each opens, or raises one of `universeg_rt.errors`. The bundle is a small one made here of nothing but metadata, so that
a case takes a millisecond.
"""

from __future__ import annotations

import copy
import hashlib
import itertools
import json
import os
import random
import shutil
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from universeg_rt.bundle.bundle import MANIFEST, Bundle, file_entry
from universeg_rt.bundle.manifest import InputContract, Manifest, Models, sealed
from universeg_rt.bundle.onnx_file import DATA_LOCATION, EXTERNAL_DATA, GRAPH, IR_VERSION, METADATA
from universeg_rt.bundle.protobuf import field, number_field
from universeg_rt.bundle.weights import WEIGHTS
from universeg_rt.spec import NetworkSpec

STAGES = ("enc0.query", "head")
ODD_VALUES = (None, True, False, 0, -1, 1, 2**31, 2**63, 10**40, 0.5, float("nan"), float("inf"), "", "x", "32", "\0",
              "\ud800", "../x", "/etc/passwd", "x" * 5000, [], [[]], {}, {"": None}, [1, 2, 3], ["a", "b"])
ODD_NAMES = ("../x", "/dev/zero", "a/../b", ".", "", "a//b", "a\0b", "x" * 300, "C:\\x", "*/_ORT_MEM_ADDR_/*", "\ud800",
             "manifest.json")


def cases(rng: random.Random, folder: Path) -> Iterator[tuple[str, Callable[[], None]]]:
    """Without end: what is changed, and a call that makes the changed bundle below `folder` and opens it."""
    numbers = np.random.default_rng(rng.getrandbits(64))
    good = make_bundle(folder / "good")
    kinds = (_bits, _bytes, _cut, _value, _key, _name, _file_kind, _model_bytes, _external)
    for number in itertools.count():
        kind = kinds[number % len(kinds)]
        said, change = kind(numbers, good)
        yield f"{kind.__name__.strip('_')} {said}", _opener(good, folder / "case", change)


def make_bundle(folder: Path) -> Path:
    """A bundle that opens and that no runner runs: models with metadata and an empty graph."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    spec = NetworkSpec("none", (6, 5, 7), (4, 6), "max_pool")
    models = {
        "fp32": Models("model.onnx", tuple((name, f"stage.{name}.onnx") for name in STAGES), "prepare.onnx",
                       "predict.onnx")
    }
    bare = Manifest("fuzzed", "1", spec, "ab" * 32, InputContract(32, 32, spec.size_multiple), models, {})
    for file, kind in models["fp32"].kinds:
        (folder / file).write_bytes(_model({**bare.metadata, "universeg.precision": "fp32", "universeg.kind": kind}))
    header = json.dumps({"__metadata__": {**bare.metadata, "universeg.kind": "weights"}}).encode()
    (folder / WEIGHTS).write_bytes(struct.pack("<Q", len(header)) + header)
    files = {file: file_entry(folder / file) for file in (*models["fp32"].listed, WEIGHTS)}
    manifest = Manifest(bare.name, bare.version, spec, bare.weights_sha256, bare.input, models, files)
    (folder / MANIFEST).write_text(manifest.with_parity({"fp32": {"models": {"whole": {"cases": 40}}}}).to_json())
    return folder


def _model(metadata: dict[str, str], tensor: bytes = b"") -> bytes:
    graph = field(5, tensor) if tensor else b""
    entries = (field(METADATA, field(1, key.encode()) + field(2, value.encode())) for key, value in metadata.items())
    return number_field(IR_VERSION, 8) + field(GRAPH, graph) + b"".join(entries)


def _opener(good: Path, place: Path, change: Callable[[Path], None]) -> Callable[[], None]:
    def run() -> None:
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(good, place)
        change(place)
        bundle = Bundle.open(place)
        for precision in bundle.manifest.models:
            bundle.load(precision).whole()
            bundle.load_stages(precision)

    return run


Change = tuple[str, Callable[[Path], None]]


def _text(change: Callable[[bytearray], None]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        text = bytearray((folder / MANIFEST).read_bytes())
        change(text)
        (folder / MANIFEST).write_bytes(text)

    return apply


def _values(change: Callable[[dict], None]) -> Callable[[Path], None]:
    """Edits the parsed manifest and makes its sum anew, as somebody who means harm would."""
    def apply(folder: Path) -> None:
        values = json.loads((folder / MANIFEST).read_text())
        change(values)
        try:
            text = sealed(values)
        except UnicodeEncodeError:  # half a character, which has no sum
            text = json.dumps(values)
        (folder / MANIFEST).write_text(text)

    return apply


def _bits(rng: np.random.Generator, good: Path) -> Change:
    size = 8 * (good / MANIFEST).stat().st_size
    bits = rng.integers(size, size=rng.integers(1, 4)).tolist()

    def change(text: bytearray) -> None:
        for bit in bits:
            text[bit // 8] ^= 1 << (bit % 8)

    return f"{bits}", _text(change)


def _bytes(rng: np.random.Generator, good: Path) -> Change:
    place, new = int(rng.integers((good / MANIFEST).stat().st_size)), rng.choice(
        [b'"', b"{", b"[", b"}", b",", b"9", b"e9", b"\0", b"\xff", b"\n"])
    return f"{new!r} at {place}", _text(lambda text: text.__setitem__(slice(place, place + 1), bytes(new)))


def _cut(rng: np.random.Generator, good: Path) -> Change:
    first, last = sorted(rng.integers((good / MANIFEST).stat().st_size, size=2).tolist())
    if rng.integers(2):
        return f"without {first} to {last}", _text(lambda text: text.__delitem__(slice(first, last)))
    return f"{first} to {last} twice", _text(lambda text: text.__setitem__(slice(last, last), bytes(text[first:last])))


def _places(values: object, path: tuple = ()) -> Iterator[tuple]:
    items = values.items() if isinstance(values, dict) else enumerate(values) if isinstance(values, list) else ()
    for key, value in items:
        yield (*path, key)
        yield from _places(value, (*path, key))


def _pick(rng: np.random.Generator, good: Path) -> tuple:
    places = list(_places(json.loads((good / MANIFEST).read_text())))
    return places[rng.integers(len(places))]


def _inside(values: object, path: tuple) -> object:
    for key in path:
        values = values[key]
    return values


def _value(rng: np.random.Generator, good: Path) -> Change:
    path, new = _pick(rng, good), copy.deepcopy(ODD_VALUES[rng.integers(len(ODD_VALUES))])
    return f"{path} = {new!r:.40}", _values(lambda values: _inside(values, path[:-1]).__setitem__(path[-1], new))


def _key(rng: np.random.Generator, good: Path) -> Change:
    path, gone = _pick(rng, good), bool(rng.integers(2))

    def change(values: dict) -> None:
        parent = _inside(values, path[:-1])
        value = parent.pop(path[-1])
        if not gone:
            parent.update(more=value) if isinstance(parent, dict) else parent.extend([value, value])

    return f"{path} {'gone' if gone else 'elsewhere'}", _values(change)


def _name(rng: np.random.Generator, good: Path) -> Change:
    old, new = rng.choice(["model.onnx", "prepare.onnx",
                           f"stage.{STAGES[0]}.onnx"]), ODD_NAMES[rng.integers(len(ODD_NAMES))]
    without_parity = bool(rng.integers(2))

    def change(values: dict) -> None:
        values["files"][new] = values["files"].pop(str(old))
        models = values["models"]["fp32"]
        models.update({part: new for part in ("whole", "prepare") if models[part] == old})
        models["stages"] = [[name, new if file == old else file] for name, file in models["stages"]]
        if without_parity:
            values["parity"] = {}

    return f"{old} is {new!r:.30}", _values(change)


def _file_kind(rng: np.random.Generator, good: Path) -> Change:
    name = str(rng.choice([MANIFEST, "model.onnx", f"stage.{STAGES[1]}.onnx"]))
    kinds: dict[str, Callable[[Path], None]] = {
        "a pipe": lambda path: os.mkfifo(path), "a link": lambda path: path.symlink_to(good / name),
        "a folder": lambda path: path.mkdir(), "a link to /dev/zero": lambda path: path.symlink_to("/dev/zero"),
        "missing": lambda path: None, "empty": lambda path: path.touch(), "a hole of 8 GiB": lambda path:
        (path.touch(), os.truncate(path, 2**33)), "a link to itself": lambda path: path.symlink_to(path)
    }
    kind = str(rng.choice(list(kinds)))

    def change(folder: Path) -> None:
        (folder / name).unlink()
        kinds[kind](folder / name)

    return f"{name} is {kind}", change


def _replace(folder: Path, name: str, data: bytes) -> None:
    """Put a model into a bundle under its manifest, without a parity report."""
    (folder / name).write_bytes(data)

    def change(values: dict) -> None:
        values["files"][name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        values["parity"] = {}

    _values(change)(folder)


def _model_bytes(rng: np.random.Generator, good: Path) -> Change:
    name = str(rng.choice(["model.onnx", WEIGHTS, f"stage.{STAGES[0]}.onnx"]))
    data = bytearray((good / name).read_bytes())
    places = rng.integers(len(data), size=rng.integers(1, 5)).tolist()
    for place in places:
        data[place] = rng.integers(256)
    if rng.integers(4) == 0:
        del data[places[0]:]
    return f"{name} at {places}", lambda folder: _replace(folder, name, bytes(data))


def _external(rng: np.random.Generator, good: Path) -> Change:
    """A tensor in the whole model that lies elsewhere."""
    location = str(
        rng.choice(["model.onnx", f"stage.{STAGES[0]}.onnx", *(n for n in ODD_NAMES if n.isprintable() and n)]))
    entries = {
        "location": location, "offset": str(rng.choice(["0", "1", "-1", "9" * 25, "x", ""])),
        "length": str(rng.choice(["4", "0", "99999"]))
    }
    tensor = b"".join(field(EXTERNAL_DATA, field(1, key.encode()) + field(2, value.encode("utf-8", "surrogatepass")))
                      for key, value in entries.items()) + number_field(DATA_LOCATION, 1)

    def change(folder: Path) -> None:
        manifest = Bundle.open(folder).manifest
        said = {**manifest.metadata, "universeg.precision": "fp32", "universeg.kind": "whole"}
        _replace(folder, "model.onnx", _model(said, tensor))

    return f"{entries}", change
