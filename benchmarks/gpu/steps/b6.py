"""B6: wait for the training, end it where time does, and bring its weights and logs home.

    python benchmarks/gpu/steps/b6.py --out OUT          the page README.md says what it takes
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from pathlib import Path

if __package__ in (None, ""):  # run as a script: make the checkout importable as the package
    sys.path[0] = str(Path(__file__).resolve().parents[3])
    from universeg_rt.checkout import make_importable

    make_importable()

from universeg_rt.benchmarks.gpu.steps import step  # noqa: E402

SAVING = 70.0  # seconds that a run is given to save, and train_for.sh to pack


def body(run: step.Step, options: argparse.Namespace) -> bool:
    """True where there were weights to bring."""
    folder, pid = run.work / "training", _training(run.work)
    saving = min(SAVING, run.left() / 2)
    while pid and _alive(pid) and run.left() > saving:
        time.sleep(0.5)
    ended = "by itself"
    if pid and _alive(pid):
        ended = "asked to"
        os.killpg(pid, signal.SIGTERM)
        while _alive(pid) and run.left() > saving / 4:
            time.sleep(0.2)
        if _alive(pid):
            ended = "killed"
            os.killpg(pid, signal.SIGKILL)
    parts = sorted(folder.glob("run.tar.part*"))
    if not parts and (folder / "run").is_dir():  # the script was ended before it packed
        files = [p for p in sorted((folder / "run").rglob("*")) if p.is_file() and p.suffix != ".tmp"]
        parts = step.archive(folder / "run", files, folder / "run.tar.part", run.work)
    for part in parts:
        target = run.out / part.name
        target.write_bytes(part.read_bytes())
    log = run.work / "training.log"
    run.note("training", ended=ended, parts=[part.name for part in parts],
             said=log.read_text(errors="replace").splitlines()[-12:] if log.is_file() else [])
    return bool(parts)


def _training(work: Path) -> int:
    file = work / "training.pid"
    return int(file.read_text()) if file.is_file() else 0


def _alive(pid: int) -> bool:
    """Whether the process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


if __name__ == "__main__":
    sys.exit(step.main("b6", 540, __doc__.split("\n")[0], body))
