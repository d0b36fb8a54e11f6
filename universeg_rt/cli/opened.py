"""What `universeg-segment` segments by, a support that it prepares or a frozen file; and what the report says of it."""

from __future__ import annotations

import argparse
from dataclasses import asdict, dataclass
from typing import Any

from ..ensemble import Ensemble
from ..errors import InputError
from ..frozen_task import FrozenTask
from ..imaging.normalisation import MINMAX, Normalisation, Percentiles, Window
from ..imaging.preprocess import ASPECTS
from ..predictor import Predictor
from ..segmenter import Segmenter
from ..support import SupportSet
from ..task import Task
from .common import as_options, given

# What goes with a frozen task; the other options are what its file states.
WITH_TASK = frozenset({
    "task", "input", "output", "runner", "threads", "probabilities", "overlays", "truth", "review_below", "resume"})
# Of a support, where they are left out; beside --task one that is given is refused, whatever its value.
LEFT_OUT = {"members": 1, "seed": 0, "precision": "auto"}
# The SDK's words for a cure, and the command's.
OPTIONS = {
    "replacement=True": "--replacement", "support_size": "--support-size",
    "prepare(..., normalise=Percentiles(0.1, 99.9))": "--percentiles 0.1 99.9",
}


@dataclass(frozen=True)
class Opened:
    """task: predicts. settings: what its results depend on, for the report. reason: why this runner."""

    task: Predictor
    settings: dict[str, Any]
    reason: str


def check(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """InputError where an option beside --task is one that the file itself states."""
    if args.task is not None and (others := given(args, parser) - WITH_TASK):
        raise InputError(
            f"{as_options(others)}: a frozen task states this itself; leave it out, or freeze again with it")


def open_task(args: argparse.Namespace, support: SupportSet | None) -> Opened:
    """Prepare `support`, or where there is none open the file that --task names; raises as the SDK does, in the words
    of the options."""
    if support is None:
        return _frozen(FrozenTask.open(args.task, runner=args.runner, threads=args.threads))
    said = {name: value for name, value in vars(args).items() if value is not None}
    args = argparse.Namespace(**{**vars(args), **LEFT_OUT, **said})
    ensemble = Ensemble(args.members, args.support_size, args.replacement, args.seed)
    segmenter = Segmenter.open(args.bundle, runner=args.runner, precision=args.precision, threads=args.threads)
    try:
        return _prepared(segmenter.prepare(support, ensemble, **image_options(args)))
    except InputError as error:
        raise InputError(in_options(str(error))) from None


def in_options(text: str) -> str:
    """A message of the SDK in the words of the command line."""
    for word, option in OPTIONS.items():
        text = text.replace(word, option)
    return text


def add_image_options(parser: argparse._ActionsContainer) -> None:
    """--aspect, --window and --percentiles: how images get to the network, for `image_options`."""
    parser.add_argument("--aspect", choices=ASPECTS, help=f"how images get to the network's grid ({ASPECTS[0]})")
    spans = parser.add_mutually_exclusive_group()
    spans.add_argument("--window", type=float, nargs=2, metavar=("LOW", "HIGH"),
                       help="clip intensities to this range first")
    spans.add_argument("--percentiles", type=float, nargs=2, metavar=("LOW", "HIGH"),
                       help="clip each image to these percentiles of its intensities first, for example 0.5 99.5")


def image_options(args: argparse.Namespace) -> dict[str, Any]:
    """What `Segmenter.prepare` takes for these options; InputError where a range is none."""
    normalise: Normalisation = MINMAX
    if args.window:
        normalise = Window(*args.window)
    elif args.percentiles:
        normalise = Percentiles(*args.percentiles)
    return {"aspect": args.aspect or ASPECTS[0], "normalise": normalise}


def _prepared(task: Task) -> Opened:
    manifest, runner, ensemble = task.segmenter.bundle.manifest, task.segmenter.runner, task.ensemble
    return Opened(task, {
        "bundle": {
            "name": manifest.name, "sha256": task.segmenter.bundle.sha256, "weights_sha256": manifest.weights_sha256,
            "licence": dict(manifest.licence)
        },
        "runner": {"name": runner.name, "precision": runner.precision},
        "support": {"entries": len(task.support), "sha256": task.support.sha256},
        "ensemble": {
            "members": ensemble.members, "support_size": ensemble.support_size or len(task.support),
            "replacement": ensemble.replacement, "seed": ensemble.seed
        },
        "task": None,
        **_images(task),
    }, runner.reason)


def _frozen(task: FrozenTask) -> Opened:
    record = task.record
    return Opened(task, {
        "bundle": {"name": record.bundle, "licence": dict(record.licence)},
        "runner": {"name": task.runner.name, "precision": record.precision},
        "support": {"entries": record.support_entries, "sha256": record.support_sha256},
        "ensemble": {"members": record.members},
        "task": {
            "sha256": task.sha256, "kind": task.kind, "reason": task.reason, "price": asdict(task.price),
            "proxies": record.proxies
        },
        **_images(task),
    }, task.runner.reason)


def _images(task: Predictor) -> dict[str, Any]:
    """How images get to the network."""
    return {"aspect": task.aspect, "normalise": str(task.normalise)}
