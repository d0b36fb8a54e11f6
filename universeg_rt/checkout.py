"""Runs a module of a bare checkout as if the project were installed:  python universeg_rt/checkout.py MODULE ARGUMENTS

Installed, the package `universeg_rt` holds `export`, `kernels`, `training` and `benchmarks`, which lie beside it in a
checkout.
"""

from __future__ import annotations

import os
import runpy
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BESIDE = ("export", "kernels", "training", "benchmarks")  # of the package where it is installed


def make_importable() -> None:
    """Let this process import the checkout that this file lies in, before anything installed."""
    sys.path.insert(0, str(ROOT))
    import universeg_rt

    if str(ROOT) not in universeg_rt.__path__:
        universeg_rt.__path__.append(str(ROOT))


def make_importable_for_children(site: Path) -> None:
    """Let processes that this one starts import the checkout: links under `site`, on PYTHONPATH."""
    package = site.absolute() / "universeg_rt"
    package.mkdir(parents=True, exist_ok=True)
    for part in (*(ROOT / "universeg_rt").iterdir(), *(ROOT / name for name in BESIDE)):
        link = package / part.name
        if link.is_symlink() and link.readlink() != part:  # of a checkout that lay elsewhere, or is gone
            link.unlink()
        if not link.is_symlink():
            link.symlink_to(part)
    # Started by `-m` in this checkout they would find the folder universeg_rt there first, without what lies beside it.
    os.environ["PYTHONSAFEPATH"] = "1"
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(site.absolute()), os.environ.get("PYTHONPATH"))))


def copy_to(target: Path) -> None:
    """Copy the checkout's code to `target`, which runs on where this checkout is replaced."""
    for name in ("universeg_rt", *BESIDE):
        shutil.copytree(ROOT / name, target / name, ignore=shutil.ignore_patterns("__pycache__"))


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    if not sys.flags.safe_path:
        del sys.path[0]  # the folder of this file: its modules are universeg_rt's
    del sys.argv[0]
    make_importable()
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
