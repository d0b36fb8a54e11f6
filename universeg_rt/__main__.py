"""`python -m universeg_rt`: the version, the commands, the shipped bundle, and which runners start here; with
a command's name it runs that."""

from __future__ import annotations

import sys

from .cli import commands
from .cli.common import guarded

COMMANDS = ("segment", "support", "export", "evaluate", "train", "bench")
USAGE = f"usage: python -m universeg_rt [--version | --help | {' | '.join(COMMANDS)} ...]"


def main() -> int:
    from . import __version__

    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name in COMMANDS:
        sys.argv = [f"universeg-{name}", *sys.argv[2:]]
        status: int = getattr(commands, name)()
        return status
    print(f"universeg_rt {__version__}")
    if name == "--version":
        return 0
    print(USAGE)
    if name and name not in ("-h", "--help"):
        print(f"universeg_rt: {name!r} is no command; accepted: {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    return guarded("universeg_rt", _runners)


def _runners() -> int:
    from .bundle.bundle import SHIPPED, read_manifest
    from .runners import available_runners

    manifest, _ = read_manifest(SHIPPED, "reinstall universeg_rt")
    print(f"bundle: {manifest.name}, licence of its weights: {manifest.licence.get('weights', 'not stated')}")
    print("runners, the fastest first:")
    for state in available_runners():
        print(f"  {state}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
