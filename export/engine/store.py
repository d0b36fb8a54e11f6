"""Engines go into a bundle that is already there: whole files under names of their own, then the manifest in one
step."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from universeg_rt.bundle.bundle import MANIFEST, file_entry, read_manifest
from universeg_rt.bundle.engine import EngineEntry
from universeg_rt.bundle.manifest import Manifest
from universeg_rt.errors import BundleError, EngineError, OutputError
from universeg_rt.storage.atomic import write_file

FOLDER = "engines"


def add_engine(bundle: Path, entry: EngineEntry, plan: bytes, timing_cache: bytes,
               replaces: bool = False) -> tuple[EngineEntry, bool]:
    """Put a plan and its timing cache into a bundle; `entry` names no files yet. Returns the entry that now stands
    there, and whether it is this one: where another process was first with the same engine, its own stays, unless this
    one `replaces` it.

    A reader sees the bundle as it was or as it will be. Raises EngineError where the bundle's model is no longer the
    one that the engine was built from, OutputError where nothing can be written; the bundle is then as it was.
    """
    with _locked(bundle):
        manifest, _ = read_manifest(bundle)
        _check_model(bundle, manifest, entry)
        same = [other for other in manifest.engines if other.key == entry.key]
        if same and not replaces:
            return same[0], False
        folder, written = bundle / FOLDER, []
        try:
            folder.mkdir(exist_ok=True)
            _sweep(folder, manifest)
            # Named after its content too: no file ever changes under a manifest that somebody has read.
            content = hashlib.sha256(plan + timing_cache).hexdigest()[:8]
            stem = f"{entry.model}-{entry.fingerprint.precision}-{entry.key}-{content}"
            files = {f"{FOLDER}/{stem}.plan": plan
                     } | ({f"{FOLDER}/{stem}.timing": timing_cache} if timing_cache else {})
            for name, data in files.items():
                with write_file(bundle / name) as file:
                    file.write(data)
                written.append(name)
            entry = replace(entry, file=written[0], timing_cache=written[1] if timing_cache else "")
            dropped = {name for other in same for name in other.files}
            listed = {name: known for name, known in manifest.files.items() if name not in dropped}
            listed |= {name: file_entry(bundle / name) for name in written}
            kept = tuple(other for other in manifest.engines if other not in same)
            _write_manifest(bundle, replace(manifest, files=listed, engines=(*kept, entry)))
        except BaseException as error:
            for name in written:
                (bundle / name).unlink(missing_ok=True)
            if isinstance(error, OSError) and not isinstance(error, OutputError):
                raise OutputError(
                    f"cannot add an engine to {bundle} ({error.strerror}); give --output for a copy of the bundle "
                    "in a folder that can be written") from None
            raise
        for name in dropped - set(written):
            (bundle / name).unlink(missing_ok=True)
    return entry, True


def _write_manifest(bundle: Path, manifest: Manifest) -> None:
    with write_file(bundle / MANIFEST) as file:
        file.write(manifest.to_json().encode())


def _check_model(bundle: Path, manifest: Manifest, entry: EngineEntry) -> None:
    if entry.fingerprint.onnx_sha256 not in {f.sha256 for f in manifest.files.values()}:
        raise EngineError(f"{bundle} was exported anew while the engine was being built; build it again")


def _sweep(folder: Path, manifest: Manifest) -> None:
    """Remove what a killed process left: plans and timings that the manifest does not list, files begun and not ended.

    Nobody writes here without the lock.
    """
    listed = {Path(name).name for name in manifest.files if name.startswith(f"{FOLDER}/")}
    for path in folder.iterdir():
        if path.suffix in (".plan", ".timing", ".tmp") and path.is_file() and path.name not in listed:
            path.unlink(missing_ok=True)


@contextmanager
def _locked(bundle: Path) -> Iterator[None]:
    """One process at a time; the lock is on the folder itself, leaves no file, and ends with its process."""
    try:
        import fcntl
    except ImportError:  # not on Windows: two at once may then lose one engine, never break the bundle
        yield
        return
    try:
        handle = os.open(bundle, os.O_RDONLY)
    except OSError as error:
        raise BundleError(f"no bundle at {bundle} ({error.strerror})") from None
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
        except OSError:  # a file system without locks: as above
            pass
        yield
    finally:
        os.close(handle)
