"""Everything on a GPU by one command: builds what can be built, checks every kernel and runner, times all side by side.

    python -m universeg_rt.benchmarks.gpu.main --out gpu.json
    python benchmarks/gpu/main.py --out gpu.json                    from a checkout, nothing installed
    python benchmarks/gpu/main.py --device cpu --out gpu.json       the whole program at toy sizes, on any machine

Contenders: the reference in eager PyTorch (float32, TF32, float16) and compiled, a plain ONNX export of it, our folded
network in PyTorch with and without our kernels, on ONNX Runtime's CUDA provider, and as TensorRT and TensorRT-RTX
engines with and without the plugin. What cannot be built or started is recorded as skipped with the reason. The result
file is rewritten after every step and every cell of the table, so that being cut off loses nothing. Exit status 0 only
when nothing failed; what was skipped is no failure.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

if __package__ in (None, ""):  # run as a script: make the checkout importable as the package
    sys.path[0] = str(Path(__file__).resolve().parents[2])
    from universeg_rt.checkout import make_importable

    make_importable()

from universeg_rt.bundle.bundle import MANIFEST, SHIPPED  # noqa: E402
from universeg_rt.checkout import make_importable_for_children  # noqa: E402
from universeg_rt.cli.common import importing, run_command  # noqa: E402
from universeg_rt.errors import InputError  # noqa: E402
from universeg_rt.kernels.support_mean.check.steps import Report  # noqa: E402
from universeg_rt.spec import PRESETS, NetworkSpec  # noqa: E402

PROGRAM = "universeg_rt.benchmarks.gpu.main"

with importing(__name__, PROGRAM):
    from universeg_rt.benchmarks.gpu import artefacts, chosen, contenders, machine, parity, timing

STEPS = {
    "machine": machine.run_machine, "ceilings": machine.run_ceilings, "network": artefacts.run_network,
    "kernels": artefacts.run_kernels, "bundle": artefacts.run_bundle, "plain": artefacts.run_plain,
    "engines": artefacts.run_engines, "contenders": contenders.run_contenders, "parity": parity.run_parity,
    "timing": timing.run_timing,
}
ALWAYS = ("machine", "ceilings", "network", "contenders")  # what the others stand on
SMALL = NetworkSpec("none", (6, 5, 7), (4, 6), "max_pool")  # all that v1 has, in a moment


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(prog=PROGRAM, description=__doc__,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--out", type=Path, default=Path("gpu.json"), help="the result file; default: %(default)s")
    p.add_argument("--steps", nargs="+", choices=tuple(STEPS), metavar="STEP", default=list(STEPS),
                   help=f"of {', '.join(STEPS)}; {', '.join(ALWAYS)} always run")
    p.add_argument("--support-sizes", type=int, nargs="+", metavar="S", help="64 16 1 256, in this order")
    p.add_argument("--members", type=int, nargs="+", metavar="K", help="1 5, in this order")
    chosen.add_options(p)
    p.add_argument("--rounds", type=int, help="most timed runs of a contender in a cell (200)")
    p.add_argument("--budget", type=float, help="seconds a contender gets in a cell; at least 5 runs are made (0.4)")
    p.add_argument("--time-limit", type=float, default=540, help="seconds after which no measurement starts (540)")
    p.add_argument("--checkpoint", type=Path,
                   help="weights, a bundle's folder too; default: the shipped ones, where they are, else random ones")
    p.add_argument("--spec", choices=tuple(PRESETS), help="of random weights, or of a published .pt")
    p.add_argument("--plugin", help="TensorRT plugin libraries, separated by `:`")
    p.add_argument("--no-int8", action="store_true", help="leave the int8 models out; their calibration takes a while")
    p.add_argument(
        "--work", type=Path, default=Path("build/gpu_benchmark"),
        help="folder for what is built; a later run takes from it what its own --steps leave out (%(default)s)")
    p.add_argument("--kernels-build", type=Path, help="folder of an earlier build of the kernels, to go on from")
    p.add_argument("--device", choices=("cuda", "cpu"), default="cuda",
                   help="cpu: toy sizes; checks this program, not the speed")
    p.add_argument("--dry-run", action="store_true", help="the same as --device cpu")
    p.add_argument("--compile", action="store_true",
                   help="torch.compile too, which compiles anew for every shape, for minutes")
    p.add_argument(
        "--cpu-reference", action="store_true", help=
        "compare with the reference on the CPU at every S; by default with it on the GPU in float32, and that with the "
        "CPU at the smallest S only")
    p.add_argument("--references", type=Path, metavar="FILE",
                   help="logits of the reference computed beforehand (benchmarks/gpu/references.py), for the parity")
    p.add_argument("--compile-backend", help="of torch.compile (inductor; on the CPU eager)")
    p.add_argument("--threads", type=int, default=1, help="of PyTorch with --device cpu (1)")
    return p


def main(arguments: list[str] | None = None) -> int:
    return run_command(_main, parser(), arguments)


def _main(options: argparse.Namespace) -> int:
    device = "cpu" if options.dry_run else options.device
    small = device == "cpu"
    sizes = options.support_sizes or ([1, 3] if small else [64, 16, 1, 256])
    members = options.members or ([1, 2] if small else [1, 5])
    if min(*sizes, *members, options.threads) < 1 or (options.rounds is not None and options.rounds < 1):
        raise InputError("support sizes, members, rounds and threads must be positive")
    if options.checkpoint is None and options.spec is None and not small and (SHIPPED / MANIFEST).is_file():
        options.checkpoint = SHIPPED
    options.compile_backend = options.compile_backend or ("eager" if small else "inductor")
    options.work.mkdir(parents=True, exist_ok=True)
    if __name__ == "__main__" and __package__ in (None, ""):
        make_importable_for_children(options.work / "site")
    command = sys.argv[1:] if __name__ == "__main__" else []
    report = Report(options.out, {"device": device, "command": command})
    state = {
        "options": options, "device": device, "grid": (32, 32) if small else (128, 128), "support_sizes": sizes,
        "members": members, "rounds": options.rounds or (3 if small else 200), "budget": options.budget
        or (0.0 if small else 0.4), "threads": options.threads, "work": options.work, "say": report.say,
        "write": report.write, "deadline": report.started + options.time_limit
    }
    if small and options.checkpoint is None and options.spec is None:
        state["small_spec"] = SMALL
    report.write()
    steps = {name: lambda entry, step=step: step(state, entry) for name, step in STEPS.items()
             if name in options.steps or name in ALWAYS}
    passed = report.run(steps, ALWAYS, options.time_limit)
    report.values["passed"] = passed
    report.write()
    for line in (*parity.table(report.values), *timing.table(report.values)):
        print(line)
    skipped = [f"{name}: {why}" for step in report.values["steps"].values() for name, why in _skipped(step)]
    for line in dict.fromkeys(skipped):
        print(f"skipped {line}")
    print(f"{'passed' if passed else 'FAILED'}; {options.out}")
    return 0 if passed else 1


def _skipped(step: dict) -> list[tuple[str, str]]:
    found = step.get("skipped", {})
    if isinstance(found, dict):
        return list(found.items())
    return [(f"{s['contender']} S={s['support_size']} K={s['members']}", s["why"]) for s in found]


if __name__ == "__main__":
    sys.exit(main())
