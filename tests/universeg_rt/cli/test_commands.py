"""What every installed command does where a package is missing, and how an installation is worded."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from universeg_rt.install import install_hint

from ...conftest import ROOT

MISSING = """
import importlib.abc, sys
class Missing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {packages!r}:
            raise ModuleNotFoundError("No module named " + repr(name), name=name)
sys.meta_path.insert(0, Missing())
from universeg_rt.cli import commands
sys.argv = {arguments!r}
sys.exit(commands.{command}())
"""


def run(command: str, *arguments: str, packages: tuple[str, ...] = ("torch",)) -> subprocess.CompletedProcess:
    code = MISSING.format(packages=packages, arguments=[f"universeg-{command}", *arguments], command=command)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("command, extra, package, arguments", [
    ("export", "export", "torch",
     ("--checkpoint", str(ROOT / "universeg_rt" / "bundles" / "universeg_rt_v1"), "--output", "nowhere")),
    ("train", "train", "torch", ("none.yaml", "--output", "nowhere")),
    ("evaluate", "train", "yaml", ("none.yaml", "--data-root", ".")),
])
def test_without_a_package_a_command_is_one_line_with_the_cure(command, extra, package, arguments):
    done = run(command, *arguments, packages=(package,))
    assert done.returncode == 1
    assert done.stderr == (f"universeg-{command}: the package {package} is missing; run pip install '.[{extra}]' in a "
                           "clone of the project\n")


def test_the_benchmark_of_our_own_sides_needs_neither_onnx_nor_torch():
    done = run("bench", "--sides", "ours-onnxruntime", "--support-sizes", "1", "--repeats", "1",
               "--starts", "0", "--size", "32", packages=("torch", "onnx"))
    assert done.returncode == 0, done.stderr
    assert "| 1 | ours-onnxruntime |" in done.stdout


@pytest.mark.parametrize("module, extra", [
    ("training.evaluation.failures", "train"), ("benchmarks.gpu.main", "bench"),
    ("benchmarks.cpu.train_step", "bench"),
])
def test_modules_that_are_commands_name_the_cure_too(module, extra):
    code = MISSING.split("from universeg_rt.cli")[0].format(packages=("torch", "onnx")) + (
        f"import runpy\nsys.argv = ['x']\nrunpy.run_module('universeg_rt.{module}', run_name='__main__')")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 1 and done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.endswith(f" is missing; run pip install '.[{extra}]' in a clone of the project\n")
    assert f"universeg_rt.{module}: the package" in done.stderr
    imported = code.replace("run_name='__main__'", "run_name='m'")
    if module != "benchmarks.cpu.train_step":  # which imports torch when it runs
        assert "ModuleNotFoundError" in subprocess.run([sys.executable, "-c", imported], capture_output=True,
                                                       text=True).stderr


def test_help_needs_no_torch():
    for command in ("segment", "support", "export", "train", "bench"):
        assert run(command, "--help").returncode == 0, command


def test_every_command_of_the_project_goes_through_the_wrapper():
    from universeg_rt.cli import commands

    scripts = re.findall(r'^universeg-(\w+) = "universeg_rt\.cli\.commands:(\w+)"$',
                         (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert len(scripts) == 6 and all(name == function and callable(getattr(commands, function))
                                     for name, function in scripts)


def test_the_hint_names_extras_that_exist_and_no_index():
    declared = (ROOT / "pyproject.toml").read_text().split("[project.optional-dependencies]")[1]
    assert install_hint() == "run pip install . in a clone of the project"
    for folder in ("universeg_rt", "export", "training", "benchmarks", "kernels"):
        for path in (ROOT / folder).rglob("*.py"):
            text = path.read_text()
            assert "universeg_rt[" not in text, f"{path} names an index that does not have the project"
            for extra in re.findall(r"(?:install_hint\(|needed\(['\"][\w.]+['\"], )['\"](\w+)['\"]", text):
                assert re.search(rf"^{extra} = \[", declared, re.MULTILINE), (path, extra)
