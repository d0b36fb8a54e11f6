"""The installed commands: each imports its module only now, so that a package it misses is one line with the cure."""

from __future__ import annotations

from importlib import import_module

from .common import report_missing


def segment() -> int:
    return _start("universeg-segment", "universeg_rt.cli.segment")


def export() -> int:
    return _start("universeg-export", "universeg_rt.export.cli")


def train() -> int:
    return _start("universeg-train", "universeg_rt.training.cli")


def evaluate() -> int:
    return _start("universeg-evaluate", "universeg_rt.training.evaluate")


def bench() -> int:
    return _start("universeg-bench", "universeg_rt.benchmarks.bench")


def _start(program: str, module: str) -> int:
    try:
        main = import_module(module).main
    except ModuleNotFoundError as error:
        return report_missing(program, error)
    return main()
