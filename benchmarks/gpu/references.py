"""Logits of the reference network on the parity's inputs, computed where time costs nothing, for a run where it does.

    python -m universeg_rt.benchmarks.gpu.references CHECKPOINT OUTPUT [S ...]        (64 and 16)
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

from universeg_rt.cli.common import importing, run_command
from universeg_rt.errors import InputError
from universeg_rt.storage.atomic import write_file
from universeg_rt.storage.reading import reading

PROGRAM = "universeg_rt.benchmarks.gpu.references"

with importing(__name__, PROGRAM):
    from universeg_rt.export.gate.inputs import KINDS
    from universeg_rt.export.gate.parity import Reference
    from universeg_rt.training.network.checkpoint import load_checkpoint, weights_sha256

DIGEST = "weights_sha256"


def save(path: Path, reference: Reference, support_sizes: list[int], size: tuple[int, int]) -> None:
    """Every kind of input at these support sizes, plainly and in half precision."""
    for entries in support_sizes:
        for kind in KINDS:
            for half in (False, True):
                reference.logits(kind, *size, entries, half)
    arrays = {_name(key): value for key, value in reference.known.items()}
    with write_file(path) as file:
        np.savez(file, **arrays, **{DIGEST: np.array(_digest(reference))})


def load(path: Path, reference: Reference) -> None:
    """Let `reference` know what the file holds; InputError where it is of other weights. What it does not hold is
    computed when it is asked for."""
    with reading("logits of the reference", path, InputError), np.load(path) as held:
        arrays = {name: held[name] for name in held.files}
    if str(arrays.pop(DIGEST, "")) != _digest(reference):
        raise InputError(f"{path} is of other weights; write it again with benchmarks/gpu/references.py")
    for name, value in arrays.items():
        kind, height, width, entries, half = name.rsplit("_", 4)
        reference.known[kind, int(height), int(width), int(entries), half == "half"] = value


def _name(key: tuple) -> str:
    return "_".join(map(str, key[:4])) + ("_half" if key[4] else "_float")


def _digest(reference: Reference) -> str:
    return weights_sha256({name: np.asarray(value) for name, value in reference.weights.items()})


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog=PROGRAM, description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path, help="weights, a .safetensors file or a bundle")
    parser.add_argument("output", type=Path, help=".npz for the logits")
    parser.add_argument("sizes", type=int, nargs="*", default=[64, 16], help="of the support (64 16)")
    return run_command(_main, parser, arguments)


def _main(args: argparse.Namespace) -> int:
    spec, weights, _ = load_checkpoint(args.checkpoint)
    save(args.output, Reference(spec, weights), args.sizes, (128, 128))
    return 0


if __name__ == "__main__":
    sys.exit(main())
