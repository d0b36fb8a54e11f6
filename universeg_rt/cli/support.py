"""`universeg-support`: shows what a support holds and what is suspicious in it, drops what hurts, selects what is
like a query."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from ..errors import InputError
from ..imaging.files import SUFFIXES, read_image, write_png
from ..imaging.normalisation import Normalisation
from ..segmenter import Segmenter
from ..storage.atomic import check_folder_of, make_folder, write_json
from ..storage.reading import is_folder
from ..support import SupportSet
from ..supports.inspect import Inspection, inspect
from ..supports.labelled_volumes import query_slices
from ..supports.prune import LEAST, Pruned, prune
from ..supports.select import select
from ..supports.sheet import support_sheet
from ..supports.volumes import AREA, EVEN, SIMILAR, plane_of
from ..volumes.reading import ACCEPTED, is_volume, pictures_beside, read_chosen, volumes_below
from ..volumes.slicing import ACQUIRED
from ..volumes.volume import Volume
from .common import add_runner_options, run_command, said_in_options
from .opened import image_options
from .options import add_image_options
from .supports import READ, add_one_label_options, load_one_label

PROGRAM, SHOW, SELECT = "universeg-support", "show", "select"
SHEET, TABLE = "support.png", "support.json"
EXAMPLE = """example:
  universeg-support show examples/ --output looked/
  universeg-support prune examples/ --output pruned.npz
  universeg-support select examples/ --query scan.png --count 16 --output like_it.npz
  universeg-support select labelled_volumes/ --query scan.nii.gz --slices 200 --count 16 --output like_it.npz
  universeg-support show labelled_volumes/ --label 2 --axis coronal --slices 24 --output looked/
SUPPORT is a folder with images/ and labels/, of images or of volumes, or an .npz."""


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(prog=PROGRAM, description=__doc__, epilog=EXAMPLE,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    actions = p.add_subparsers(dest="action", required=True, metavar="show | prune | select")
    show = _action(actions, SHOW, "contact sheet, areas, near-duplicates and suspicious entries")
    show.add_argument("--output", type=Path, required=True, help=f"folder for {SHEET} and {TABLE}")
    show.add_argument("--no-network", action="store_true",
                      help="leave out what the network says of labels: quick, and finds less")
    add_runner_options(show)
    drop = _action(actions, "prune", "drop the entries that hurt, by leaving them out")
    drop.add_argument("--output", type=Path, required=True, help=".npz for what is left")
    drop.add_argument("--least", type=int, default=LEAST, help=f"entries that are kept at least ({LEAST})")
    add_runner_options(drop)
    alike = _action(actions, SELECT, "the entries that look the most like queries")
    alike.add_argument("--query", type=Path, nargs="+", required=True,
                       help="images, volumes whose slices they are to be like, or folders of them")
    alike.add_argument("--count", type=int, required=True, help="entries that are selected")
    alike.add_argument("--output", type=Path, required=True, help=".npz for them")
    return p


def _action(actions: argparse._SubParsersAction[argparse.ArgumentParser], name: str, text: str
            ) -> argparse.ArgumentParser:
    p = actions.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
    p.add_argument("support", type=Path, metavar="SUPPORT", help="folder with images/ and labels/, or .npz")
    p.add_argument("--seed", type=int, default=0, help="of whatever is drawn (0)")
    add_image_options(p)
    add_one_label_options(p)
    return p


def main(arguments: list[str] | None = None) -> int:
    return run_command(_main, parser(), arguments)


def _main(args: argparse.Namespace) -> int:
    images = image_options(args)
    args.aspect, how = images["aspect"], images["normalise"]
    queries = _Queries.of(args.query) if args.action == SELECT else _Queries([], [])
    if args.by == SIMILAR and not queries.volumes:
        raise InputError(f"--by {SIMILAR}: to what? Give a volume as --query of {PROGRAM} {SELECT}; or take --by "
                         f"{AREA}, or {EVEN}")
    if args.action != SHOW:
        check_folder_of(args.output)
    support, absent = load_one_label(args, how, queries.read(args), read=() if queries.volumes else READ)
    if args.action == SHOW:
        return _show(args, support, how, absent)
    return _prune(args, support, how) if args.action == "prune" else _select(args, support, how, queries)


@dataclass(frozen=True)
class _Queries:
    """Files of --query: pictures, and volumes."""

    pictures: list[Path]
    volumes: list[Path]

    @classmethod
    def of(cls, paths: list[Path]) -> _Queries:
        """Of files, and all in folders; InputError for a folder without any."""
        pictures: list[Path] = []
        volumes: list[Path] = []
        for path in paths:
            if not is_folder(path):
                (volumes if is_volume(path) else pictures).append(path)
                continue
            found = volumes_below(path)
            images = pictures_beside(path, found)
            if not found and not images:
                raise InputError(f"--query {path} holds no images and no volumes; accepted: {', '.join(SUFFIXES)}, "
                                 f"{ACCEPTED}")
            volumes += found.values()
            pictures += images
        return cls(pictures, volumes)

    def read(self, args: argparse.Namespace) -> Iterator[Volume]:
        with said_in_options():
            for path in self.volumes:
                yield read_chosen(path, args.time, args.series)


def _show(args: argparse.Namespace, support: SupportSet, how: Normalisation, absent: bool) -> int:
    make_folder(args.output)
    segmenter = None if args.no_network else _opened(args)
    with _progress("judging", "entry", len(support) if segmenter else 0) as done:
        found = inspect(support, segmenter, aspect=args.aspect, normalise=how, seed=args.seed, done=done,
                        absent_meant=absent)
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
    if found.absent:
        lines += [f"without the label, as absence looks like: {found.absent} of {len(found.entries)} entries"]
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


def _select(args: argparse.Namespace, support: SupportSet, how: Normalisation, queries: _Queries) -> int:
    axis = args.axis or plane_of(support.names) or ACQUIRED
    images = [read_image(path) for path in queries.pictures]
    for volume in queries.read(args):
        images += query_slices(volume, axis)
    found = select(support, images, args.count, aspect=args.aspect, normalise=how)
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
