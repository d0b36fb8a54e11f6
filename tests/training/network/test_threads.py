"""The native training kernels' threads: in forked children, and where memory runs out on one of them. In processes of
their own."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytest.importorskip("torch", reason="torch is not installed: pip install torch")

from universeg_rt.runners.threads import MAX_THREADS
from universeg_rt.training.network import winograd
from universeg_rt.training.run.cli import main as train_command

pytestmark = [pytest.mark.torch, pytest.mark.skipif(
    winograd._native is None, reason="the native kernels are not built here (no compiler)")]


def run(code: str) -> None:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_forked_child_convolves_and_exits():
    # The native part alone: after a fork torch's own threads are not ours to start.
    run("""
import os, signal, sys
import numpy as np
from universeg_rt import _native

def aligned(*shape):
    raw = np.zeros(np.prod(shape) + 16, np.float32)
    start = -raw.ctypes.data % 64 // 4
    return raw[start : start + np.prod(shape)].reshape(shape)

x = aligned(2, 16, 16, 32)
x[:] = np.random.default_rng(0).random(x.shape)
want = _native.convolve_gradient(x, x, 3)
for use in (False, True):
    child = os.fork()
    if not child:
        signal.alarm(20)
        assert not use or np.array_equal(_native.convolve_gradient(x, x, 3), want)
        assert not use or np.allclose(_native.convolve_gradient(x, x, 2), want, rtol=1e-4)
        sys.exit(0)
    assert os.waitpid(child, 0)[1] == 0
assert np.array_equal(_native.convolve_gradient(x, x, 3), want)
""")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_out_of_memory_on_a_thread_is_a_training_error():
    run("""
import resource
import torch
from universeg_rt.errors import TrainingError
from universeg_rt.training.network.winograd import conv3x3

torch.set_num_threads(4)
def step(channels):
    weight = torch.ones(channels, channels, 3, 3, requires_grad=True)
    return conv3x3(torch.ones(1, channels, 8, 8), weight).sum(), weight

def gradient(loss, weight):
    return torch.autograd.grad(loss, weight)[0]

want = gradient(*step(32))  # its threads are there
large = step(512)  # whose gradient takes 38 MB on each thread
size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + 120 * 2**20, -1))
try:
    gradient(*large)
except TrainingError as error:
    assert "not enough memory" in str(error) and "smaller support" in str(error), error
else:
    raise AssertionError("it did not run out of memory")
resource.setrlimit(resource.RLIMIT_AS, (-1, -1))
assert torch.equal(gradient(*step(32)), want)
""")


def test_numbers_of_threads_that_are_refused(tmp_path, capsys):
    (tmp_path / "c.yaml").write_text("{}")
    arguments = [str(tmp_path / "c.yaml"), "--output", str(tmp_path / "run"), "--threads", str(MAX_THREADS + 1)]
    assert train_command(arguments) == 1
    assert f"from 1 to {MAX_THREADS}" in capsys.readouterr().err
