"""B6: wait for the training, end it where time does, and bring its weights and logs home.

    python benchmarks/gpu/steps/b6.py --out OUT          the page README.md says what it takes
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

if __package__ in (None, ""):  # run as a script: make the checkout importable as the package
    sys.path[0] = str(Path(__file__).resolve().parents[3])
    from universeg_rt.checkout import make_importable

    make_importable()

from universeg_rt.benchmarks.gpu.steps import plan, session, step  # noqa: E402
from universeg_rt.benchmarks.gpu.steps.b1 import PID  # noqa: E402

PARTS = "run.tar.part*"  # as train_for.sh leaves them


def body(run: step.Step, options: argparse.Namespace) -> bool:
    """True where there were weights to bring."""
    folder, pid = run.work / "training", run.work / PID
    training, ended = int(pid.read_text()) if pid.is_file() else 0, "by itself"
    saving = min(plan.SAVING, run.left())
    # All of the session: the script that packs, what trains, and what draws episodes for it.
    if training and not session.wait(training, min(options.wait, run.left() - saving)):
        ended = "asked to" if session.end(training, 0.75 * saving) else "killed"
    if (folder / "run").is_dir():  # it was not packed, or not wholly
        for part in folder.glob(PARTS):
            part.unlink()
        files = [p for p in sorted((folder / "run").rglob("*")) if p.is_file() and p.suffix != ".tmp"]
        step.archive(folder / "run", files, folder / "run.tar.part", run.work)
    parts = sorted(folder.glob(PARTS))
    for part in parts:
        shutil.copyfile(part, run.out / part.name)
    log = run.work / "training.log"
    run.note("training", ended=ended, parts=[part.name for part in parts],
             said=log.read_text(errors="replace").splitlines()[-12:] if log.is_file() else [])
    return bool(parts)


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--wait", type=float, default=plan.STEPS["b6"].seconds, help="seconds at the most before it is "
                        "asked to end, which then has some left to save (all there are)")


if __name__ == "__main__":
    sys.exit(step.main("b6", __doc__.split("\n")[0], body, add))
