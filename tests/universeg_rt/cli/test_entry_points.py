"""Every module that is a command says in one line which package it misses, also while it is being imported."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
CHILDREN = {  # started by a command that reports what they say, with arguments of its own
    "universeg_rt/checkout.py", "export/engine/worker.py", "benchmarks/harness/models.py", "benchmarks/cpu/child.py",
    "benchmarks/cpu/first_mask.py", "benchmarks/gpu/steps/session.py"
}
COMMANDS = sorted(
    path for folder in ("universeg_rt", "export", "kernels", "training", "benchmarks")
    for file in (ROOT / folder).rglob("*.py") if '__name__ == "__main__"' in file.read_text()
    if (path := file.relative_to(ROOT).as_posix()) not in CHILDREN)
BLOCKED = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "onnx", "safetensors", "matplotlib", "yaml"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name.split(".")[0])

sys.meta_path.insert(0, Missing())
"""


def module_of(path: str) -> str:
    module = path.removesuffix(".py").replace("/", ".")
    return (module if module.startswith("universeg_rt.") else f"universeg_rt.{module}").removesuffix(".__main__")


@pytest.mark.parametrize("path", [
    "export/engine/worker.py", "benchmarks/harness/models.py", "benchmarks/cpu/first_mask.py"
])
def test_a_child_without_its_arguments_names_the_command_to_run(path, tmp_path):
    done = subprocess.run([sys.executable, "-m", module_of(path)], cwd=tmp_path, capture_output=True, text=True,
                          timeout=60)
    assert done.returncode == 2 and not done.stdout
    assert re.fullmatch(rf"{module_of(path)}: (\S+) starts this, with [A-Z ]+; run \1 instead\n", done.stderr)


@pytest.mark.parametrize("path", COMMANDS)
def test_without_optional_packages_a_command_says_so_in_one_line(path, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(BLOCKED)
    done = subprocess.run([sys.executable, "-m", module_of(path), "--help"], cwd=tmp_path,
                          capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(tmp_path)}, timeout=60)
    if done.returncode:
        assert done.returncode == 1 and done.stderr.count("\n") == 1, done.stderr
        assert " is missing; run pip install" in done.stderr
    else:
        assert "usage: " in done.stdout and not done.stderr
