"""The engine part of `universeg-export`: its options, and the run with progress and one line for each engine."""

from __future__ import annotations

import argparse
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from universeg_rt.bundle.bundle import Bundle
from universeg_rt.bundle.engine import BUILDERS, MODELS, Profile
from universeg_rt.errors import InputError
from universeg_rt.storage.atomic import write_folder

from .build import EngineOptions, Outcome, build_engines, check_library
from .features import LEVELS
from .process import Report

__all__ = ["add_arguments", "check_library", "options", "run", "run_on_bundle"]

UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    g = parser.add_argument_group(
        "engines",
        "With --engine the bundle's models (of the given precisions) are built into engines and added to the "
        "bundle: the one just exported, or --bundle. A profile is min:opt:max, or one number.")
    g.add_argument("--engine", choices=BUILDERS, help="build with this library, which must be installed")
    g.add_argument("--bundle", metavar="DIR",
                   help="build for this bundle instead of exporting (`shipped`: the package's own, with --output)")
    g.add_argument("--task", type=Path, metavar="FILE",
                   help="build for this static frozen task; the engine stands beside it, or at --output, and is found "
                   "there; a precision that is not the file's is taken from --bundle (the shipped one)")
    g.add_argument("--engine-model", nargs="+", choices=MODELS, default=[],
                   help="which models (prepare and predict, or whole where the bundle has no such pair)")
    g.add_argument("--profile-entries", default="1:64:256", metavar="MIN:OPT:MAX", help="support entries S (1:64:256)")
    g.add_argument("--profile-sets", default="1", metavar="MIN:OPT:MAX",
                   help="support sets K, the ensemble's members (1)")
    g.add_argument("--profile-queries", default="1", metavar="MIN:OPT:MAX", help="queries B at once (1)")
    g.add_argument("--plugin", type=Path, metavar="LIB",
                   help="plugin library for the support-mean operation (native operators)")
    g.add_argument("--timing-cache", type=Path, metavar="FILE",
                   help="start from these timings too, and leave the new ones there")
    g.add_argument("--workspace", metavar="SIZE", help="most device memory beside the weights, as 4G (all there is)")
    g.add_argument("--tf32", action="store_true", help="let float32 products round their inputs to TF32")
    g.add_argument("--optimization-level", type=int, metavar="0-5", help="how long to search (the library's default)")
    g.add_argument("--hardware-compatibility", choices=("none", *LEVELS), default="none",
                   help="tensorrt: this GPU only, its compute capability, or all from Ampere on (none)")
    g.add_argument("--compute-capability", nargs="+", default=[], metavar="X.Y",
                   help="tensorrt-rtx: which GPUs (8.0 and later)")
    g.add_argument("--rebuild", action="store_true", help="build anew what the bundle has for this machine already")


def options(args: argparse.Namespace, precisions: tuple[str, ...], image: tuple[int, int]) -> EngineOptions:
    """What the command line asks for, for a network of this image size; InputError where it cannot be."""
    for text in args.compute_capability:
        if not re.fullmatch(r"\d+\.\d", text):
            raise InputError(f"--compute-capability {text}: give it as 8.9")
    profile = Profile.parse(args.profile_queries, args.profile_sets, args.profile_entries, image)
    return EngineOptions(args.engine, precisions, tuple(args.engine_model), profile, args.plugin, args.timing_cache,
                         _bytes(args.workspace), args.tf32, args.optimization_level, args.hardware_compatibility,
                         tuple(args.compute_capability), args.rebuild)


def run_on_bundle(args: argparse.Namespace, precisions: tuple[str, ...]) -> None:
    """Build for --bundle: in place, or with --output in a copy of it, whole or not at all."""
    if args.engine is None:
        raise InputError("--bundle is for building engines; say which with --engine tensorrt or --engine tensorrt-rtx")
    shipped = args.bundle == "shipped"
    if shipped and args.output is None:
        raise InputError("the shipped bundle is not changed; give --output for a copy of it with engines")
    bundle = Bundle.open(None if shipped else args.bundle)
    wanted = options(args, precisions, (bundle.manifest.input.height, bundle.manifest.input.width))
    if args.output is None:
        return run(bundle, wanted)
    from ..build import check_output

    check_output(args.output)
    with write_folder(args.output) as folder:
        shutil.copytree(bundle.path, folder, dirs_exist_ok=True)
        run(Bundle.open(folder), wanted)


def run_on_task(args: argparse.Namespace, precisions: tuple[str, ...]) -> None:
    """Build for --task, one engine a precision."""
    from .frozen import build_frozen  # needs onnx

    if args.engine is None:
        raise InputError("--task is for building engines; say which with --engine tensorrt or --engine tensorrt-rtx")
    if args.output is not None and len(precisions) > 1:
        raise InputError("--output is one file, and several precisions are asked for; leave it out, or give one")
    bundle = None if args.bundle in (None, "shipped") else Bundle.open(args.bundle)
    for precision in precisions:
        _print(build_frozen(args.task, options(args, (precision,), (8, 8)), args.output, bundle, _progress, print))


def run(bundle: Bundle, wanted: EngineOptions) -> None:
    """Build for an opened bundle and print a line for each engine."""
    for outcome in build_engines(bundle, wanted, _progress):
        _print(outcome)


def _bytes(text: str | None) -> int | None:
    if text is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([KMG]?)i?B?", text.strip(), re.IGNORECASE)
    if match is None:
        raise InputError(f"--workspace {text}: give a size as 4G, 512M, or in bytes")
    return int(float(match[1]) * UNITS[match[2].upper()])


@contextmanager
def _progress(label: str) -> Iterator[Report]:
    """On a terminal a line that says what the library is doing and for how long; elsewhere that it has begun."""
    from tqdm import tqdm

    if not sys.stderr.isatty():
        print(f"building {label}", file=sys.stderr)
    with tqdm(desc=f"building {label}", bar_format="{desc} [{elapsed}]{postfix}", leave=False, disable=None) as bar:
        yield lambda phase, done, of: bar.set_postfix_str(f"{phase} {done}/{of}" if of else phase)


def _print(outcome: Outcome) -> None:
    entry, made = outcome.entry, outcome.entry.fingerprint
    need = f", {entry.memory_bytes / 1e9:.2f} GB of GPU memory at its largest shapes" if entry.memory_bytes else ""
    state = "" if outcome.built else " (was there already; --rebuild builds it anew)"
    print(f"{entry.file}: {entry.model} {made.precision}, {outcome.bytes / 1e6:.1f} MB{need}; {entry.profile}; "
          f"{made.builder} {made.builder_version}, for {made.gpu or 'compute capability ' + made.compute_capability}, "
          f"{'plugin ' + made.plugin_version if made.plugin_sha256 else 'native operators'}{state}")
