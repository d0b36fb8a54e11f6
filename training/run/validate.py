"""Mean Dice on tasks never trained on, for choosing among checkpoints while training."""

from __future__ import annotations

import argparse
import hashlib
import os
from pathlib import Path

import numpy as np

from universeg_rt.cli.common import importing, run_command
from universeg_rt.errors import InputError
from universeg_rt.runners.cpu.threads import check_threads

PROGRAM = "python -m universeg_rt.training.run.validate"

with importing(__name__, PROGRAM):
    import torch
    from torch import Tensor
    from torch.nn import functional as F
    from universeg_rt.training.episodes.fields import harden
    from universeg_rt.training.network.reference import UniverSeg
    from universeg_rt.training.tasks.tasks import Task

MOST = 4096  # of each count that the command is given


@torch.inference_mode()
def task_dice(
    model: UniverSeg, task: Task, size: int, entries: int, queries: int, split: str = "dev", ensemble: int = 1,
    device: torch.device | str = "cpu",
) -> np.ndarray:
    """Dice (queries,) of up to `queries` images of `split`, each with its own random support of the support split.

    With `ensemble` K > 1 the probabilities of K supports are averaged (section 3.3). Images and labels are brought to
    `size`; the same arguments choose the same queries and supports.
    """
    support, query = task.split("support"), task.split(split)
    seed = int.from_bytes(hashlib.sha256(task.name.encode()).digest()[:4], "little")
    random = np.random.default_rng(seed)
    chosen = random.permutation(len(query))[:queries]
    support_images, support_labels = resize(support, size, device)
    query_images, query_labels = resize(query.select(chosen), size, device)
    scores = []
    for image, label in zip(query_images, query_labels):
        probability = torch.zeros_like(image)
        for _ in range(ensemble):
            picks = torch.from_numpy(random.choice(len(support), entries, replace=len(support) < entries)).to(device)
            logits = model(image[None], support_images[picks][None], support_labels[picks][None])
            probability += torch.sigmoid(logits[0].float()) / ensemble
        scores.append(dice(probability > 0.5, label > 0.5).item())
    return np.array(scores)


def dice(predicted: Tensor, target: Tensor) -> Tensor:
    """2|A∩B| / (|A|+|B|) of two boolean arrays; 1 where both are empty."""
    total = predicted.sum() + target.sum()
    return 2.0 * (predicted & target).sum() / total.clamp_min(1) + (total == 0)


def resize(task: Task, size: int, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
    """Images (N,1,size,size) in [0, 1], each scaled to its own range, and labels in {0, 1}."""
    images = torch.from_numpy(task.images).to(device)[:, None].float()
    labels = torch.from_numpy(task.labels).to(device)[:, None].float()
    if images.shape[-1] != size:
        images = F.interpolate(images, size=(size, size), mode="bilinear", antialias=True, align_corners=False)
        labels = harden(F.interpolate(labels, size=(size, size), mode="bilinear", antialias=True, align_corners=False))
    low, high = images.amin((1, 2, 3), keepdim=True), images.amax((1, 2, 3), keepdim=True)
    return (images - low) / (high - low).clamp_min(1e-6), labels


def main(arguments: list[str] | None = None) -> int:
    """Print one row a task: Dice, its standard error over the queries, and how many there were; status 1 for an error."""
    parser = argparse.ArgumentParser(prog=PROGRAM, description=main.__doc__)
    parser.add_argument("weights", type=Path, help="a .safetensors file")
    parser.add_argument("datasets", nargs="+", help="YAML files of data sets")
    parser.add_argument("--data-root", default=os.environ.get("UNIVERSEG_RT_DATA", ""))
    parser.add_argument("--tasks", nargs="+", help="names of tasks; all where not given")
    parser.add_argument("--split", default="test", choices=["support", "dev", "test"])
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--entries", type=int, default=64, help="support size")
    parser.add_argument("--ensemble", type=int, default=1, help="supports a query, probabilities averaged")
    parser.add_argument("--queries", type=int, default=12, help="at most so many queries a task")
    parser.add_argument("--threads", type=int)
    return run_command(_main, parser, arguments)


def _main(options: argparse.Namespace) -> int:
    from universeg_rt.training.network.checkpoint import load_checkpoint
    from universeg_rt.training.tasks.datasets import load_dataset
    from universeg_rt.training.network.folded_forward import FoldedUniverSeg

    check_threads(options.threads)
    for name in ("size", "entries", "ensemble", "queries"):
        value = getattr(options, name)
        if not 1 <= value <= MOST:
            raise InputError(f"--{name} {value}: accepted are 1 to {MOST}")
    if options.threads:
        torch.set_num_threads(options.threads)
    spec, weights, metadata = load_checkpoint(options.weights)
    if options.size % spec.size_multiple:
        raise InputError(f"--size {options.size}: it must be a multiple of {spec.size_multiple}")
    model = FoldedUniverSeg(spec)
    model.load_state_dict({key: torch.from_numpy(value) for key, value in weights.items()})
    print(f"samples seen {metadata.get('samples', 'unknown')}, split {options.split}, size {options.size}, "
          f"support {options.entries}, ensemble {options.ensemble}")
    for path in options.datasets:
        for task in load_dataset(path, options.data_root):
            if options.tasks and task.name not in options.tasks:
                continue
            scores = task_dice(model, task, options.size, options.entries, options.queries, options.split, options.ensemble)
            print(f"{task.name:24s} {scores.mean():.3f} +- {scores.std() / len(scores) ** 0.5:.3f} ({len(scores)})", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
