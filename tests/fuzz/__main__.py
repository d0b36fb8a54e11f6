"""`python -m tests.fuzz`: runs the mutation fuzzers, prints counts by module and outcome, exits with 1 where there is a
defect."""

from __future__ import annotations

import argparse
import sys

from . import __doc__ as about
from .harness import modules, run


def main(arguments: list[str] | None = None) -> int:
    known = modules()
    p = argparse.ArgumentParser(prog="python -m tests.fuzz", description=about,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("names", nargs="*", metavar="MODULE", help=f"of {', '.join(known)} (all)")
    p.add_argument("--cases", type=int, default=200, help="of each module (200)")
    p.add_argument("--seed", type=int, default=0, help="another seed, other cases (0)")
    p.add_argument("--show", type=int, default=10, help="defects of each module to print in full (10)")
    args = p.parse_args(arguments)
    unknown = sorted(set(args.names) - set(known))
    if unknown:
        p.error(f"no modules {', '.join(unknown)}; there are {', '.join(known)}")
    defects = 0
    for name in args.names or known:
        (result,) = run([name], args.cases, args.seed)
        defects += len(result.defects)
        for defect in result.defects[: args.show]:
            print(f"DEFECT {defect}\n")
        counts = ", ".join(f"{count} {outcome}" for outcome, count in result.counts.most_common())
        print(f"{name}: {result.skipped or counts}; {len(result.defects)} defects, {result.seconds:.0f} s", flush=True)
    return 1 if defects else 0


if __name__ == "__main__":
    sys.exit(main())
