"""Entry points of the installed commands: an interruption or a missing package is handled while a command is being
imported too."""

from __future__ import annotations

from importlib import import_module

from .common import guarded


def _command(program: str, module: str) -> int:
    return guarded(program, lambda: import_module(f"universeg_rt.{module}").main())


def bench() -> int:
    return _command("universeg-bench", "benchmarks.cpu.bench")


def export() -> int:
    return _command("universeg-export", "export.cli")


def segment() -> int:
    return _command("universeg-segment", "cli.segment")


def support() -> int:
    return _command("universeg-support", "cli.support")


def train() -> int:
    return _command("universeg-train", "training.run.cli")


def evaluate() -> int:
    return _command("universeg-evaluate", "training.evaluation.evaluate")
