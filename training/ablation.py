"""The ablation of the paper's Table 2 at small scale: synthetic tasks, in-task and task augmentation, each left out."""

from __future__ import annotations

import argparse
import csv
import dataclasses
import os
import sys
from pathlib import Path

from universeg_rt.errors import UniverSegError

# name: (share of real tasks, in-task augmentation, task augmentation)
VARIANTS = {
    "real tasks, no augmentation": (1.0, False, False),
    "real tasks, in-task": (1.0, True, False),
    "real tasks, task": (1.0, False, True),
    "real tasks, in-task and task": (1.0, True, True),
    "synthetic tasks, in-task and task": (0.0, True, True),
    "all": (0.35, True, True),
}


def main(arguments: list[str] | None = None) -> int:
    """Train one small network a variant and seed and print their Dice on held-out tasks; status 2 for an error."""
    parser = argparse.ArgumentParser(prog="python -m universeg_rt.training.ablation", description=__doc__)
    parser.add_argument("config", type=Path, help="a run's YAML file; its data sets and held-out tasks are used")
    parser.add_argument("--output", type=Path, required=True, help="folder for the runs and ablation.csv")
    parser.add_argument("--data-root", default=os.environ.get("UNIVERSEG_DATA", ""))
    parser.add_argument("--features", type=int, default=16)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--samples", type=int, default=2000)
    parser.add_argument("--entries", type=int, default=16, help="support size of the evaluation")
    parser.add_argument("--queries", type=int, default=40, help="held-out images a task, of the test split")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(arguments)
    try:
        run(options)
    except UniverSegError as error:
        print(f"ablation: {error}", file=sys.stderr)
        return 2
    return 0


def run(options: argparse.Namespace) -> None:
    """Rows (variant, seed, Dice of each held-out task, mean) to `output`/ablation.csv; finished rows are not done again."""
    import torch

    from universeg_rt.training.config import NetworkConfig, Stage, load_config
    from universeg_rt.training.datasets import load_dataset
    from universeg_rt.training.train import Trainer
    from universeg_rt.training.validate import task_dice

    torch.set_num_threads(options.threads)
    base = load_config(options.config)
    tasks = [t.split(*base.data.splits) for p in base.data.datasets for t in load_dataset(p, options.data_root)
             if t.name not in base.data.leave_out]
    held_out = [t for p in base.validation.datasets for t in load_dataset(p, options.data_root)]
    stage = Stage(samples=options.samples, size=options.size, entries=(1, 8), queries=2, episodes=4,
                  learning_rate=2e-3, final_learning_rate=2e-4)
    options.output.mkdir(parents=True, exist_ok=True)
    table = options.output / "ablation.csv"
    done = {(r["variant"], r["seed"]) for r in csv.DictReader(open(table))} if table.exists() else set()
    for seed in range(options.seeds):
        for name, (real, in_task, task) in VARIANTS.items():
            if (name, str(seed)) in done:
                continue
            augment = dataclasses.replace(base.data.augment, use_in_task=in_task, use_task=task)
            config = dataclasses.replace(
                base, network=NetworkConfig(base.network.preset, options.features), stages=(stage,), seed=seed,
                data=dataclasses.replace(base.data, real_probability=real, augment=augment))
            trainer = Trainer(config, tasks, [], options.output / f"{name.replace(',', '').replace(' ', '_')}_{seed}")
            trainer.resume()
            trainer.run(progress=None)
            trainer.model.load_state_dict(trainer.average)
            scores = {
                t.name: float(task_dice(trainer.model, t, options.size, options.entries, options.queries, "test").mean())
                for t in held_out}
            row = {"variant": name, "seed": seed, "samples": trainer.samples, **scores,
                   "mean": sum(scores.values()) / len(scores)}
            new = not table.exists()
            with open(table, "a", newline="") as file:
                writer = csv.DictWriter(file, list(row))
                if new:
                    writer.writeheader()
                writer.writerow({k: f"{v:.4f}" if isinstance(v, float) else v for k, v in row.items()})
            print(f"{name}, seed {seed}: " + ", ".join(f"{k} {v:.3f}" for k, v in [*scores.items(), ("mean", row["mean"])]),
                  flush=True)


if __name__ == "__main__":
    sys.exit(main())
