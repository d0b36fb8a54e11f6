"""What several steps say alike: where things lie, and how the comparison is asked for."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
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


SMALL = ("reference fp32", "reference fp16 nhwc", "folded torch fp16 nhwc", "onnxruntime fp32")


def compare(step: Step, contenders: Sequence[str], steps: Sequence[str]) -> list[object]:
    """Options of the comparison: sizes, contenders (none: all) and steps, and the reference's logits where they were
    brought. A rehearsal takes a few of each."""
    if step.small:
        left_out = ("kernels", "plain", "engines")
        return ["--support-sizes", 2, "--members", 1, "--rounds", 1, "--contenders", *SMALL, "--steps",
                *(name for name in steps if name not in left_out)]
    references = step.upload / REFERENCES
    return ["--support-sizes", 64, 16, "--members", 1, "--kernels-build", kernels(step),
            *(["--references", references] if references.is_file() else []),
            *(["--contenders", *contenders] if contenders else []), "--steps", *steps]
