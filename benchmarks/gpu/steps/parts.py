"""Parts that several steps have: the kernels' check, the comparison, frozen tasks, rates of training."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from universeg_rt.bundle.bundle import SHIPPED
from universeg_rt.checkout import ROOT

from . import plan
from .step import Step

CONFIG = ROOT / "training" / "configs" / "gpu.yaml"
OURS = ("kernels", "plugin")  # contenders with these in their names run kernels of ours in their own process
BESIDE = ("reference fp32", "reference fp16", "folded torch fp16 nhwc")  # what those are held against there
SMALL = ("reference fp32", "reference fp16 nhwc", "folded torch fp16 nhwc", "onnxruntime fp32")  # in a rehearsal


def add_training(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=Path, default=CONFIG, help="of the training (%(default)s)")
    parser.add_argument("--weights", type=Path, default=SHIPPED, help="to train from (%(default)s); `none` for none")
    parser.add_argument("--data-root", type=Path, default=ROOT / "upload" / plan.DATA,
                        help="the data sets' files (%(default)s)")


def start(run: Step, seconds: float) -> bool:
    """Loads PyTorch once: read from a cold disk it takes long, and that is no part's fault."""
    return run.part("start", "torch.version", seconds=seconds, limit="")


def kernels(run: Step, name: str, seconds: float, *steps: str) -> bool:
    """Steps of the kernels' check, all where none is named; not in a rehearsal: `--dry-run` is the check's own."""
    if run.small:
        return True
    return run.part(name, "universeg_rt.kernels.support_mean.check.main", "--out", run.out / f"{name}.json",
                    "--build-dir", _kernels(run), *(["--steps", *steps] if steps else []), seconds=seconds)


def compare(run: Step, seconds: float, contenders: Sequence[str], *steps: str) -> bool:
    """Contenders (none: all) without kernels of ours, and steps of the comparison."""
    return _compare(run, "compare", seconds, SMALL if run.small else contenders, OURS, steps)


def ours(run: Step, seconds: float, *steps: str, checked: str = "") -> bool:
    """The contenders with our kernels, in a process of their own: an access outside a buffer ends all other work on the
    GPU in the process where it happens.

    checked: the part that ran the self-test; where that did not pass, this is not begun.
    """
    if checked and not run.small and not _selftest_passed(run.out / f"{checked}.json"):
        run.note("ours", ended="not begun: the kernels' self-test did not pass")
        return False
    return _compare(run, "ours", seconds, (*(SMALL[:2] if run.small else BESIDE), *OURS), (), steps)


def _selftest_passed(file: Path) -> bool:
    try:
        return json.loads(file.read_text())["steps"]["selftest"]["passed"] is True
    except (OSError, ValueError, KeyError):
        return False


def _compare(run: Step, name: str, seconds: float, contenders: Sequence[str], without: Sequence[str],
             steps: Sequence[str]) -> bool:
    """With the reference's logits where they were brought. A rehearsal takes a few steps."""
    words: list[object] = ["--members", 1, "--no-int8"]
    if run.small:
        steps = tuple(each for each in steps if each not in ("kernels", "plain", "engines"))
        words += ["--support-sizes", 2, "--rounds", 1]
    else:
        references = run.upload / plan.REFERENCES
        words += ["--support-sizes", 64, 16, "--kernels-build", _kernels(run),
                  *(["--references", references] if references.is_file() else [])]
    return run.part(name, "universeg_rt.benchmarks.gpu.main", "--out", run.out / f"{name}.json", "--work",
                    run.work / "compare", "--device", run.device, *words,
                    *(["--contenders", *contenders] if contenders else []),
                    *(["--leave-out", *without] if without else []), "--steps", *steps, seconds=seconds)


def frozen(run: Step, seconds: float, name: str = "frozen", rounds: int = 200) -> bool:
    """Every task that was brought, on every runner that starts."""
    tasks = [run.upload / task for task in (plan.HALF_TASK, plan.TASK) if (run.upload / task).is_file()]
    return run.part("frozen", "universeg_rt.benchmarks.gpu.frozen", "--out", run.out / f"{name}.json", "--device",
                    run.device, "--work", run.work / "frozen", "--rounds", 2 if run.small else rounds, *tasks,
                    seconds=seconds)


def training(run: Step, options: argparse.Namespace, seconds: float) -> bool:
    """What a step of training waits for."""
    return run.part("training", "universeg_rt.benchmarks.gpu.steps.training_rates", options.config, "--data-root",
                    options.data_root, "--out", run.out / "training.json", "--device", run.device,
                    *weights(options.weights), "--steps", 2 if run.small else 200, seconds=seconds)


def weights(file: Path) -> list:
    return [] if str(file) == "none" else ["--weights", file]


def _kernels(run: Step) -> Path:
    """Where the kernels are built, or lie built."""
    brought = run.upload / plan.KERNELS
    return brought if brought.is_dir() and not run.small else run.work / "kernels"
