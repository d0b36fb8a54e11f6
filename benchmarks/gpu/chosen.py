"""Which contenders a run is asked for, by parts of their names."""

from __future__ import annotations

import argparse


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--contenders", nargs="+", metavar="PART",
                        help="only those whose name has one of these parts in it")
    parser.add_argument("--leave-out", nargs="+", metavar="PART", help="none whose name has one of these parts in it")


def left_out(options: argparse.Namespace, name: str) -> str:
    """Why this contender is left out; empty where it is wanted."""
    if options.contenders and not any(part in name for part in options.contenders):
        return "left out by --contenders"
    if any(part in name for part in options.leave_out or ()):
        return "left out by --leave-out"
    return ""
