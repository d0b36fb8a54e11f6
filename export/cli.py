"""`universeg-export`: a checkpoint in, a checked bundle out; or a support in, a frozen task out."""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

from universeg_rt.bundle.weights import WEIGHTS
from universeg_rt.cli.common import run_command
from universeg_rt.errors import InputError, ParityError, shown
from universeg_rt.precision import PRECISIONS
from universeg_rt.spec import PRESETS, NetworkSpec

from . import freeze
from .engine import command as engines

EXAMPLE = """example:
  universeg-export --checkpoint universeg_v1_nf64_ss64_STv1.pt --spec v1 --output my_bundle
  universeg-export --bundle my_bundle --engine tensorrt --profile-entries 1:64:256
  universeg-export --freeze examples/ --output task.onnx
  universeg-export --task task.onnx --engine tensorrt --precision fp16 --profile-queries 1:1:16
  universeg-export --explain"""


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="universeg-export", epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter, description=
        "Fold a UniverSeg checkpoint exactly, write it as ONNX, compare every model with the reference network, "
        "and leave a bundle that universeg-segment and the SDK open. With float32 over tolerance nothing is left "
        "behind; another precision that fails is left out of the bundle, and the exit status is then 1.")
    p.add_argument("--checkpoint", type=Path,
                   help=".safetensors of ours, a bundle's folder, or a published .pt (with --spec)")
    p.add_argument("--output", type=Path,
                   help="folder to write, or with --freeze the file; what is already there is replaced")
    p.add_argument("--spec", help=f"{', '.join(PRESETS)}, or a JSON file; needed where the checkpoint does not say it")
    p.add_argument("--grid", type=int, nargs=2, default=(128, 128), metavar=("H", "W"),
                   help="image size of the network (128 128)")
    p.add_argument("--name", help="name of the bundle (that of the output folder)")
    p.add_argument("--licence", help="licence of the weights (the checkpoint's own statement)")
    p.add_argument(
        "--precision", nargs="+", default=["fp32"], choices=PRECISIONS, metavar="P",
        help=f"of {', '.join(PRECISIONS)} (fp32, which is always exported); fp16 is meant for GPUs and gains little "
        "on CPUs; with --bundle: of the engines; with --freeze: fp32, fp16 or int8")
    p.add_argument("--calibration", type=Path, metavar="SUPPORT",
                   help="for int8: support set (.npz or folder) like yours to calibrate on (synthetic tasks)")
    p.add_argument("--calibration-seed", type=int, default=0, metavar="N",
                   help="for int8: what is drawn is drawn from this (0)")
    p.add_argument("--explain", action="store_true", help="print what each fold does and the cost table, then stop")
    engines.add_arguments(p)
    freeze.add_arguments(p)
    return p


def main(arguments: list[str] | None = None) -> int:
    return run_command(_main, parser(), arguments)


def _main(args: argparse.Namespace) -> int:
    freeze.check(args, parser())
    if args.freeze is not None:
        freeze.run(args)
        return 0
    if args.task is not None:
        engines.run_on_task(args, tuple(args.precision))
        return 0
    spec = _read_spec(args.spec)
    if args.explain:
        return _explain(spec, args)
    if args.bundle is not None:
        if args.checkpoint is not None:
            raise InputError(
                "give --checkpoint to export, or --bundle to build engines for a bundle that is there; not both")
        engines.run_on_bundle(args, tuple(args.precision))
        return 0
    if args.checkpoint is None or args.output is None:
        raise InputError(
            "give --checkpoint and --output (or --freeze, --explain, or --bundle with --engine); --help has an example")
    import torch  # noqa: F401  (the reference network: where it is missing, that is said before anything is computed)
    from tqdm import tqdm

    from universeg_rt.training.network.checkpoint import load_checkpoint

    from .build import build_bundle, check_grid
    from .int8.calibration import support_episodes, synthetic_episodes

    if "int8" not in args.precision and args.calibration is not None:
        raise InputError("--calibration is for int8 only; add --precision int8 or leave it out")
    spec, weights, metadata = load_checkpoint(args.checkpoint, spec)
    check_grid(spec, tuple(args.grid))
    wanted = engines.options(args, tuple(args.precision), tuple(args.grid)) if args.engine else None
    if wanted is not None:  # before the minutes that an export takes
        engines.check_library(wanted)
    calibration = None
    if "int8" in args.precision:
        grid, seed = tuple(args.grid), args.calibration_seed
        calibration = (synthetic_episodes(grid, seed) if args.calibration is None
                       else support_episodes(args.calibration, grid, seed))
    provenance = {
        "checkpoint": args.checkpoint.name,
        "checkpoint_sha256": hashlib.sha256(
            (args.checkpoint / WEIGHTS if args.checkpoint.is_dir() else args.checkpoint).read_bytes()).hexdigest(),
        "checkpoint_metadata": {k: v for k, v in sorted(metadata.items()) if k != "universeg_spec"},
        "command": "universeg-export", "libraries": _versions(),
    }
    licence = {"weights": args.licence or metadata.get("licence", "not stated: ask whoever gave you the checkpoint")}
    exported = build_bundle(
        spec, weights, args.output, name=args.name or args.output.resolve().name, grid=tuple(args.grid),
        precisions=args.precision, calibration=calibration, provenance=provenance, licence=licence,
        progress=partial(tqdm, desc="checking", unit="input"))
    bundle = exported.bundle
    size = sum(f.bytes for f in bundle.manifest.files.values()) / 1e6
    for precision, report in exported.reports.items():
        print(f"{precision}\n{report.table()}")
    spared = bundle.manifest.provenance.get("calibration", {}).get("blocks_in_float")
    if spared:
        print(
            f"int8 leaves in float: {', '.join(spared)}, without which too many pixels flipped on the calibration's "
            "tasks"
        )
    held_out = bundle.manifest.parity.get("int8", {}).get("held_out", {})
    for form, figures in held_out.get("models", {}).items():
        print(f"int8 {form} on {held_out['tasks']} held-out tasks: Dice {figures['dice']:.4f}, float32 "
              f"{figures['dice_float32']:.4f}, {100 * figures['flipped']:.3f} % of pixels flipped")
    print(f"bundle {bundle.path} ({len(bundle.manifest.files)} models, {size:.1f} MB, sha256 {bundle.sha256[:16]})")
    left = [p for p in args.precision if p not in exported.failed]
    if wanted is not None and left:
        engines.run(bundle, replace(wanted, precisions=tuple(left)))
    if exported.failed:
        raise ParityError(f"the bundle is without {', '.join(exported.failed)}. " + ". ".join(
            f"{precision}: {why}" for precision, why in exported.failed.items()))
    return 0


def _explain(spec: NetworkSpec | None, args: argparse.Namespace) -> int:
    import numpy as np

    from .build import check_grid
    from .folds import fold
    from .folds.cost import table

    if args.checkpoint is not None:
        from universeg_rt.training.network.checkpoint import load_checkpoint

        specs = {args.checkpoint.name: load_checkpoint(args.checkpoint, spec)[0]}
    else:
        specs = {args.spec: spec} if spec is not None else PRESETS
    for name, each in specs.items():
        check_grid(each, tuple(args.grid))
        zeros = {key: np.zeros(shape, np.float32) for key, shape in each.weight_shapes().items()}
        print(f"=== {name}: {each.to_json()}\n{table(fold(each, zeros), *args.grid)}\n")
    return 0


def _read_spec(value: str | None) -> NetworkSpec | None:
    if value is None:
        return None
    if value in PRESETS:
        return NetworkSpec.preset(value)
    if not os.path.isfile(value):
        raise InputError(f"--spec {shown(value)} is neither one of {', '.join(PRESETS)} nor a file")
    return NetworkSpec.read(value)


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    return {
        "python": sys.version.split()[0], **{name: version(name)
                                             for name in ("numpy", "onnx", "onnxruntime", "torch")}
    }


if __name__ == "__main__":
    sys.exit(main())
