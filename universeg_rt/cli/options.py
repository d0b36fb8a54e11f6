"""The options of `universeg-segment`, and what is checked of them before anything is read."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import get_args

from ..answers.absence import ABSENT_BELOW, check_absent_below
from ..ensemble import POLICIES
from ..errors import InputError
from ..frozen.record import AUTO, KINDS
from ..imaging.normalisation import CT_WINDOWS
from ..imaging.preprocess import ASPECTS
from ..imaging.windows import check_box
from ..labelled_predictor import Overlap
from ..precision import PRECISIONS
from ..runners import RUNNERS
from .common import as_options, given, said_in_options
from .report import REPORT
from .supports import add_volume_options
from .where import OPTIONS as WHERE
from .where import check_where

EXAMPLE = """example:
  universeg-segment --support examples/ --input scans/ --output results/ --support-size 16 --overlays
  universeg-segment --support labelled_volumes/ --input scans/ --output results/ --axis axial --html
  universeg-segment --task task.onnx --input scans/ --output results/
examples/ holds images/ and labels/ with the same file names, at least four of each, better sixteen; scans/ holds
images, volumes (NIfTI, DICOM series, multi-page TIFF), or both. Subfolders are read too."""

# What goes with a frozen task; the other options are what its file states.
WITH_TASK = frozenset({
    "task", "input", "output", "runner", "threads", "probabilities", "overlays", "html", "truth", "review_below",
    "resume", "axis", "time", "series", "post", "absent_below", "keep_noise"})
NOT_FROZEN = frozenset({"overlap", "refine", "freeze", "policy", *WHERE})  # of these a file states nothing


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="universeg-segment", epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Segments images and volumes by example: the support set says what to segment; nothing is trained.")
    by = p.add_mutually_exclusive_group(required=True)
    by.add_argument("--support", type=Path,
                    help="folder with images/ and labels/, of images or of volumes, or .npz with images and labels")
    by.add_argument("--task", type=Path, metavar="FILE", help="in place of a support: a file of universeg-export "
                    "--freeze, which states the options of its support, ensemble and images itself")
    p.add_argument("--input", type=Path, nargs="+", required=True, help="images and volumes, or folders of them")
    p.add_argument("--output", type=Path, required=True,
                   help="folder for masks/, report.json and what the options below add")
    p.add_argument("--bundle", type=Path, help="folder of the bundle (the shipped one)")
    p.add_argument("--members", type=int, help="support sets that are drawn and averaged, K (1)")
    p.add_argument("--support-size", type=int, help="entries of each set, S (all); 16 is a good beginning")
    p.add_argument("--replacement", action="store_true", help="draw entries with replacement")
    p.add_argument("--seed", type=int, help="seed of the drawing (0)")
    p.add_argument("--policy", choices=POLICIES, help="which entries a set holds: drawn at random once, the nearest to "
                   "each image, or all (random)")
    add_image_options(p)
    p.add_argument("--runner", choices=("auto", *RUNNERS), default="auto")
    p.add_argument("--precision", choices=("auto", *PRECISIONS), help="(auto: the runner's own choice)")
    p.add_argument("--threads", type=int, help="threads of a CPU runner, 1 to 256 (one a core)")
    p.add_argument("--freeze", choices=(AUTO, *KINDS), help="make the support part of the network first: auto takes "
                   "the fast static one where its price on the support is small (universeg_rt/docs/frozen.md)")
    _add_labels(p)
    _add_volumes(p)
    _add_answers(p)
    _add_outputs(p)
    return p


def add_image_options(parser: argparse._ActionsContainer) -> None:
    """--aspect, --window and --percentiles: how images get to the network, for `opened.image_options`."""
    parser.add_argument("--aspect", choices=ASPECTS, help=f"how images get to the network's grid ({ASPECTS[0]})")
    spans = parser.add_mutually_exclusive_group()
    spans.add_argument("--window", nargs="+", metavar="LOW HIGH | NAME",
                       help="intensities that are 0 and 1 to the network, what lies outside is clipped; or a usual "
                       f"window of CT: {', '.join(CT_WINDOWS)}")
    spans.add_argument("--percentiles", type=float, nargs=2, metavar=("LOW", "HIGH"),
                       help="clip each image to these percentiles of its intensities first, for example 0.5 99.5")


def _add_labels(p: argparse.ArgumentParser) -> None:
    labels = p.add_argument_group("labels")
    labels.add_argument("--label", nargs="+", metavar="LABEL", help="values or names of the labels to segment, of "
                        "those in the support's label maps; VALUE=NAME names one (all)")
    labels.add_argument("--overlap", choices=get_args(Overlap), help="argmax gives a pixel to the most probable label, "
                        "independent leaves each label a mask of its own (argmax)")


def _add_volumes(p: argparse.ArgumentParser) -> None:
    volumes = p.add_argument_group("volumes")
    add_volume_options(volumes)


def _add_answers(p: argparse.ArgumentParser) -> None:
    answers = p.add_argument_group("answers")
    answers.add_argument("--post", nargs="+", metavar="STEP", help="clean masks up: largest-component, fill-holes, "
                         "minimum-size=50 (or 50mm), of a slice or with -3d of a volume; smooth=1 across slices")
    answers.add_argument("--absent-below", type=float, metavar="X", help="leave the mask of an image or a slice empty "
                         f"where the presence of its target is below X, from 0, never, to 1 ({ABSENT_BELOW:g} for "
                         "slices of volumes where the support is of volumes too, which show where the target lies; "
                         "else never)")
    answers.add_argument("--keep-noise", action="store_true", help="segment the slices of a volume that hold nothing "
                         "but noise too; else their masks are empty")
    answers.add_argument("--refine", choices=("window", "threshold", "auto"), help="a second look in a window around "
                         "the first mask, or a threshold, by leaving entries of the support out; auto decides so")
    answers.add_argument("--region", type=int, nargs=4, metavar=("TOP", "LEFT", "BOTTOM", "RIGHT"),
                         help="look only within this box of every image or slice, in pixels")
    answers.add_argument("--within", metavar="LABEL", help="segment this label, by value or name, in whole images "
                         "first, and look for the others around its mask only")
    answers.add_argument("--follow", action="store_true", help="in volumes, look for each label around its mask in the "
                         "slice before; one slice at a time")


def _add_outputs(p: argparse.ArgumentParser) -> None:
    p.add_argument("--probabilities", action="store_true", help="also write probabilities/ and spread/, float32: .npy "
                   "(H,W) of an image, of a volume a file in its geometry")
    p.add_argument("--overlays", action="store_true",
                   help="also write overlays/NAME.png; of a volume a contact sheet of its slices")
    p.add_argument("--html", action="store_true",
                   help="also write report.html, one file with all overlays in it; needs the extra medical")
    p.add_argument("--truth", type=Path,
                   help="folder of true masks by the same names, or one with images/ and labels/: reports Dice")
    p.add_argument("--review-below", type=float, metavar="X",
                   help="name the images whose mask has a confidence below X, from 0 to 1, to be looked at")
    p.add_argument("--resume", action="store_true",
                   help=f"go on where a run with the same options stood, by its {REPORT}")


def check(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """InputError where a value is out of range, or an option beside --task is one that the file itself states."""
    if args.review_below is not None and not 0 <= args.review_below <= 1:
        raise InputError(f"--review-below is {args.review_below}; give a confidence from 0 to 1")
    with said_in_options():
        check_absent_below(args.absent_below)
    if args.task is not None and (others := given(args, parser) & NOT_FROZEN):
        raise InputError(f"{as_options(others)}: not with a frozen task; leave it out, or give --support for --task")
    if args.task is not None and (others := given(args, parser) - WITH_TASK):
        raise InputError(
            f"{as_options(others)}: a frozen task states this itself; leave it out, or freeze again with it")
    if args.region is not None:
        check_box(tuple(args.region), "--region")
    check_where(given(args, parser))
    if args.freeze is not None and (others := given(args, parser) & {"refine", *WHERE}):
        raise InputError(f"{as_options(others)}: a frozen task cannot look again; leave it out, or --freeze")
