"""The freezing part of `universeg-export`: its options, and the run. It needs the SDK alone, neither torch nor
onnx, except for int8 and pre-processing."""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path

from universeg_rt.answers.thresholds import CHOOSE, THRESHOLD
from universeg_rt.cli.common import as_options, given, in_options, said_in_options, say
from universeg_rt.cli.opened import image_options
from universeg_rt.cli.options import add_image_options
from universeg_rt.cli.supports import READ, TAKEN, add_one_label_options, load_one_label
from universeg_rt.ensemble import Ensemble
from universeg_rt.errors import InputError
from universeg_rt.freezing import refusal
from universeg_rt.frozen.record import AUTO, EXACT, HALF, IMAGE_TYPES, INT8, KINDS, SINGLE, STATIC
from universeg_rt.frozen_task import FrozenTask
from universeg_rt.imaging.files import named_images, read_image
from universeg_rt.imaging.pairs import IMAGES, part_of
from universeg_rt.proxies import SUPPORT, proxies_on_grid
from universeg_rt.segmenter import Segmenter
from universeg_rt.storage.atomic import check_folder_of, write_file
from universeg_rt.supports.volumes import AREA, EVEN, SIMILAR

# Names in the parsed arguments: what is for freezing alone, and what it shares.
OWN = frozenset({
    "freeze", "kind", "proxies", "max_loss", "threshold", "members", "support_size", "replacement", "seed",
    "float_constants", "include_preprocessing", "image_type", "aspect", "window", "percentiles", "label", *READ,
    *TAKEN})
SHARED = frozenset({"output", "bundle", "precision"})
STATIC_ONLY = frozenset({"proxies", "float_constants"})
KINDS_HERE = {f"kind={kind!r}": f"--kind {kind}" for kind in KINDS}  # a cure in the words of this command
PRECISIONS = ([SINGLE], [HALF], [INT8])
HOLDS = {EXACT: "the support's images and labels: share the file as you would share them",
         STATIC: "averages of features of the support, none of its images"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    g = parser.add_argument_group(
        "freezing a task",
        "With --freeze a support becomes part of one plain ONNX file, which universeg-segment --task and any ONNX "
        "runtime run. Needs neither torch nor onnx, apart from --include-preprocessing and --precision int8, which "
        "gives a static file in int8, calibrated on the proxies as they are. --precision fp16 gives a static file that "
        "computes in half precision, for GPUs.")
    g.add_argument("--freeze", type=Path, metavar="SUPPORT",
                   help="folder with images/ and labels/, of images or of volumes, or .npz with images and labels; "
                   "--output is the file to write, --bundle the network (the shipped one)")
    g.add_argument("--kind", choices=(AUTO, *KINDS), default=AUTO,
                   help="static: a small network, an approximation; exact: the whole network; auto: static where it "
                   "costs at most --max-loss (auto)")
    g.add_argument("--proxies", type=Path, metavar="FOLDER",
                   help="images of the task, without labels, that stand for the queries (the support's own)")
    g.add_argument("--max-loss", type=float, default=0.01, metavar="X",
                   help="what static may lose on the support's entries: Dice, or the share of those without the "
                   "target in which it marks something (0.01)")
    g.add_argument("--threshold", type=_threshold, default=THRESHOLD, metavar="P",
                   help=f"probability from which the mask marks, or {CHOOSE}: another than {THRESHOLD:g} where the "
                   f"support's entries, left out in turn, say that it gains ({THRESHOLD:g})")
    g.add_argument("--members", type=int, default=1, metavar="K", help="support sets that are drawn and averaged (1)")
    g.add_argument("--support-size", type=int, metavar="S", help="entries of each set (all)")
    g.add_argument("--replacement", action="store_true", help="draw entries with replacement")
    g.add_argument("--seed", type=int, default=0, metavar="N",
                   help="sets, entries to leave out and turns are drawn from this (0)")
    add_image_options(g)
    add_one_label_options(parser)
    g.add_argument("--float-constants", action="store_true",
                   help="hold the constant maps of a static file in float32 (half precision, at half the size)")
    g.add_argument("--include-preprocessing", action="store_true",
                   help="the file takes one image (H,W) of any size and gives mask and probability at that size; for "
                   "other programs, universeg-segment does not read it; needs onnx")
    g.add_argument("--image-type", choices=IMAGE_TYPES, default=IMAGE_TYPES[0],
                   help=f"with --include-preprocessing: of that image ({IMAGE_TYPES[0]})")


def _threshold(text: str) -> float | str:
    try:
        return text if text == CHOOSE else float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}; give a number between 0 and 1, or {CHOOSE}") from None


def check(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """InputError where options of freezing stand without --freeze, or others beside it."""
    said = given(args, parser)
    if args.freeze is None:
        if own := said & OWN:
            raise InputError(f"{as_options(own)}: only for freezing a task; give --freeze SUPPORT too, or leave it out")
    elif args.kind != AUTO and "max_loss" in said:
        raise InputError(f"--max-loss: only for --kind {AUTO}, and it is {args.kind}; leave one of them out")
    elif args.kind == EXACT and args.threshold == CHOOSE:
        raise InputError(f"--threshold {CHOOSE}: --kind {EXACT} leaves no entries out to choose by; give a number, or "
                         "take another kind")
    elif args.kind == EXACT and (unused := said & STATIC_ONLY):
        raise InputError(f"{as_options(unused)}: only for static files, and --kind is exact; take another kind, or "
                         "leave it out")
    elif others := said - OWN - SHARED:
        raise InputError(f"{as_options(others)}: not for freezing a task; leave it out, or leave --freeze out")


def run(args: argparse.Namespace) -> None:
    """Freeze, write the file whole or not at all, print what it is; raises as `Task.freeze` and `FrozenTask.save`."""
    if args.output is None:
        raise InputError("give --output, the file to write, such as task.onnx")
    check_folder_of(args.output)
    if args.precision not in PRECISIONS:
        raise InputError(f"--precision {' '.join(args.precision)}: a task is frozen in fp32, fp16 or int8, give one")
    (precision,) = args.precision
    if precision != SINGLE and args.kind == EXACT:
        raise InputError(f"--precision {precision} is for static files, and --kind is exact; take --kind static, or "
                         "leave --precision out")
    if precision == HALF and args.float_constants:
        raise InputError(f"--float-constants: a file in {HALF} holds them in half precision; leave one of them out")
    if precision == INT8:
        from .frozen import int8_task  # needs onnx; where it is missing, that is said before anything is computed
    if args.include_preprocessing:
        from .emit.preprocess import with_preprocessing  # as above
    elif args.image_type != IMAGE_TYPES[0]:
        raise InputError(f"--image-type {args.image_type}: only for --include-preprocessing; add it, or leave this out")
    if args.by == SIMILAR:
        raise InputError(f"--by {SIMILAR}: to what? Save the slices that are like a volume with universeg-support "
                         f"select, and freeze them; or take --by {AREA}, or {EVEN}")
    images = image_options(args)
    support, _ = load_one_label(argparse.Namespace(**vars(args), support=args.freeze), images["normalise"])
    ensemble = Ensemble(args.members, args.support_size, replacement=args.replacement, seed=args.seed)
    files = [] if args.proxies is None else [*named_images(part_of(args.proxies, IMAGES)).values()]
    proxies = [read_image(path) for path in files] if files else SUPPORT
    with said_in_options(KINDS_HERE), Segmenter.open(None if args.bundle == "shipped" else args.bundle) as segmenter:
        task = segmenter.prepare(support, ensemble, **images)
        if files:
            task.on_grid(proxies, [f"--proxies: {file}: image" for file in files])  # an error names the file
        frozen = task.freeze(
            proxies, kind=args.kind, max_loss=args.max_loss, threshold=args.threshold, seed=args.seed,
            half=not args.float_constants, precision=HALF if precision == HALF else SINGLE)
        if precision != SINGLE and frozen.kind == EXACT:
            other = "" if refusal(task) else "take --kind static, or "
            raise InputError(f"--precision {precision} is for static files, and {AUTO} takes exact: {frozen.reason}; "
                             f"{other}leave --precision out")
        if precision == INT8:
            frozen = int8_task(segmenter.bundle, frozen, *proxies_on_grid(task, proxies, args.seed))
    model = with_preprocessing(frozen, args.image_type) if args.include_preprocessing else frozen.model
    with write_file(args.output) as file:
        file.write(model)
    print(f"kind    {frozen.kind}\nreason  {frozen.reason}\nprice   {frozen.price}\n"
          f"proxies {frozen.record.proxies}\n"
          f"marked  from a probability of {frozen.threshold:g} on{_chosen(args.threshold, frozen)}\n"
          f"holds   {HOLDS[frozen.kind]}\n"
          f"file    {args.output}, {frozen.record.precision}, {len(model) / 1e6:.1f} MB ({len(model):,} bytes)\n"
          f"sha256  {hashlib.sha256(model).hexdigest()}")
    if frozen.looks is not None and frozen.looks.of_volumes:
        say("universeg-export: note: universeg-segment empties slices that look as if the target were absent; other "
            "programs that run the file mark something in them too")
    if frozen.kind == EXACT and (dropped := {name for name in STATIC_ONLY if getattr(args, name)}):
        say(f"universeg-export: note: {as_options(dropped)}: not in the file, since {AUTO} takes exact")
    for note in frozen.notes:
        say(f"universeg-export: note on the support: {in_options(note)}")


def _chosen(asked: float | str, frozen: FrozenTask) -> str:
    """What became of a threshold that was to be chosen."""
    if asked != CHOOSE:
        return ""
    return ", chosen" if frozen.threshold != THRESHOLD else (
        ", not chosen: no entries were left out, they are too few, or no other gains enough on them")
