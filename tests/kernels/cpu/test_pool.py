"""The pool of threads of the CPU kernels, alone: its self-test, as it is and under the sanitizers."""

from __future__ import annotations

import subprocess

import pytest

from .selftest import compile_selftest

MAIN = "int check_pool();\nint main() { return check_pool() != 0; }\n"


@pytest.mark.slow
@pytest.mark.parametrize("sanitizer", [None, "thread", "address,undefined"])
def test_selftest(tmp_path, sanitizer):
    """Items each once, bodies that throw, children that use or drop it, forks during a loop; no data race, no leak."""
    (tmp_path / "main.cpp").write_text(MAIN)
    files = ("arithmetic/pool.cpp", "selftest/selftest_pool.cpp", tmp_path / "main.cpp")
    program = compile_selftest("pool", files, sanitizer)
    done = subprocess.run([str(program)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
