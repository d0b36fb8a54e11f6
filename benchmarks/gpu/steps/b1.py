"""B1: start training in the background and see its first losses; it goes on while later steps run.

    python benchmarks/gpu/steps/b1.py --out OUT --data-root DATA          the page README.md says what it takes
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

if __package__ in (None, ""):  # run as a script: make the checkout importable as the package
    sys.path[0] = str(Path(__file__).resolve().parents[3])
    from universeg_rt.checkout import make_importable

    make_importable()

from universeg_rt.benchmarks.gpu.steps import parts, plan, session, step  # noqa: E402
from universeg_rt.checkout import ROOT, copy_to  # noqa: E402
from universeg_rt.errors import InputError  # noqa: E402

ROWS = 20  # of the log that are enough to see
PID = "training.pid"  # in the work folder: of the session that trains


def body(run: step.Step, options: argparse.Namespace) -> bool:
    """True where the run logged steps."""
    folder, said, pid = run.work / "training", run.work / "training.log", run.work / PID
    if pid.is_file() and session.members(int(pid.read_text())):
        raise InputError(f"a training runs in {run.work} already; b6.py brings it home")
    log = folder / "run" / "log.csv"
    before, tree = rows(log), run.work / "tree"
    config, data, *weights = _keep(tree, options.config, options.data_root, *parts.weights(options.weights)[1:])
    with open(said, "ab") as file:
        process = subprocess.Popen(
            ["bash", tree / "training" / "run" / "train_for.sh", str(options.minutes), config, folder, "",
             "--device", run.device, "--data-root", data, "--no-progress",
             *(["--weights", *weights] if weights else [])],
            stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT, start_new_session=True, cwd=run.work,
            env={**run.environment, "PYTHON": sys.executable, "FINISH_MINUTES": str(options.finish)})
    pid.write_text(str(process.pid))
    while process.poll() is None and run.left() and len(rows(log)) < len(before) + ROWS:
        time.sleep(0.5)
    found = rows(log)
    run.note("training", pid=process.pid, alive=process.poll() is None, cores=os.cpu_count(), rows=found[-ROWS:],
             said=said.read_text(errors="replace").splitlines()[-6:])
    return len(found) > len(before)


def _keep(tree: Path, *used: Path) -> list[Path]:
    """The files that a run reads, with the code: copied to `tree`, since the next command may replace this checkout."""
    shutil.rmtree(tree, ignore_errors=True)
    copy_to(tree)
    kept = []
    for path in map(Path.absolute, used):
        inside = path.is_relative_to(ROOT) and path.exists()
        kept.append(tree / path.relative_to(ROOT) if inside else path)
        if inside and path.is_dir():
            shutil.copytree(path, kept[-1], dirs_exist_ok=True)
    return kept


def rows(log: Path) -> list[str]:
    return log.read_text().splitlines()[1:] if log.is_file() else []


def add(parser: argparse.ArgumentParser) -> None:
    parts.add_training(parser)
    parser.add_argument("--minutes", type=float, default=plan.TRAINING,
                        help="of training, the end included (%(default)s)")
    parser.add_argument("--finish", type=float, default=plan.FINISH,
                        help="of these to bring the rate to zero (%(default)s)")


if __name__ == "__main__":
    sys.exit(step.main("b1", __doc__.split("\n")[0], body, add))
