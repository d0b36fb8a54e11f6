"""universeg-train: train a network from one YAML file, or go on with a run."""

from __future__ import annotations

import argparse
import dataclasses
import os
import re
import sys
from pathlib import Path

from universeg_rt.cli.common import run_command
from universeg_rt.errors import InputError, TrainingError, shown
from universeg_rt.runners.threads import check_threads
from universeg_rt.storage.atomic import make_folder, write_file
from universeg_rt.storage.reading import reason
from universeg_rt.training.tasks.datasets import add_data_root, load_datasets


def main(arguments: list[str] | None = None) -> int:
    """Exit status 0 when the run is done or was asked to stop, 1 for an error (one line on stderr)."""
    parser = argparse.ArgumentParser(prog="universeg-train", description=__doc__)
    parser.add_argument("config", type=Path, help="YAML file of the run (see configs/)")
    parser.add_argument("--output", type=Path, required=True, help="folder of the run; a run that lies there goes on")
    add_data_root(parser)
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N (torchrun sets N)")
    parser.add_argument(
        "--weights", type=Path, help="weights to begin a new run from, a .safetensors file or a bundle; a run "
        "with a state goes on from that")
    parser.add_argument("--threads", type=int, help="CPU threads of this process")
    parser.add_argument("--stop-after", type=int, metavar="SAMPLES",
                        help="stop after so many more samples, to go on later")
    parser.add_argument(
        "--finish", type=int, metavar="SAMPLES", help="bring the learning rate to zero over so many more samples and "
        "write finished.safetensors; the run itself stays where it is and can go on")
    parser.add_argument("--no-progress", action="store_true", help="no progress bar, for logs")
    return run_command(train, parser, arguments)


def train(options: argparse.Namespace) -> int:
    """Read config and tasks, join other processes where torchrun started some, and run; gives the exit status 0."""
    import torch
    import torch.distributed as dist
    import yaml

    from universeg_rt.training.run.config import load_config
    from universeg_rt.training.run.train import Trainer
    from universeg_rt.training.settings.values import to_dict

    parallel, device = _check_options(options)
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    config = load_config(options.config)
    make_folder(options.output)
    root = options.data_root or config.data.data_root
    held_out = [t for t in load_datasets(config.validation.datasets, root)
                if not config.validation.tasks or t.name in config.validation.tasks]
    tasks = [t.split(*config.data.splits) for t in load_datasets(config.data.datasets, root)
             if t.name not in config.data.leave_out]
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, data_root=""))
    shared = {t.name for t in held_out} & {t.name for t in tasks}
    if shared:
        raise InputError(f"tasks {sorted(shared)} are both trained on and held out; put them in leave_out")

    if device.startswith("cuda"):
        if not torch.cuda.is_available() or int(device.partition(":")[2] or 0) >= torch.cuda.device_count():
            raise InputError(f"device {device}: torch sees no GPU here of that number; use --device cpu")
        if parallel:
            torch.cuda.set_device(device)
    if parallel:
        try:
            dist.init_process_group("nccl" if device.startswith("cuda") else "gloo")
        except (ValueError, RuntimeError) as error:
            raise TrainingError(
                f"the processes of the run do not find each other ({reason(error)}); start them with torchrun"
            ) from None
    try:
        trainer = Trainer(config, tasks, held_out, options.output, device)
        resumed = trainer.resume()
        if options.weights and not resumed:
            trainer.begin_from(options.weights)
        if trainer.rank == 0:
            with write_file(options.output / "config.yaml") as file:
                file.write(yaml.safe_dump(to_dict(config), sort_keys=False).encode())
            print(f"{'going on' if resumed else 'beginning'} at {trainer.samples} samples; {len(tasks)} real tasks",
                  flush=True)
        trainer.run(progress=False if options.no_progress else None, stop_after_samples=options.stop_after,
                    finish_samples=options.finish)
    finally:
        if parallel:
            dist.destroy_process_group()
    return 0


def _check_options(options: argparse.Namespace) -> tuple[bool, str]:
    """Whether torchrun started several processes, and the device of this one; InputError for options out of range."""
    check_threads(options.threads)
    if options.stop_after is not None and options.stop_after < 1:
        raise InputError(f"--stop-after {options.stop_after}: give at least 1 sample")
    if not re.fullmatch(r"cpu|cuda(:\d{1,3})?", options.device):
        raise InputError(f"--device {shown(options.device)}: accepted are cpu, cuda and cuda:N")
    places = {name: os.environ.get(name, default) for name, default in (("WORLD_SIZE", "1"), ("LOCAL_RANK", "0"))}
    for name, value in places.items():
        if not re.fullmatch(r"\d{1,6}", value):
            raise InputError(
                f"the environment says {name}={shown(value)}, no number; start several processes with torchrun, which "
                "sets it"
            )
    parallel = int(places["WORLD_SIZE"]) > 1
    return parallel, f"cuda:{places['LOCAL_RANK']}" if parallel and options.device == "cuda" else options.device


if __name__ == "__main__":
    sys.exit(main())
