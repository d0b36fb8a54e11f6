"""Compiles the self-test of the CPU kernels as the extension is compiled, each file with its own options."""

from __future__ import annotations

import hashlib
import os
import random
import runpy
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from universeg_rt.runners.cpu.native import places
from universeg_rt.spec import NetworkSpec

from ...conftest import ROOT
from ..conftest import build_folder

FOLDER = ROOT / "kernels" / "cpu"
PARTS = runpy.run_path(str(FOLDER / "sources.py"))
SOME = (1, 3, 8, 16, 17, 24, 32, 48, 64, 100)  # features, narrow and wide: they meet in a pair of blocks


def compile_selftest(name: str, files: Iterable[str | Path], sanitizer: str | None, *, without: Sequence[str] = (),
                     defines: Sequence[str] = ()) -> Path:
    """The program of these files (in FOLDER), under a sanitizer; skips where the compiler or the sanitizer is missing.

    name: under which it is kept; it is compiled again where a source, an option or the compiler has changed. without:
    files that are compiled without their own options.
    """
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("g++ was not found; the self-test needs it")
    sanitized = [f"-fsanitize={sanitizer}", "-fno-sanitize-recover=all"] if sanitizer else []
    options = [*PARTS["FLAGS"], "-O1", *sanitized, *(f"-D{name}" for name in defines),
               *(f"-I{FOLDER / room}" for room in PARTS["ROOMS"])]

    def run(*command: str) -> None:
        done = subprocess.run([compiler, *options, *command], capture_output=True, text=True)
        if done.returncode and "cannot find" in done.stderr:
            pytest.skip(f"this compiler lacks the sanitizer: {done.stderr.strip().splitlines()[-1]}")
        assert not done.returncode, done.stderr

    def compiled(file: str | Path) -> str:
        own = () if file in without else PARTS["LIBRARY"].get(file, ())
        out = folder / f"{Path(file).stem}.o"
        run(*own, "-c", str(FOLDER / file), "-o", str(out))
        return str(out)

    with build_folder(f"{name}-{sanitizer or 'plain'}") as folder:
        program, stated, key = folder / "selftest", folder / "key", _key(compiler, options, without)
        if not (program.exists() and stated.exists() and stated.read_text() == key):
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                objects = list(pool.map(compiled, files))
            run(*objects, "-o", str(program))
            stated.write_text(key)
    return program


def _key(compiler: str, options: Sequence[str], without: Sequence[str]) -> str:
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True).stdout
    digest = hashlib.sha256(repr((version, options, without)).encode())
    for path in sorted(FOLDER.rglob("*")):
        if path.suffix in (".h", ".cpp", ".py"):
            digest.update(path.read_bytes())
    return digest.hexdigest()


def write_networks(path: Path, count: int, seed: int = 1) -> Path:
    """A file for the self-test (kernels/cpu/selftest/selftest.h): a small network, then `count` drawn ones."""
    rng, specs = random.Random(seed), [NetworkSpec("none", (10, 16, 7), (12, 9), "max_pool")]
    for _ in range(count):
        stages = rng.randint(2, 5)
        specs.append(NetworkSpec("none", tuple(rng.choices(SOME, k=stages)), tuple(rng.choices(SOME, k=stages - 1)),
                                 "max_pool"))
    lines = []
    for spec in specs:
        blocks = places(spec)
        lines.append(str(len(blocks)))
        for features, query, support, level, sources, halved in blocks:
            lines.append(" ".join(map(str, (features, query, support, level, int(halved), len(sources), *sources))))
    path.write_text("\n".join(lines) + "\n")
    return path
