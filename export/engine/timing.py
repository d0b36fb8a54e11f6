"""Timing caches: those that a bundle ships, and a file of the user's with a note beside it of what it was made with.

The file itself is the library's own format, as trtexec reads and writes it; the note (FILE.json) says version, GPU,
size and sha256. Without the note the library alone decides whether it takes the file.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

from universeg_rt.bundle.engine import EngineEntry, Fingerprint
from universeg_rt.errors import EngineError, InputError
from universeg_rt.storage.atomic import write_file

# What a timing cache is bound to; of a fingerprint's other fields it is free.
FACTS = ("builder", "builder_version", "gpu", "compute_capability")


@dataclass(frozen=True)
class TimingFile:
    """A user's file: its content for the next build (empty: none), and why it was set aside (empty: it was not)."""

    path: Path
    content: bytes
    set_aside: str


def open_file(path: Path, fingerprint: Fingerprint) -> TimingFile:
    """Raises EngineError where the file is truncated or altered, InputError where it cannot be read; a missing or empty
    one is a new one, one of another version or GPU is set aside."""
    try:
        content = path.read_bytes() if path.exists() else b""
        note_text = _note(path).read_text() if content and _note(path).exists() else ""
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"the timing cache {path} cannot be read ({error}); give a file, there already or new") from None
    if not note_text:
        return TimingFile(path, content, "")
    try:
        note = json.loads(note_text)
        size, digest, facts = int(note["bytes"]), str(note["sha256"]), {name: str(note[name]) for name in FACTS}
    except (ValueError, KeyError, TypeError):
        raise EngineError(f"{_note(path)} is not whole; delete it and {path.name}, or copy both again") from None
    if len(content) != size or hashlib.sha256(content).hexdigest() != digest:
        truncated = len(content) < size
        how = f"truncated: {len(content)} bytes instead of {size}" if truncated else "altered: its sha256 is another"
        raise EngineError(f"the timing cache {path} is {how}; delete it and {_note(path).name}, or copy both again")
    return TimingFile(path, content, _difference(facts, fingerprint))


def write(file: TimingFile, content: bytes, fingerprint: Fingerprint) -> str:
    """Writes the timings after a build; keeps a file that was set aside beside it as FILE.old. Returns what it did."""
    if file.set_aside:
        for path in (file.path, _note(file.path)):
            if path.exists():
                os.replace(path, path.with_name(path.name.replace(file.path.name, f"{file.path.name}.old", 1)))
    note = {name: getattr(fingerprint, name) for name in FACTS}
    note |= {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    _note(file.path).unlink(missing_ok=True)  # a file without a note is still a good one; with a wrong one it is not
    for path, data in ((file.path, content), (_note(file.path), json.dumps(note, indent=2).encode() + b"\n")):
        with write_file(path) as out:
            out.write(data)
    return f"timings written to {file.path}" + (f", the old ones kept as {file.path.name}.old"
                                                if file.set_aside else "")


def of_bundle(engines: tuple[EngineEntry, ...], fingerprint: Fingerprint) -> tuple[list[str], list[str]]:
    """Names of the bundle's timing caches for this machine, newest first,
    and why others of its builder are not used."""
    used, passed = [], []
    for entry in reversed(engines):
        if not entry.timing_cache or entry.fingerprint.builder != fingerprint.builder:
            continue
        why = _difference({name: getattr(entry.fingerprint, name) for name in FACTS}, fingerprint)
        used.append(entry.timing_cache) if not why else passed.append(f"{entry.timing_cache}: {why}")
    return used, ([] if used else passed)


def _difference(facts: dict[str, str], fingerprint: Fingerprint) -> str:
    return "; ".join(f"{name}: made with {value!r}, here is {getattr(fingerprint, name)!r}"
                     for name, value in facts.items() if value != getattr(fingerprint, name))


def _note(path: Path) -> Path:
    return path.with_name(path.name + ".json")
