"""Which share of a volume run's wall time the network takes, and what the rest goes into.

    python -m universeg_rt.benchmarks.cpu.volume [--shape 512 512 100] [--support-size 16] [--labels 1] [--threads 2]
    [--repeats 3] [--json FILE] [-- OPTION ...]

Every repeat is a whole process of `universeg-segment` on a made-up NIfTI volume, from its start to its end; options
after -- go to it. Without --freeze among them the network is the exact one.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from universeg_rt.benchmarks.harness.machine import environment
from universeg_rt.cli.common import run_command
from universeg_rt.errors import InputError
from universeg_rt.install import needed
from universeg_rt.storage.atomic import write_json

AIM = 0.7  # of the wall time


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(prog="python -m universeg_rt.benchmarks.cpu.volume", description=__doc__,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--shape", type=int, nargs=3, default=(512, 512, 100), metavar="N", help="voxels (512 512 100)")
    p.add_argument("--support-size", type=int, default=16, help="labelled slices (16)")
    p.add_argument("--labels", type=int, default=1, help="labels of each (1)")
    p.add_argument("--threads", type=int, default=2, help="(2)")
    p.add_argument("--repeats", type=int, default=3, help="processes that are timed (3)")
    p.add_argument("--json", type=Path, metavar="FILE", help="write the figures here too")
    p.add_argument("options", nargs="*", help="of universeg-segment, after --")
    return p


def main(arguments: list[str] | None = None) -> int:
    return run_command(_main, parser(), arguments)


def _main(args: argparse.Namespace) -> int:
    if min(*args.shape, args.support_size, args.labels, args.threads, args.repeats) < 1:
        raise InputError("sizes, labels, threads and repeats are at least 1")
    walls, stages = [], []
    with tempfile.TemporaryDirectory() as folder:
        make_case(Path(folder), args.shape, args.support_size, args.labels)
        for _ in range(args.repeats):
            wall, seconds = run(Path(folder), args.threads, args.options)
            walls.append(wall)
            stages.append({**seconds, "starting and ending": wall - sum(seconds.values())})
    shares = [stage["network"] / wall for stage, wall in zip(stages, walls)]
    print(f"{'x'.join(map(str, args.shape))}, {args.labels} label(s), S = {args.support_size}, {args.threads} threads, "
          f"{' '.join(args.options)}")
    print(f"wall {_spread(walls)} s; network {_spread(shares)} of it, aim {AIM:g}")
    for name in stages[0]:
        print(f"  {name:20s} {_spread([stage[name] for stage in stages])} s")
    if args.json:
        case = {key: value for key, value in vars(args).items() if key != "json"}
        write_json(args.json, {"environment": environment(args.threads), "case": case, "wall": walls, "stages": stages})
    return 0


def make_case(folder: Path, shape: tuple[int, int, int], entries: int, labels: int) -> None:
    """A noisy volume with blobs in folder/scan.nii.gz, and `entries` of its slices with their labels in
    folder/support."""
    from universeg_rt.imaging.files import write_array, write_png

    nibabel = needed("nibabel", "medical", "the benchmark's volume")
    random = np.random.default_rng(0)
    coarse = random.integers(0, labels + 2, (8, 8, 8)).clip(max=labels).astype(np.uint8)
    places = [np.minimum(np.arange(n) * 8 // n, 7) for n in shape]
    marked = coarse[np.ix_(*places)]
    values = (random.normal(100, 15, shape) + 60.0 * marked).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(values, np.diag((0.8, 0.8, 2.5, 1.0))), folder / "scan.nii.gz")
    for part in ("images", "labels"):
        (folder / "support" / part).mkdir(parents=True)
    for i, k in enumerate(np.linspace(0, shape[2] - 1, entries).round().astype(int)):
        write_array(folder / "support" / "images" / f"{i:03}.npy", values[:, :, k])
        write_png(folder / "support" / "labels" / f"{i:03}.png", marked[:, :, k])


def run(folder: Path, threads: int, options: list[str]) -> tuple[float, dict[str, float]]:
    """Seconds of a whole process, and of its stages as the report has them."""
    command = [sys.executable, "-m", "universeg_rt.cli.segment", "--support", folder / "support", "--input",
               folder / "scan.nii.gz", "--output", folder / "out", "--threads", threads, *options]
    start = time.perf_counter()
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    wall = time.perf_counter() - start
    if done.returncode:
        raise InputError(f"universeg-segment failed: {done.stderr.strip().splitlines()[-1]}")
    (row,) = json.loads((folder / "out" / "report.json").read_text())["images"]
    return wall, row["seconds"]


def _spread(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


if __name__ == "__main__":
    raise SystemExit(main())
