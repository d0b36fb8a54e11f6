"""`python -m universeg_rt`, and --version of the commands."""

from __future__ import annotations

import subprocess
import sys

import pytest

import universeg_rt


@pytest.mark.parametrize("module", ["universeg_rt", "universeg_rt.cli.segment"])
def test_commands_say_their_version(module):
    done = subprocess.run([sys.executable, "-m", module, "--version"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and done.stdout.strip().endswith(universeg_rt.__version__)


def test_the_package_as_a_command():
    done = subprocess.run([sys.executable, "-m", "universeg_rt"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and "onnxruntime: starts here" in done.stdout and "usage:" in done.stdout
    assert "bundle: universeg_rt_v1, licence of its weights: Apache-2.0" in done.stdout
    done = subprocess.run(
        [sys.executable, "-m", "universeg_rt", "segment", "--help"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0 and "usage: universeg-segment" in done.stdout
    done = subprocess.run([sys.executable, "-m", "universeg_rt", "nothing"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and "'nothing' is no command" in done.stderr
