"""B2 to B5: bring a runtime in pieces that fit an upload; with the last piece it is unpacked and tried.

    python benchmarks/gpu/steps/b2.py --out OUT upload/NAME.tar.xz.00of03   the page README.md says what it takes
"""

from __future__ import annotations

import argparse
import re
import shutil
import sys
from pathlib import Path

if __package__ in (None, ""):  # run as a script: make the checkout importable as the package
    sys.path[0] = str(Path(__file__).resolve().parents[3])
    from universeg_rt.checkout import make_importable

    make_importable()

from universeg_rt.benchmarks.gpu.steps import parts, step  # noqa: E402
from universeg_rt.benchmarks.gpu.steps.beforehand import PIECE, unpack  # noqa: E402
from universeg_rt.errors import InputError  # noqa: E402


def body(run: step.Step, options: argparse.Namespace) -> bool:
    """True where the piece is kept and, with the last one, the runtime starts."""
    name, tried = "", True
    for piece in options.pieces:
        match = re.fullmatch(PIECE, piece.name)
        if match is None or not piece.is_file():
            raise InputError(f"{piece} is no piece of a runtime; give what beforehand.py --runtime wrote")
        name, count = match["name"], int(match["of"])
        kept = run.work / "pieces" / name
        kept.mkdir(parents=True, exist_ok=True)
        part = kept / f"{piece.name}.part"  # whole or not there: a kill leaves a name that nobody counts
        shutil.copyfile(piece, part)
        part.rename(kept / piece.name)
        have = sorted(p for p in kept.iterdir() if (m := re.fullmatch(PIECE, p.name)) and int(m["of"]) == count)
        run.note("piece", name=piece.name, have=len(have), of=count)
        if len(have) == count:
            site = unpack(have, run.work / "runtimes" / name)
            run.environment["PYTHONPATH"] += f":{site}"
            tried = _try(run, name)
    return tried


def _try(run: step.Step, name: str) -> bool:
    """Whether it starts here, and whether it runs a frozen task."""
    return all([run.part("runners", "universeg_rt", seconds=30, limit=""), parts.frozen(run, 60, name, rounds=5)])


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("pieces", type=Path, nargs="+", help="pieces of runtimes, one or more a command")


if __name__ == "__main__":
    sys.exit(step.main("b2", __doc__.split("\n")[0], body, add))
