"""One training step on a CPU: the reference network, the folded one by torch's convolutions, and by the native kernels.

    python -m universeg_rt.benchmarks.cpu.train_step [--size 64] [--entries 8] [--queries 2] [--threads 1] [--repeats 5]
    [--json FILE]

The sides take turns on one episode of random images, forward and backward, after a comparison of their gradients. Times
are the network's; ratios are those of each turn, median (smallest to largest).
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from unittest import mock

from universeg_rt.benchmarks.harness.machine import environment, matrix_rate
from universeg_rt.cli.common import run_command
from universeg_rt.errors import InputError
from universeg_rt.storage.atomic import write_json


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(prog="python -m universeg_rt.benchmarks.cpu.train_step", description=__doc__,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default, what in (("size", 64, "image height and width"), ("entries", 8, "support size"),
                                ("threads", 1, "of every side"), ("queries", 2, "that share the support"),
                                ("repeats", 5, "timed turns, after one that warms up")):
        p.add_argument(f"--{name}", type=int, default=default, help=f"{what} ({default})")
    p.add_argument("--json", type=Path, metavar="FILE", help="write the figures here too")
    return p


def main(arguments: list[str] | None = None) -> int:
    return run_command(_main, parser(), arguments)


def _main(args: argparse.Namespace) -> int:
    if min(args.size, args.entries, args.threads, args.queries, args.repeats) < 1:
        raise InputError("sizes, threads and repeats are at least 1")
    steps = _steps(args)
    gradients = {name: step() for name, step in steps.items()}
    errors = {
        name: float((g - gradients["reference"]).norm() / gradients["reference"].norm())
        for name, g in gradients.items()
    }
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    order = list(steps)
    for turn in range(args.repeats + 1):
        for name in order[turn % len(order):] + order[: turn % len(order)]:
            start = time.perf_counter()
            steps[name]()
            if turn:
                seconds[name].append(time.perf_counter() - start)
    print(
        f"{args.queries} queries of {args.size}x{args.size}, S = {args.entries}, {args.threads} threads, forward and "
        "backward"
    )
    for name, times in seconds.items():
        ratios = [a / b for a, b in zip(seconds["reference"], times)]
        print(
            f"{name:9s} {statistics.median(times) / args.queries:7.3f} s a sample   {statistics.median(ratios):5.2f} "
            f"({min(ratios):.2f} to {max(ratios):.2f}) times the reference's speed   gradient's error "
            f"{errors[name]:.1e}"
        )
    if args.json:
        case = {key: value for key, value in vars(args).items() if key != "json"}
        result = {
            "environment": environment(args.threads), "matrix_product_flop_per_second": matrix_rate(args.threads),
            "case": case, "seconds": seconds, "gradient_errors": errors
        }
        write_json(args.json, result)
    return 0


def _steps(args: argparse.Namespace) -> dict:
    """For each side a step from inputs to the gradient of all weights, which it returns as one vector."""
    import torch

    from universeg_rt.spec import NetworkSpec
    from universeg_rt.training.network import winograd
    from universeg_rt.training.network.folded_forward import FoldedUniverSeg
    from universeg_rt.training.network.reference import UniverSeg
    from universeg_rt.training.run.train import initialise, soft_dice_loss

    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    spec = NetworkSpec.preset("v1")
    plain, folded = UniverSeg(spec), FoldedUniverSeg(spec)
    initialise(plain)
    folded.load_state_dict(plain.state_dict())
    query = torch.rand(1, args.queries, 1, args.size, args.size)
    images = torch.rand(1, args.entries, 1, args.size, args.size)
    labels, target = (images > 0.5).float(), (query > 0.5).float()

    def step(model, *inputs):
        model.zero_grad(set_to_none=True)
        soft_dice_loss(model(*inputs), target.flatten(0, 1) if inputs[0].ndim == 4 else target).backward()
        return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None and p.grad.any()])

    def by_torch():
        with mock.patch.object(winograd, "_native", None):
            return step(folded, query, images, labels)

    repeated = [x.expand(args.queries, *x.shape[1:]) for x in (images, labels)]
    steps = {"reference": lambda: step(plain, query[0], *repeated), "folded": by_torch}
    if winograd._native is not None:
        steps["native"] = lambda: step(folded, query, images, labels)
    return steps


if __name__ == "__main__":
    raise SystemExit(main())
