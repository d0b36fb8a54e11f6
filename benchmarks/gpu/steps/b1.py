"""B1: start training in the background and see its first losses; it goes on while later steps run.

    python benchmarks/gpu/steps/b1.py --out OUT --data-root DATA          the page README.md says what it takes
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

if __package__ in (None, ""):  # run as a script: make the checkout importable as the package
    sys.path[0] = str(Path(__file__).resolve().parents[3])
    from universeg_rt.checkout import make_importable

    make_importable()

from universeg_rt.benchmarks.gpu.steps import settings, step  # noqa: E402
from universeg_rt.checkout import ROOT  # noqa: E402

ROWS = 20  # of the log that are enough to see


def body(run: step.Step, options: argparse.Namespace) -> bool:
    """True where the run logged steps."""
    folder, said = run.work / "training", run.work / "training.log"
    log = folder / "run" / "log.csv"
    before = rows(log)
    # Its files must not lie in this command's tree, which a machine may drop with the command.
    with open(said, "ab") as file:
        process = subprocess.Popen(
            ["bash", ROOT / "training" / "run" / "train_for.sh", str(options.minutes), options.config, folder, "",
             "--device", run.device, "--data-root", options.data_root, "--no-progress",
             *map(str, settings.weights(options))],
            stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT, start_new_session=True,
            env={**run.environment, "PYTHON": sys.executable, "FINISH_MINUTES": str(options.finish)})
    (run.work / "training.pid").write_text(str(process.pid))
    while process.poll() is None and run.left() and len(rows(log)) < len(before) + ROWS:
        time.sleep(0.5)
    found = rows(log)
    run.note("training", pid=process.pid, alive=process.poll() is None, cores=os.cpu_count(), rows=found[-ROWS:],
             said=said.read_text(errors="replace").splitlines()[-6:])
    return len(found) > len(before)


def rows(log: Path) -> list[str]:
    return log.read_text().splitlines()[1:] if log.is_file() else []


def add(parser: argparse.ArgumentParser) -> None:
    settings.add_training(parser)
    parser.add_argument("--minutes", type=float, default=21, help="of training, the end included (%(default)s)")
    parser.add_argument("--finish", type=float, default=4, help="of these to bring the rate to zero (%(default)s)")


if __name__ == "__main__":
    sys.exit(step.main("b1", 110, __doc__.split("\n")[0], body, add))
