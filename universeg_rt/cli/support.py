"""`universeg-support`: shows what a support holds and what is suspicious in it, drops what hurts, selects what is
like a query."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from ..errors import InputError
from ..imaging.files import read_image, write_png
from ..imaging.normalisation import Normalisation
from ..segmenter import Segmenter
from ..storage.atomic import make_folder, write_json
from ..storage.reading import is_folder
from ..support import SupportSet
from ..supports.inspect import Inspection, inspect
from ..supports.prune import LEAST, Pruned, prune
from ..supports.select import select
from ..supports.sheet import support_sheet
from ..supports.volumes import has_volumes
from ..volumes.slicing import AXES
from .common import add_runner_options, run_command
from .opened import image_options
from .options import add_image_options
from .supports import TAKEN, add_slice_options, load_support, refuse_beside_pictures

PROGRAM = "universeg-support"
SHEET, TABLE = "support.png", "support.json"
EXAMPLE = """example:
  universeg-support show examples/ --output looked/
  universeg-support prune examples/ --output pruned.npz
  universeg-support select examples/ --query scan.png --count 16 --output like_it.npz
  universeg-support show labelled_volumes/ --label 2 --axis coronal --slices 24 --output looked/
SUPPORT is a folder with images/ and labels/, of images or of volumes, or an .npz."""


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(prog=PROGRAM, description=__doc__, epilog=EXAMPLE,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    actions = p.add_subparsers(dest="action", required=True, metavar="show | prune | select")
    show = _action(actions, "show", "contact sheet, areas, near-duplicates and suspicious entries")
    show.add_argument("--output", type=Path, required=True, help=f"folder for {SHEET} and {TABLE}")
    show.add_argument("--no-network", action="store_true",
                      help="leave out what the network says of labels: quick, and finds less")
    add_runner_options(show)
    drop = _action(actions, "prune", "drop the entries that hurt, by leaving them out")
    drop.add_argument("--output", type=Path, required=True, help=".npz for what is left")
    drop.add_argument("--least", type=int, default=LEAST, help=f"entries that are kept at least ({LEAST})")
    add_runner_options(drop)
    alike = _action(actions, "select", "the entries that look the most like queries")
    alike.add_argument("--query", type=Path, nargs="+", required=True, help="images")
    alike.add_argument("--count", type=int, required=True, help="entries that are selected")
    alike.add_argument("--output", type=Path, required=True, help=".npz for them")
    return p


def _action(actions: argparse._SubParsersAction[argparse.ArgumentParser], name: str, text: str
            ) -> argparse.ArgumentParser:
    p = actions.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
    p.add_argument("support", type=Path, metavar="SUPPORT", help="folder with images/ and labels/, or .npz")
    p.add_argument("--seed", type=int, default=0, help="of whatever is drawn (0)")
    add_image_options(p)
    p.add_argument("--label", help="value or name, where labels hold several")
    slices = p.add_argument_group("a support of volumes")
    slices.add_argument("--axis", choices=AXES, help=f"across which they are sliced ({AXES[-1]})")
    add_slice_options(slices)
    slices.add_argument("--time", type=int, metavar="T", help="which volume of a NIfTI file with several, from 0")
    slices.add_argument("--series", type=int, metavar="N", help="which series of a DICOM folder with several, from 1")
    return p


def main(arguments: list[str] | None = None) -> int:
    return run_command(_main, parser(), arguments)


def _main(args: argparse.Namespace) -> int:
    images = image_options(args)
    args.aspect, how = images["aspect"], images["normalise"]
    support = _load(args, how)
    return {"show": _show, "prune": _prune, "select": _select}[args.action](args, support, how)


def _load(args: argparse.Namespace, how: Normalisation) -> SupportSet:
    """The support of one label: the one that is asked for, or the only one that there is."""
    asked, args.label = args.label, None if args.label is None else [args.label]
    if not (is_folder(args.support) and has_volumes(args.support)):
        refuse_beside_pictures({name: getattr(args, name) for name in ("axis", "time", "series", *TAKEN)})
    support = load_support(args, how)
    if isinstance(support, SupportSet):
        return support
    if asked is None and len(support.values) > 1:
        known = ", ".join(f"{value} ({name})" for value, name in support.label_names.items())
        raise InputError(f"labels hold several values, {known}; say which one is looked at with --label")
    return support.of(support.values[0] if asked is None else asked)


def _show(args: argparse.Namespace, support: SupportSet, how: Normalisation) -> int:
    make_folder(args.output)
    segmenter = None if args.no_network else _opened(args)
    with _progress("judging", "entry", len(support) if segmenter else 0) as done:
        found = inspect(support, segmenter, aspect=args.aspect, normalise=how, seed=args.seed, done=done)
    write_png(args.output / SHEET, support_sheet(support, found, how))
    write_json(args.output / TABLE, {"support": str(args.support), "sha256": support.sha256, **asdict(found)})
    print(inspection_text(found))
    print(f"pictures in {args.output / SHEET}, figures in {args.output / TABLE}")
    return 0


def inspection_text(found: Inspection) -> str:
    """A line an entry, then what is suspicious and what is nearly the same."""
    wide = max(len(entry.name) for entry in found.entries)
    lines = [f"{'entry':{wide}}  size       area    intensities           Dice by the others"]
    for entry in found.entries:
        size = f"{entry.size[0]}x{entry.size[1]}"
        dice = "-" if entry.dice is None else f"{entry.dice:.2f}"
        span = f"{entry.low:g} to {entry.high:g}"
        mark = f"  {', '.join(each.kind for each in entry.suspicions)}" if entry.suspicions else ""
        lines.append(f"{entry.name:{wide}}  {size:9}  {entry.area:6.2%}  {span:20}  {dice}{mark}")
    suspicious = [(entry.name, each) for entry in found.entries for each in entry.suspicions]
    lines += [f"suspicious: {len({name for name, _ in suspicious})} of {len(found.entries)} entries"]
    lines += [f"  {name}: {each.kind}: {each.why}" for name, each in suspicious]
    lines += [f"nearly the same image: {', '.join(group)}" for group in found.duplicates]
    return "\n".join(lines)


def _prune(args: argparse.Namespace, support: SupportSet, how: Normalisation) -> int:
    with _progress("leaving out", "run", None) as done:
        found = prune(support, _opened(args), least=args.least, aspect=args.aspect, normalise=how, seed=args.seed,
                      done=done)
    found.support.save(args.output)
    print(pruning_text(found))
    print(f"{len(found.support)} of {len(support)} entries in {args.output}")
    return 0


def pruning_text(found: Pruned) -> str:
    """A line a candidate, the worst first; what is dropped is named so."""
    candidates = sorted((entry for entry in found.entries if entry.gain is not None), key=lambda e: -(e.gain or 0))
    lines = [f"{entry.name}: Dice {entry.dice:.2f} by the others; {entry.why}" for entry in candidates]
    return "\n".join(lines) or "no entry stands out as worse than the others"


def _select(args: argparse.Namespace, support: SupportSet, how: Normalisation) -> int:
    queries = [read_image(path) for path in args.query]
    found = select(support, queries, args.count, aspect=args.aspect, normalise=how)
    found.support.save(args.output)
    for likeness, name in sorted(zip(found.similarity, found.support.names), reverse=True):
        print(f"{likeness:.3f}  {name}")
    print(f"{len(found.support)} of {len(support)} entries in {args.output}; similarity is from -1 to 1")
    return 0


def _opened(args: argparse.Namespace) -> Segmenter:
    return Segmenter.open(args.bundle, runner=args.runner, precision=args.precision, threads=args.threads)


@contextmanager
def _progress(text: str, unit: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """A bar, and what moves it on; none for a total of 0."""
    from tqdm import tqdm  # type: ignore[import-untyped]  # it comes without types

    with tqdm(desc=text, unit=unit, total=total, disable=total == 0) as bar:
        def done(count: int) -> None:
            bar.update(count)

        yield done



if __name__ == "__main__":
    sys.exit(main())
