"""Parts of a step that do not end, that leave processes behind, and whose step is killed."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="the steps need torch")

from universeg_rt.benchmarks.gpu.steps import session, step

from .conftest import lines

# A part that starts another process, which takes no hint, and says its own number.
PARENT = """import os, subprocess, sys, time
child = ("import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
         "print('begun', flush=True); time.sleep(600)")
process = subprocess.Popen([sys.executable, '-c', child], stdout=subprocess.PIPE, text=True)
process.stdout.readline()
open(os.environ['SAID'] + '.new', 'w').write(str(os.getpid()))
os.rename(os.environ['SAID'] + '.new', os.environ['SAID'])
print('begun', flush=True)
{rest}
"""


@pytest.fixture
def said(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("SAID", str(tmp_path / "said"))
    monkeypatch.setattr(step, "GRACE", 0.5)
    (tmp_path / "endless.py").write_text(PARENT.format(rest="time.sleep(600)"))
    (tmp_path / "leaving.py").write_text(PARENT.format(rest=""))
    return tmp_path / "said"


@pytest.mark.parametrize(("module", "well"), [("endless", False), ("leaving", True)])
def test_a_part_ends_with_all_that_it_started(tmp_path, said, module, well):
    run = step.Step("b1", tmp_path / "out", tmp_path / "work", 60, "cpu", tmp_path)
    assert run.part(module, module, seconds=4, limit="") is well
    run.close()
    assert lines(run.out, "b1")[module]["said"] == ["begun"] and not session.members(int(said.read_text()))


def test_a_step_that_is_killed_takes_its_parts_and_theirs_along(tmp_path, said):
    code = ("import sys; from pathlib import Path; from universeg_rt.benchmarks.gpu.steps import step; "
            "folder = Path(sys.argv[1]); "
            "step.Step('b1', folder / 'out', folder / 'work', 600, 'cpu', folder)"
            ".part('endless', 'endless', seconds=500, limit='')")
    process = subprocess.Popen([sys.executable, "-c", code, tmp_path], stdout=subprocess.DEVNULL)
    while not said.exists() and process.poll() is None:
        time.sleep(0.05)
    part = int(said.read_text())
    assert len(session.members(part)) == 2
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert session.wait(part, 20)
