"""Latency and memory of the folded, streamed network beside the reference in eager PyTorch, interleaved in one run.

    python -m universeg_rt.benchmarks.latency --output latency.json

Both sides get the same weights, support and query, at one image size, with the same number of threads. For each support
size the sides take turns, so that a change in the machine's speed meets both; figures are medians with the spread from the
fastest to the slowest run. Peak memory is that of a process of its own for each side and support size. The machine's
matrix-product rate is measured in the same run, between the turns.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from universeg_rt.atomic import write_file
from universeg_rt.cli.common import run_command
from universeg_rt.errors import InputError
from universeg_rt.spec import PRESETS, NetworkSpec

SIDES = ("reference", "ours")


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(prog="universeg_rt.benchmarks.latency", description=__doc__,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--support-sizes", type=int, nargs="+", default=[1, 4, 16, 64, 256], metavar="S")
    p.add_argument("--repeats", type=int, default=5, help="timed runs of each side (5); one more warms up")
    p.add_argument("--size", type=int, default=128, help="image height and width (128)")
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--spec", choices=tuple(PRESETS), default="v1", help="random weights; the cost does not depend on them (v1)")
    p.add_argument("--reference-limit", type=int, default=64,
                   help="largest S for the reference, whose memory grows by 53 MB an entry (64)")
    p.add_argument("--output", type=Path, help="JSON file for all figures")
    p.add_argument("--no-memory", action="store_true", help="leave the peak memory out")
    # One side in a process of its own, for its peak memory.
    p.add_argument("--child", choices=SIDES, help=argparse.SUPPRESS)
    p.add_argument("--models", type=Path, help=argparse.SUPPRESS)
    return p


def main(arguments: list[str] | None = None) -> int:
    return run_command(_main, parser(), arguments)


def _main(args: argparse.Namespace) -> int:
    if args.repeats < 1 or args.threads < 1 or any(s < 1 for s in args.support_sizes):
        raise InputError("repeats, threads and support sizes must be positive")
    spec = NetworkSpec.preset(args.spec)
    if args.child:
        return _child(args, spec)

    from tqdm import tqdm

    from universeg_rt.export.cost import network_cost, total
    from universeg_rt.export.folds import fold

    network = fold(spec, random_weights(spec))
    costs = network_cost(network, args.size, args.size)
    rows, matrix_rate = [], _matrix_rate(args.threads)
    with tempfile.TemporaryDirectory() as folder:
        write_models(network, Path(folder))
        for size in tqdm(args.support_sizes, desc="support sizes", unit="size"):
            sides = [s for s in SIDES if s == "ours" or size <= args.reference_limit]
            calls = {side: _side(side, spec, Path(folder), size, args) for side in sides}
            seconds, rates = _interleave(calls, args.repeats, args.threads)
            for side in sides:
                flop = total(costs, "folded" if side == "ours" else "reference", size).flop
                median = float(np.median(seconds[side]))
                row = {"side": side, "support_size": size, "median_s": median, "fastest_s": min(seconds[side]),
                       "slowest_s": max(seconds[side]), "gflop": flop / 1e9, "gflop_per_s": flop / median / 1e9,
                       "matrix_gflop_per_s": float(np.median(rates))}
                if not args.no_memory:
                    row["peak_mb"] = _peak_memory(args, side, size, Path(folder))
                rows.append(row)
            if len(sides) == 2:
                ratios = np.array(seconds["reference"]) / np.array(seconds["ours"])
                rows[-1]["speedup"] = float(np.median(ratios))
                rows[-1]["speedup_range"] = [float(ratios.min()), float(ratios.max())]
    result = {"environment": environment(args.threads), "spec": args.spec, "image_size": args.size, "repeats": args.repeats,
              "matrix_product_gflop_per_s": matrix_rate, "rows": rows}
    print(table(result))
    if args.output:
        with write_file(args.output) as file:
            file.write((json.dumps(result, indent=2) + "\n").encode())
    return 0


def table(result: dict) -> str:
    """The result as a Markdown table."""
    lines = ["| S | side | median s | fastest to slowest | GFLOP | GFLOP/s | matrix product GFLOP/s | peak MB | reference / ours |",
             "| ---: | --- | ---: | --- | ---: | ---: | ---: | ---: | --- |"]
    for r in result["rows"]:
        ratio = f"{r['speedup']:.1f} ({r['speedup_range'][0]:.1f} to {r['speedup_range'][1]:.1f})" if "speedup" in r else ""
        lines.append(
            f"| {r['support_size']} | {r['side']} | {r['median_s']:.3f} | {r['fastest_s']:.3f} to {r['slowest_s']:.3f} "
            f"| {r['gflop']:.0f} | {r['gflop_per_s']:.0f} | {r['matrix_gflop_per_s']:.0f} | {r.get('peak_mb', float('nan')):.0f} | {ratio} |")
    return "\n".join(lines)


def random_weights(spec: NetworkSpec) -> dict[str, np.ndarray]:
    """Weights that keep the activations in range."""
    rng = np.random.default_rng(0)
    return {key: (rng.standard_normal(shape) * (0.1 if len(shape) == 1 else 1.2 / np.sqrt(np.prod(shape[1:])))).astype(np.float32)
            for key, shape in spec.weight_shapes().items()}


def write_models(network, folder: Path) -> None:
    """The stages of a folded network as files, named so that sorting gives their order."""
    from universeg_rt.export.emit import emit_stages

    for position, stage in enumerate(emit_stages(network, {}, "0")):
        (folder / f"{position:02}_{stage.name}.onnx").write_bytes(stage.model.SerializeToString())


def _inputs(support_size: int, side: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(support_size)
    support = rng.random((1, support_size, 2, side, side), np.float32)
    support[:, :, 1] = support[:, :, 1] > 0.5
    return support, rng.random((1, 1, side, side), np.float32)


def _side(name: str, spec: NetworkSpec, folder: Path, support_size: int, args: argparse.Namespace) -> Callable[[], np.ndarray]:
    """A call of one side from support and query to logits; preparing the support is part of it."""
    support, query = _inputs(support_size, args.size)
    weights = np.full((1, support_size), 1 / support_size, np.float32)
    if name == "ours":
        from universeg_rt.runners.streamed import StreamedOnnxRuntime

        files = [(path.stem.split("_", 1)[1], path) for path in sorted(folder.glob("*.onnx"))]
        runner = StreamedOnnxRuntime(files, args.threads)
        return lambda: runner.run(runner.prepare(support, weights), query)
    import torch

    from universeg_rt.training.reference import UniverSeg

    torch.set_num_threads(args.threads)
    network = UniverSeg(spec).eval()
    network.load_state_dict({key: torch.from_numpy(value) for key, value in random_weights(spec).items()})
    x, q = torch.from_numpy(support), torch.from_numpy(query)

    def call() -> np.ndarray:
        with torch.inference_mode():
            return network(q, x[:, :, :1], x[:, :, 1:]).numpy()

    return call


def _interleave(calls: dict[str, Callable], repeats: int, threads: int) -> tuple[dict[str, list[float]], list[float]]:
    seconds: dict[str, list[float]] = {side: [] for side in calls}
    rates, outputs = [], {}
    for repeat in range(repeats + 1):
        for side, call in calls.items():
            start = time.perf_counter()
            outputs[side] = call()
            if repeat:
                seconds[side].append(time.perf_counter() - start)
        rates.append(_matrix_rate(threads))
    if len(calls) == 2:
        error = float(np.abs(outputs["reference"].ravel() - outputs["ours"].ravel()).max())
        if not error < 1e-3:
            raise RuntimeError(f"the sides differ by {error}: what is timed is not the same thing")
    return seconds, rates


def _matrix_rate(threads: int, side: int = 2048, repeats: int = 3) -> float:
    """GFLOP/s of a float32 matrix product, the fastest of a few."""
    import torch

    torch.set_num_threads(threads)
    a, b = torch.rand(side, side), torch.rand(side, side)
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        a @ b
        best = min(best, time.perf_counter() - start)
    return 2 * side**3 / best / 1e9


def _peak_memory(args: argparse.Namespace, side: str, support_size: int, folder: Path) -> float:
    """Peak resident MB of a new process that runs one side twice."""
    command = [sys.executable, "-m", "universeg_rt.benchmarks.latency", "--child", side, "--models", str(folder), "--spec", args.spec,
               "--support-sizes", str(support_size), "--size", str(args.size), "--threads", str(args.threads)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(done.stdout.split()[-1])


def _child(args: argparse.Namespace, spec: NetworkSpec) -> int:
    call = _side(args.child, spec, args.models, args.support_sizes[0], args)
    call(), call()
    print(_peak_resident_mb())
    return 0


def _peak_resident_mb() -> float:
    """Of this process since its program started (the accounting of getrusage would include what it was forked from)."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    return next(float(line.split()[1]) * 1024 / 1e6 for line in status.splitlines() if line.startswith("VmHWM"))


def environment(threads: int) -> dict:
    """What the figures were measured on."""
    from importlib.metadata import version

    model = next((line.split(":", 1)[1].strip() for line in _cpuinfo() if line.startswith("model name")), platform.processor())
    flags = next((line.split(":", 1)[1].split() for line in _cpuinfo() if line.startswith("flags")), [])
    return {"processor": model, "instructions": [f for f in ("avx2", "avx512f", "avx512_vnni", "amx_tile") if f in flags],
            "cores": os.cpu_count(), "threads": threads, "system": f"{platform.system()} {platform.machine()}", "python": platform.python_version(),
            **{name: version(name) for name in ("numpy", "onnxruntime", "torch")}}


def _cpuinfo() -> list[str]:
    try:
        return Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return []


if __name__ == "__main__":
    sys.exit(main())
