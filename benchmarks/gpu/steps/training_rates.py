"""What a training step is made of: waiting for episodes, the network, and samples a second, for each stage of a config.

    python -m universeg_rt.benchmarks.gpu.steps.training_rates CONFIG --data-root DATA --out training.json
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from universeg_rt.cli.common import importing, run_command
from universeg_rt.storage.atomic import write_json

with importing(__name__, "universeg_rt.benchmarks.gpu.steps.training_rates"):
    import torch

    from universeg_rt.training.run.config import TrainConfig, load_config
    from universeg_rt.training.run.feed import feed
    from universeg_rt.training.run.schedule import steps
    from universeg_rt.training.run.train import Trainer
    from universeg_rt.training.tasks.datasets import add_data_root, load_datasets

WARM = 5  # steps that do not count


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="training_rates", description=__doc__.split("\n")[0])
    parser.add_argument("config", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    add_data_root(parser)
    parser.add_argument("--weights", type=Path, help="to begin from")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--steps", type=int, default=200, help="of each stage (%(default)s)")
    parser.add_argument("--time-limit", type=float, default=120)
    return run_command(_run, parser, arguments)


def _run(options: argparse.Namespace) -> int:
    end, values = time.monotonic() + options.time_limit, {"stages": [], "whole": False}
    write_json(options.out, values)  # the first episodes may not come in time
    config = load_config(options.config)
    tasks = load_datasets(config.data.datasets, options.data_root or config.data.data_root)
    for index, stage in enumerate(config.stages):
        one = dataclasses.replace(config, stages=(stage,), warmup_steps=0)
        if time.monotonic() > end:
            break
        values["stages"].append({"stage": index, **_measure(one, tasks, options, end)})
        write_json(options.out, values)
    values["whole"] = len(values["stages"]) == len(config.stages)
    write_json(options.out, values)
    return 0 if values["whole"] else 1


def _measure(config: TrainConfig, tasks: list, options: argparse.Namespace, end: float) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(config, tasks, [], Path(folder), options.device)
        if options.weights:
            trainer.begin_from(options.weights)
        on_gpu = trainer.device.type == "cuda"
        waited, ran, losses, seen = [], [], [], 0
        plan = steps(config, 0, 0, together=on_gpu)
        operators: list[dict] = []
        before = time.perf_counter()
        source = feed(trainer.source, plan, config.workers, pinned=on_gpu)
        for number, (step, batches) in enumerate(source):
            drawn = time.perf_counter()
            if number == options.steps or time.monotonic() > end:
                operators = _operators(trainer, step, batches)
                break
            losses.append(trainer.train_step(step, batches)[0])
            if on_gpu:
                torch.cuda.synchronize()
            done = time.perf_counter()
            if number >= min(WARM, options.steps // 2):
                waited.append(drawn - before)
                ran.append(done - drawn)
                seen += len(step.seeds) * step.stage.queries
            before = time.perf_counter()
        del source
    seconds = sum(waited) + sum(ran)
    return {
        "steps": len(ran), "samples_per_second": seen / seconds if seconds else None,
        "waiting": _spread(waited), "network": _spread(ran), "losses": [*losses[:1], *losses[-1:]],
        "operators": operators
    }


def _spread(values: list[float]) -> dict[str, float]:
    return {f"p{q}": float(np.percentile(values, q)) for q in (50, 90)} if values else {}


def _operators(trainer: Trainer, step, batches) -> list[dict]:
    """The operators that take longest in one step."""
    kinds = [torch.profiler.ProfilerActivity.CPU]
    if trainer.device.type == "cuda":
        kinds.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=kinds) as profile:
        trainer.train_step(step, batches)
    rows = profile.key_averages()

    def microseconds(row) -> float:
        return getattr(row, "self_device_time_total", 0.0) or row.self_cpu_time_total

    return [{"name": row.key[:80], "calls": row.count, "microseconds": round(microseconds(row), 1)}
            for row in sorted(rows, key=microseconds, reverse=True)[:20]]


if __name__ == "__main__":
    sys.exit(main())
