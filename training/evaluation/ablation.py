"""Small runs that differ in one choice each, read from a YAML file, over several seeds; the paper's Table 2 is one such
file.

The file holds `base` (changes to the run's config, the same for all), `held_out` (groups of data-set files to judge by
on their dev splits, each group a kind: the mean over kinds ranks the variants), `evaluation` (entries, queries) and
`variants` (name: changes). Data sets of the group report are refused: a choice may not see them.
"""

from __future__ import annotations

import argparse
import csv
import sys
from dataclasses import dataclass
from pathlib import Path

from universeg_rt.cli.common import run_command
from universeg_rt.errors import InputError
from universeg_rt.runners.threads import check_threads
from universeg_rt.storage.atomic import make_folder, write_file, writing
from universeg_rt.storage.reading import reading
from universeg_rt.training.tasks.datasets import add_data_root, load_datasets

NEVER_RANKED = "reported"  # the group that the mean leaves out


@dataclass(frozen=True)
class Evaluation:
    """Support size and largest number of dev images of a task when a variant is judged."""

    entries: int = 16
    queries: int = 24


@dataclass(frozen=True)
class Study:
    """What a study's YAML file says; files of data sets are relative to it."""

    base: dict
    held_out: dict[str, tuple[str, ...]]
    variants: dict
    evaluation: Evaluation = Evaluation()


def main(arguments: list[str] | None = None) -> int:
    """Train one small network a variant and seed; print and write their Dice on held-out tasks; 1 for an error."""
    parser = argparse.ArgumentParser(prog="python -m universeg_rt.training.evaluation.ablation", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path, help="a run's YAML file, from which every variant begins")
    parser.add_argument("study", type=Path, help="YAML file of the variants (see studies/)")
    parser.add_argument("--output", type=Path, required=True, help="folder for the runs, ablation.csv and ablation.md")
    add_data_root(parser)
    parser.add_argument("--weights", type=Path, help="of universeg-train, for every run")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--first-seed", type=int, default=0, help="to share a study among processes, an --output each")
    parser.add_argument("--threads", type=int, default=1)
    return run_command(run, parser, arguments)


def read_study(path: Path) -> Study:
    """Raises InputError where the file cannot be read or is no study."""
    from universeg_rt.training.settings.values import from_dict, read_yaml

    study = from_dict(Study, read_yaml(path), str(path))
    if not study.variants or not study.held_out:
        raise InputError(f"{path}: give at least one of `variants` and one group of `held_out`")
    return study


def run(options: argparse.Namespace) -> int:
    """A row (variant, seed, Dice of each task, mean over kinds) a run; rows already in the table are not done again.

    Gives the exit status 0.
    """
    import dataclasses

    import torch

    from universeg_rt.training.evaluation.protocol import check_closed
    from universeg_rt.training.run.config import load_config
    from universeg_rt.training.run.train import Trainer
    from universeg_rt.training.run.validate import task_dice
    from universeg_rt.training.settings.values import override

    check_threads(options.threads)
    if not 1 <= options.seeds <= 1024 or not 0 <= options.first_seed <= 1024:
        raise InputError(f"--seeds {options.seeds}, --first-seed {options.first_seed}; accepted are 1, or 0, to 1024")
    torch.set_num_threads(options.threads)
    study, config = read_study(options.study), load_config(options.config)
    check_closed([options.study.parent / p for files in study.held_out.values() for p in files])
    base = override(config, study.base, f"{options.study}: base")
    configs = {str(name): override(base, changes or {}, f"{options.study}: {name}")
               for name, changes in study.variants.items()}  # all of them first: an error shows before the first run
    tasks = [t.split(*base.data.splits) for t in load_datasets(base.data.datasets, options.data_root)
             if t.name not in base.data.leave_out]
    kinds = {kind: load_datasets([options.study.parent / p for p in files], options.data_root)
             for kind, files in study.held_out.items()}
    shared = {t.name for t in tasks} & {t.name for ts in kinds.values() for t in ts}
    if shared:
        raise InputError(f"tasks {sorted(shared)} are both trained on and held out; put them in leave_out")
    make_folder(options.output)
    path = options.output / "ablation.csv"
    done = {(r["variant"], r["seed"]) for r in _rows(path)}
    for seed in range(options.first_seed, options.first_seed + options.seeds):
        for name, config in configs.items():
            if (name, str(seed)) in done:
                continue
            config = dataclasses.replace(config, seed=config.seed + seed)
            trainer = Trainer(config, tasks, [],
                              options.output / f"{''.join(c if c.isalnum() else '_' for c in name)}_{seed}")
            if not trainer.resume() and options.weights:
                trainer.begin_from(options.weights)
            trainer.run(progress=False)
            if trainer.stop_asked:  # the run's state is saved; it goes on when asked again
                return 0
            trainer.model.load_state_dict(trainer.average)
            scores = {kind: {t.name: task_dice(trainer.model, t, config.stages[-1].size, study.evaluation.entries,
                                               study.evaluation.queries, "dev") for t in ts}
                      for kind, ts in kinds.items()}
            means = {kind: sum(s.values()) / len(s) for kind, s in scores.items()}
            ranked = [v for k, v in means.items() if k != NEVER_RANKED] or list(means.values())
            _append(path, {"variant": name, "seed": seed, "samples": trainer.samples, "mean": sum(ranked) / len(ranked),
                           **means, **{task: v for s in scores.values() for task, v in s.items()}})
            _write_table(options.output / "ablation.md", _rows(path), list(means))
            print(f"{name}, seed {seed}: mean {sum(ranked) / len(ranked):.3f}; "
                  + ", ".join(f"{k} {v:.3f}" for k, v in means.items()), flush=True)
    return 0


def _rows(path: Path) -> list[dict]:
    if not path.exists():
        return []
    with reading("the table of a study", path, cure="remove it to begin anew"), open(path, newline="") as file:
        return list(csv.DictReader(file))


def _append(path: Path, row: dict) -> None:
    new = not path.exists()
    with writing(path), open(path, "a", newline="") as file:
        writer = csv.DictWriter(file, list(row))
        if new:
            writer.writeheader()
        writer.writerow({k: f"{v:.4f}" if isinstance(v, float) else v for k, v in row.items()})


def markdown(rows: list[dict], kinds: list[str]) -> str:
    """A line a variant, in order of first appearance: seeds, mean over kinds and each kind, ± spread over seeds; and of
    the mean its difference from the first variant on the same seeds, with a 95 % interval from three seeds on."""
    import numpy as np

    names = list(dict.fromkeys(r["variant"] for r in rows))
    means = {name: {r["seed"]: float(r["mean"]) for r in rows if r["variant"] == name} for name in names}
    lines = [
        f"| variant | seeds | mean over kinds | less {names[0]} | " + " | ".join(kinds) + " |",
        "| --- | ---: |" + " ---: |" * (2 + len(kinds))
    ]
    for name in names:
        mine = [r for r in rows if r["variant"] == name]
        cells = []
        for key in ("mean", *kinds):
            values = np.array([float(r[key]) for r in mine])
            cells.append(f"{values.mean():.3f}" + (f" ± {values.std(ddof=1):.3f}" if len(values) > 1 else ""))
        cells.insert(1, "" if name == names[0] else _difference(means[name], means[names[0]]))
        lines.append(f"| {name} | {len(mine)} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _difference(mine: dict[str, float], first: dict[str, float]) -> str:
    import numpy as np

    from universeg_rt.training.evaluation.intervals import interval

    values = np.array([mine[seed] - first[seed] for seed in mine if seed in first])
    if not len(values):
        return ""
    found = interval(values, np.arange(len(values)))
    return f"{values.mean():+.3f}" + (f" ({found[0]:+.3f} to {found[1]:+.3f})" if found else "")


def _write_table(path: Path, rows: list[dict], kinds: list[str]) -> None:
    with write_file(path) as file:
        file.write(markdown(rows, kinds).encode())


if __name__ == "__main__":
    sys.exit(main())
