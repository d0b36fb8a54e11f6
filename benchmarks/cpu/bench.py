"""`universeg-bench`: the network as others would run it and as we run it, side by side in one run.

Each side lives in a process of its own (child.py) and is idle while another works. The sides take turns, and the order
rotates from turn to turn, so that a change in the machine's speed meets all of them. What they compute is compared with
the reference before anything is timed. Times are those of the network, from support and queries on its grid to logits,
the support's preparation included; ours are also stated in parts and in whole.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from universeg_rt.bundle.bundle import SHIPPED, Bundle
from universeg_rt.cli.common import run_command
from universeg_rt.errors import InputError, OutputError
from universeg_rt.storage.atomic import write_file

from .sides import OURS, PEERS, our_sides

# The largest S at which a peer runs unless --limit says otherwise: their memory grows by 25 to 53 MB an entry.
LIMITS = {name: 64 for name in PEERS}
JSON, TABLE, PLOT = "latency.json", "latency.md", "latency.png"
EXAMPLE = """example:
  universeg-bench --support-sizes 1 4 16 64 --output results/
  universeg-bench --support-sizes 64 --sides reference plain ours-onnxruntime --repeats 9
  universeg-bench --from monday/latency.json tuesday/latency.json --output both/"""


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(prog="universeg-bench", description=__doc__, epilog=EXAMPLE,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--support-sizes", type=int, nargs="+", default=[1, 4, 16, 64, 256], metavar="S")
    p.add_argument("--members", type=int, default=1, metavar="K", help="support sets of an ensemble (1)")
    p.add_argument("--queries", type=int, default=1, metavar="B", help="queries in one call (1)")
    p.add_argument("--threads", type=int, default=2, help="of every side (2)")
    p.add_argument("--size", type=int, help="image height and width (the bundle's)")
    p.add_argument("--repeats", type=int, default=5,
                   help="timed turns, after each side's first call and a turn that warms up (5)")
    p.add_argument("--sides", nargs="+", metavar="SIDE", default=["all"],
                   help=f"all, {OURS}, {', '.join(PEERS)}, or {OURS}-RUNNER[-int8] (all)")
    p.add_argument("--limit", nargs="+", default=[], metavar="SIDE=S", help="largest S of a side (64 for all but ours)")
    p.add_argument("--starts", type=int, default=3, metavar="N",
                   help="processes started to measure the time to a first mask at S = 16 (3)")
    p.add_argument("--bundle", type=Path, default=SHIPPED, help="what is run (the shipped bundle)")
    p.add_argument("--compile-cache", type=Path,
                   help="keep torch.compile's work here; its stated time is then what is left of it")
    p.add_argument("--output", type=Path, help=f"folder for {JSON}, {TABLE} and {PLOT}")
    p.add_argument("--from", dest="earlier", type=Path, nargs="+", metavar="JSON",
                   help="measure nothing, put these results together")
    return p


def main(arguments: list[str] | None = None) -> int:
    return run_command(_main, parser(), arguments)


def _main(args: argparse.Namespace) -> int:
    from ..harness.report import plot, table

    if args.output:
        try:
            args.output.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"cannot write to {args.output}: {error.strerror}; choose another --output") from None
    if args.earlier:
        result = merge(args.earlier)
    else:
        from .run import run

        result = run(_options(args))
    text = table(result)
    print(text)
    if args.output:
        for name, content in ((JSON, json.dumps(result, indent=1)), (TABLE, text)):
            with write_file(args.output / name) as file:
                file.write((content + "\n").encode())
        plot(result, args.output / PLOT)
    return 0


def _options(args: argparse.Namespace) -> argparse.Namespace:
    """The options checked and filled in; `sides` by name and `limits` by side."""
    given = {"--repeats": args.repeats, "--threads": args.threads, "--members": args.members, "--queries": args.queries,
             "--support-sizes": min(args.support_sizes), "--starts": args.starts + 1}
    for option, value in given.items():
        if value < 1:
            raise InputError(f"{option} is {value - (option == '--starts')}; give a positive integer")
    bundle = Bundle.open(args.bundle)
    multiple, size = bundle.manifest.spec.size_multiple, args.size or bundle.manifest.input.height
    if size < max(8, multiple) or size % multiple:
        raise InputError(f"--size is {size}; give a multiple of {multiple}, at least 8")
    ours = our_sides(bundle)
    known = {"all": [*PEERS, *ours], OURS: ours, **{name: [name] for name in (*PEERS, *ours)}}
    unknown = [name for name in args.sides if name not in known]
    if unknown:
        hint = ""
        if unknown[0].endswith("-int8"):
            hint = f"; this bundle has {', '.join(bundle.manifest.precisions)} models only"
        raise InputError(f"--sides {unknown[0]} is unknown; accepted: {', '.join(known)}{hint}")
    args.named = {name for name in args.sides if name not in ("all", OURS)}
    args.sides = list(dict.fromkeys(name for given in args.sides for name in known[given]))
    args.limits = dict(LIMITS)
    for text in args.limit:
        name, _, value = text.partition("=")
        if name not in known or name in ("all", OURS) or not value.isdigit():
            raise InputError(f"--limit {text}; give SIDE=S, for example reference=256")
        args.limits[name] = int(value)
    args.size = size
    return args


def merge(paths: list[Path]) -> dict:
    """Results of several runs of one machine as one; a case or start in a later file replaces an earlier file's."""
    results = []
    for path in paths:
        try:
            results.append(json.loads(path.read_text()))
            results[-1]["cases"][0]["sides"], results[-1]["starts"]
        except (OSError, ValueError, KeyError, IndexError, TypeError):
            raise InputError(f"{path} is no result of universeg-bench") from None
        if results[-1]["environment"] != results[0]["environment"]:
            raise InputError(
                f"{path} was measured on another machine, with other versions or threads than {paths[0]}; show them "
                "apart"
            )
    merged = {**results[-1], "cases": [], "starts": []}
    keys = ("support_size", "members", "queries", "size", "threads")
    for part in ("cases", "starts"):
        found = {tuple(entry.get(key, 0) for key in keys): entry for result in results for entry in result[part]}
        merged[part] = [found[key] for key in sorted(found)]
    return merged


if __name__ == "__main__":
    sys.exit(main())
