"""`universeg-segment`: a support set and query images in; masks, and on request probabilities and overlays, out."""

from __future__ import annotations

import argparse
import json
import platform
import sys
from pathlib import Path

import numpy as np

from ..atomic import write_file
from ..ensemble import Ensemble
from ..errors import InputError, OutputError, UniverSegError
from ..images import (
    check_distinct_stems,
    image_files,
    read_image,
    read_label,
    write_array,
    write_mask,
    write_overlay,
)
from ..metrics import dice
from ..preprocess import ASPECTS, check_label
from ..runners import PRECISIONS, RUNNERS
from ..runners.libraries import runtime_versions
from ..segmenter import Prediction, Segmenter, Task
from ..support import SupportSet
from .common import run_command

EXAMPLE = """example:
  universeg-segment --support examples/ --input scans/ --output results/ --members 5 --support-size 16 --overlays
where examples/ holds images/ and labels/ with the same file names, and scans/ holds grey images."""

REPORT = "report.json"


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="universeg-segment", epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Segment images by example: the support set says what to segment, no training is done.")
    p.add_argument("--support", type=Path, required=True, help="folder with images/ and labels/, or .npz with images and labels")
    p.add_argument("--input", type=Path, nargs="+", required=True, help="image files, or folders of them")
    p.add_argument("--output", type=Path, required=True, help="folder for masks/, report.json and what is asked for below")
    p.add_argument("--bundle", type=Path, help="bundle folder (the shipped one)")
    p.add_argument("--members", type=int, default=1, help="support sets to draw and average, K (1)")
    p.add_argument("--support-size", type=int, help="entries of each, S (all)")
    p.add_argument("--replacement", action="store_true", help="draw with replacement")
    p.add_argument("--seed", type=int, default=0, help="of the drawing (0)")
    p.add_argument("--aspect", choices=ASPECTS, default="stretch", help="how images get to the network's grid (stretch)")
    p.add_argument("--runner", choices=("auto", *RUNNERS), default="auto")
    p.add_argument("--precision", choices=("auto", *PRECISIONS), default="auto")
    p.add_argument("--threads", type=int, help="of the runner (one a core)")
    p.add_argument("--probabilities", action="store_true", help="also write probabilities/NAME.npy and spread/NAME.npy, float32 (H,W)")
    p.add_argument("--overlays", action="store_true", help="also write overlays/NAME.png")
    p.add_argument("--truth", type=Path, help="folder of true masks by the same names: reports Dice")
    return p


def main(arguments: list[str] | None = None) -> int:
    return run_command(_main, parser(), arguments)


def _main(args: argparse.Namespace) -> int:
    from tqdm import tqdm

    # Everything is read and checked before anything is written.
    support = SupportSet.load(args.support)
    ensemble = Ensemble(args.members, args.support_size, args.replacement, args.seed)
    queries = _queries(args.input)
    truths = {p.stem: p for p in image_files(args.truth)} if args.truth else {}
    segmenter = Segmenter.open(args.bundle, runner=args.runner, precision=args.precision, threads=args.threads)
    task = segmenter.prepare(support, ensemble, aspect=args.aspect)
    _make_folders(args)

    rows = []
    for path in tqdm(queries, desc="segmenting", unit="image"):
        try:
            rows.append(_segment(task, path, truths.get(path.stem), args))
        except OutputError:
            raise
        except UniverSegError as error:
            rows.append({"input": str(path), "error": str(error)})
    failed = [row for row in rows if "error" in row]
    _write_report(args, segmenter, support, ensemble, rows)
    _print_summary(rows, args.output)
    for row in failed:
        print(f"universeg-segment: skipped {row['input']}: {row['error']}", file=sys.stderr)
    return 1 if failed else 0


def _segment(task: Task, path: Path, truth_path: Path | None, args: argparse.Namespace) -> dict:
    """Segment one file and write its results; what the report says of it."""
    image = read_image(path)
    truth = None
    if truth_path is not None:
        truth = check_label(read_label(truth_path), image.shape[:2], f"true mask {truth_path}")
    try:
        prediction = task.predict(image)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    files = {"mask": f"masks/{path.stem}.png"}
    write_mask(args.output / files["mask"], prediction.mask)
    if args.probabilities:
        files.update(probability=f"probabilities/{path.stem}.npy", spread=f"spread/{path.stem}.npy")
        write_array(args.output / files["probability"], prediction.probability)
        write_array(args.output / files["spread"], prediction.spread)
    if args.overlays:
        files["overlay"] = f"overlays/{path.stem}.png"
        write_overlay(args.output / files["overlay"], image, prediction.mask, truth)
    return {"input": str(path), **files, **_figures(prediction, truth)}


def _figures(prediction: Prediction, truth: np.ndarray | None) -> dict:
    timing = prediction.timing
    figures = {
        "size": list(prediction.mask.shape),
        "foreground_pixels": int(prediction.mask.sum()),
        "mean_spread": float(prediction.spread.mean()),
        "seconds": {"preprocess": timing.preprocess, "network": timing.network, "postprocess": timing.postprocess},
    }
    if truth is not None:
        figures["dice"] = dice(prediction.mask, truth)
    return figures


def _queries(inputs: list[Path]) -> list[Path]:
    files: list[Path] = []
    for path in inputs:
        if not path.exists():
            raise InputError(f"--input {path} does not exist")
        files += image_files(path) if path.is_dir() else [path]
    check_distinct_stems(files)
    return files


def _make_folders(args: argparse.Namespace) -> None:
    folders = ["masks"] + ["probabilities", "spread"] * args.probabilities + ["overlays"] * args.overlays
    for folder in folders:
        try:
            (args.output / folder).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"cannot write to {args.output}: {error.strerror or error}; choose another --output") from None
    with write_file(args.output / ".probe"):  # finds out now rather than after the first image
        pass
    (args.output / ".probe").unlink()


def _write_report(args: argparse.Namespace, segmenter: Segmenter, support: SupportSet, ensemble: Ensemble, rows: list[dict]) -> None:
    from .. import __version__

    scores = [row["dice"] for row in rows if "dice" in row]
    report = {
        "versions": {"universeg_rt": __version__, **runtime_versions(), "numpy": np.__version__,
                     "python": platform.python_version()},
        "bundle": {"name": segmenter.bundle.manifest.name, "sha256": segmenter.bundle.sha256,
                   "weights_sha256": segmenter.bundle.manifest.weights_sha256},
        "runner": {"name": segmenter.runner.name, "reason": segmenter.runner.reason},
        "support": {"entries": len(support), "sha256": support.sha256},
        "ensemble": {"members": ensemble.members, "support_size": ensemble.support_size or len(support),
                     "replacement": ensemble.replacement, "seed": ensemble.seed},
        "aspect": args.aspect,
        "mean_dice": float(np.mean(scores)) if scores else None,
        "images": rows,
    }
    with write_file(args.output / REPORT) as file:
        file.write((json.dumps(report, indent=2) + "\n").encode())


def _print_summary(rows: list[dict], output: Path) -> None:
    done = [row for row in rows if "error" not in row]
    line = f"{len(done)} of {len(rows)} images segmented, masks and {REPORT} in {output}"
    if done:
        line += f"; median {np.median([sum(row['seconds'].values()) for row in done]):.2f} s an image"
    scores = [row["dice"] for row in done if "dice" in row]
    if scores:
        line += f"; mean Dice {np.mean(scores):.3f}"
    print(line)


if __name__ == "__main__":
    sys.exit(main())
