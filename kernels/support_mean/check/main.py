"""The whole check on a GPU machine by one command: builds, compares, watches memory and races, measures, writes JSON.

    python -m universeg_rt.kernels.support_mean.check.main --out result.json
    python kernels/support_mean/check/main.py --out result.json               from a checkout, nothing installed
    python kernels/support_mean/check/main.py --dry-run --out result.json     the same steps on the CPU, at toy sizes:
    checks this program

Needs nvcc, cmake, a C++ compiler, PyTorch with CUDA, NumPy and ml_dtypes; no network. The result file is rewritten
after every step, so that what was measured is kept when the time runs out. Exit status 0 only when no step failed or
was cut short; one that the machine has no tool for (compute-sanitizer) is skipped, and says so.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

if __package__ in (None, ""):  # run as a script: make the checkout importable as the package
    _root = Path(__file__).resolve().parents[3]
    sys.path[0] = str(_root)
    import universeg_rt

    if str(_root) not in universeg_rt.__path__:
        universeg_rt.__path__.append(str(_root))

from universeg_rt.errors import UniverSegError
from universeg_rt.kernels.support_mean.check import correctness, machine, timing
from universeg_rt.kernels.support_mean.check.steps import Report

# The self-test comes before any timing: it compares every kernel. What takes longest comes last, so that a time limit
# cuts off what can be run again on its own: --steps sanitizers.
STEPS = ("build", "selftest", "bandwidth", "timing", "correctness", "large", "sanitizers")


def run_steps(names: list[str], report: Report, options: argparse.Namespace) -> bool:
    """Runs the steps in order; True where all of them passed."""
    state: dict = {"dry": options.dry_run, "build_dir": options.build_dir, "arch": options.arch, "say": report.say,
                   "deadline": report.started + options.time_limit}
    report.values["machine"] = machine.describe()
    report.write()
    functions = {
        "build": machine.build_native, "selftest": machine.run_selftest, "sanitizers": machine.run_sanitizers,
        "correctness": correctness.check_kernels, "large": correctness.check_large, "bandwidth": timing.copy_bandwidth,
        "timing": timing.time_kernels,
    }
    steps = {name: lambda entry, name=name: functions[name](state, entry, report.write) for name in names}
    return report.run(steps, ("build",), options.time_limit)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m universeg_rt.kernels.support_mean.check.main",
                                     description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("kernel_check.json"),
                        help="the result file; default: %(default)s")
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=list(STEPS), metavar="STEP",
                        help=f"of {', '.join(STEPS)}; build always runs")
    parser.add_argument("--arch", default="native",
                        help="CUDA architecture to build for, such as 90; default: %(default)s")
    parser.add_argument("--build-dir", type=Path, default=Path("build/kernel_check"), help="default: %(default)s")
    parser.add_argument("--time-limit", type=float, default=540, help="seconds after which no measurement starts")
    parser.add_argument("--dry-run", action="store_true", help="no GPU: the CPU build at toy sizes; times mean nothing")
    options = parser.parse_args(arguments)
    steps = [step for step in STEPS if step in options.steps or step == "build"]
    report = Report(options.out, {"dry_run": options.dry_run})
    try:
        passed = run_steps(steps, report, options)
        report.values["passed"] = passed
        report.write()
    except UniverSegError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for line in timing.table(report.values):
        print(line)
    print(f"{'passed' if passed else 'FAILED'}; {options.out}")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
