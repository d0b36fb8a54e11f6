"""The options of `universeg-segment`, and what is checked of them before anything is read."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..ensemble import POLICIES
from ..errors import InputError
from ..imaging.preprocess import ASPECTS
from ..precision import PRECISIONS
from ..runners import RUNNERS
from .common import as_options, given
from .report import REPORT

EXAMPLE = """example:
  universeg-segment --support examples/ --input scans/ --output results/ --support-size 16 --overlays
  universeg-segment --task task.onnx --input scans/ --output results/
examples/ holds images/ and labels/ with the same file names, at least four of each, better sixteen; scans/ holds
images. Subfolders are read too."""

# What goes with a frozen task; the other options are what its file states.
WITH_TASK = frozenset({
    "task", "input", "output", "runner", "threads", "probabilities", "overlays", "html", "truth", "review_below",
    "resume"})


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="universeg-segment", epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Segments images by example: the support set says what to segment; nothing is trained.")
    by = p.add_mutually_exclusive_group(required=True)
    by.add_argument("--support", type=Path, help="folder with images/ and labels/, or .npz with images and labels")
    by.add_argument("--task", type=Path, metavar="FILE", help="in place of a support: a file of universeg-export "
                    "--freeze, which states all options from --bundle to --percentiles, and --precision, itself")
    p.add_argument("--input", type=Path, nargs="+", required=True, help="image files, or folders of them")
    p.add_argument("--output", type=Path, required=True,
                   help="folder for masks/, report.json and what the options below add")
    p.add_argument("--bundle", type=Path, help="folder of the bundle (the shipped one)")
    p.add_argument("--members", type=int, help="support sets that are drawn and averaged, K (1)")
    p.add_argument("--support-size", type=int, help="entries of each set, S (all); 16 is a good beginning")
    p.add_argument("--replacement", action="store_true", help="draw entries with replacement")
    p.add_argument("--seed", type=int, help="seed of the drawing (0)")
    p.add_argument("--policy", choices=POLICIES, help="which entries a set holds: drawn at random once, the nearest to "
                   "each image, or all (random)")
    p.add_argument("--aspect", choices=ASPECTS,
                   help="how images get to the network's grid (stretch)")
    spans = p.add_mutually_exclusive_group()
    spans.add_argument("--window", type=float, nargs=2, metavar=("LOW", "HIGH"),
                       help="clip intensities to this range first")
    spans.add_argument("--percentiles", type=float, nargs=2, metavar=("LOW", "HIGH"),
                       help="clip each image to these percentiles of its intensities first, for example 0.5 99.5")
    p.add_argument("--runner", choices=("auto", *RUNNERS), default="auto")
    p.add_argument("--precision", choices=("auto", *PRECISIONS), help="(auto: the runner's own choice)")
    p.add_argument("--threads", type=int, help="threads of a CPU runner, 1 to 256 (one a core)")
    p.add_argument("--probabilities", action="store_true",
                   help="also write probabilities/NAME.npy and spread/NAME.npy, float32 (H,W)")
    p.add_argument("--overlays", action="store_true", help="also write overlays/NAME.png")
    p.add_argument("--html", action="store_true",
                   help="also write report.html, one file with all overlays in it; needs the extra medical")
    p.add_argument("--truth", type=Path, help="folder of true masks by the same names: reports Dice")
    p.add_argument("--review-below", type=float, metavar="X",
                   help="name the images whose mask has a confidence below X, from 0 to 1, to be looked at")
    p.add_argument("--resume", action="store_true",
                   help=f"go on where a run with the same options stood, by its {REPORT}")
    return p


def check(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """InputError where a value is out of range, or an option beside --task is one that the file itself states."""
    if args.review_below is not None and not 0 <= args.review_below <= 1:
        raise InputError(f"--review-below is {args.review_below}; give a confidence from 0 to 1")
    if args.task is not None and (others := given(args, parser) - WITH_TASK):
        raise InputError(
            f"{as_options(others)}: a frozen task states this itself; leave it out, or freeze again with it")
