"""The pool of threads of the CPU kernels, alone: its self-test, as it is and under the sanitizers."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from ...conftest import ROOT

SOURCES = [str(ROOT / "kernels" / "cpu" / name) for name in ("arithmetic/pool.cpp", "selftest/selftest_pool.cpp")]
MAIN = "int check_pool();\nint main() { return check_pool() != 0; }\n"


@pytest.mark.parametrize("sanitizer", [None, "thread", "address,undefined"])
def test_selftest(tmp_path, sanitizer):
    """Items each once, bodies that throw, children that use or drop it, forks during a loop; no data race, no leak."""
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("g++ was not found; the self-test needs it")
    (tmp_path / "main.cpp").write_text(MAIN)
    flags = [f"-fsanitize={sanitizer}", "-fno-sanitize-recover=all"] if sanitizer else []
    built = subprocess.run([
        compiler, "-O1", "-std=c++17", *flags, "-pthread", f"-I{ROOT / 'kernels' / 'cpu' / 'arithmetic'}", *SOURCES,
        str(tmp_path / "main.cpp"), "-o",
        str(tmp_path / "selftest")
    ], capture_output=True, text=True)
    if built.returncode and "cannot find" in built.stderr:
        pytest.skip(f"this compiler lacks the sanitizer: {built.stderr.strip().splitlines()[-1]}")
    assert not built.returncode, built.stderr
    done = subprocess.run([str(tmp_path / "selftest")], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
