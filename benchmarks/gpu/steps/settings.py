"""What several steps say alike: where things lie, and how the comparison is asked for."""

from __future__ import annotations

import argparse
from pathlib import Path

from universeg_rt.checkout import ROOT

from .step import Step

CONFIG = ROOT / "training" / "configs" / "gpu.yaml"
WEIGHTS = ROOT / "training" / "runs" / "second" / "averaged.safetensors"
REFERENCES, TASKS = "references.npz", ("task.onnx", "task_fp16.onnx")


def add_training(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=Path, default=CONFIG, help="of the training (%(default)s)")
    parser.add_argument("--weights", type=Path, default=WEIGHTS, help="to train from (%(default)s); `none` for none")
    parser.add_argument("--data-root", default=str(ROOT / "upload" / "data"), help="the data sets' files (%(default)s)")


def weights(options: argparse.Namespace) -> list[object]:
    return [] if str(options.weights) == "none" else ["--weights", options.weights]


def kernels(step: Step) -> Path:
    """Where the kernels are built, or lie built for machines without a compiler."""
    brought = step.upload / "kernels"
    return brought if brought.is_dir() and not step.small else step.work / "kernels"


def compare(step: Step) -> list[object]:
    """Options of the comparison: sizes, and the reference's logits where they were brought."""
    if step.small:
        return ["--support-sizes", 2, "--members", 1, "--rounds", 1]
    references = step.upload / REFERENCES
    return ["--support-sizes", 64, 16, "--members", 1, "--kernels-build", kernels(step),
            *(["--references", references] if references.is_file() else [])]
