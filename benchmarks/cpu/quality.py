"""The options that the studies of quality have in common."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_study_options(parser: argparse.ArgumentParser, queries: int) -> None:
    """Data sets, bundle, threads, S, at most `queries` a task where nothing else is asked for, draws, seed, output."""
    parser.add_argument("datasets", type=Path, nargs="+", help="YAML files of data sets (training/README.md)")
    parser.add_argument("--data-root", type=Path, required=True, help="folder of their files")
    parser.add_argument("--bundle", type=Path, help="bundle folder (the shipped one)")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--support-size", type=int, default=16, help="S (16)")
    parser.add_argument("--queries", type=int, default=queries, help=f"at most so many a task ({queries})")
    parser.add_argument("--draws", type=int, default=3, help="supports drawn for each task, or image (3)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, help="JSON file for all rows")
