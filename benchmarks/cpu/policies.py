"""Which entries of a support answer a query best: drawn at random, the nearest to it, or all, on real tasks.

    python -m universeg_rt.benchmarks.cpu.policies --folder results/policies -- --group tune --data-root DATA

Runs `universeg-evaluate` for each policy with the options after --, at S = 4 and 16, K = 1 and 3 where they say nothing
else, and writes a file for each below --folder; with --resume after -- it goes on where it stood. Prints the paired
differences to `random`, of the network and of what needs none.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from universeg_rt.cli.common import importing, run_command
from universeg_rt.ensemble import POLICIES, RANDOM
from universeg_rt.storage.atomic import make_folder

PROGRAM = "universeg_rt.benchmarks.cpu.policies"

with importing(__name__, PROGRAM):
    from universeg_rt.training.evaluation import evaluate
    from universeg_rt.training.evaluation.baselines import ATLAS, COPY
    from universeg_rt.training.evaluation.compare import comparison

USUAL = {"--support-sizes": ("4", "16"), "--members": ("1", "3")}


def _main(args: argparse.Namespace) -> int:
    files = {policy: make_folder(args.folder) / f"{policy}.json" for policy in POLICIES}
    asked = list(args.options)
    for name, values in USUAL.items():
        asked += [name, *values] if name not in asked else []
    for policy, file in files.items():
        if status := evaluate.main([*asked, "--policy", policy, "--output", str(file)]):
            return status
    first = files.pop(RANDOM)
    for method in (evaluate.EXACT, ATLAS, COPY):
        print(f"\n{method}\n\n{comparison(first, list(files.values()), method)}")
    return 0


def main(arguments: list[str] | None = None) -> int:
    p = argparse.ArgumentParser(prog=PROGRAM, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--folder", type=Path, required=True, help="for random.json, nearest.json and all.json")
    p.add_argument("options", nargs="*", help="of universeg-evaluate, after --")
    return run_command(_main, p, arguments)


if __name__ == "__main__":
    sys.exit(main())
