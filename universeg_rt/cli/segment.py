"""`universeg-segment`: a support set and query images in; masks, and on request probabilities and overlays, out."""

from __future__ import annotations

import argparse
import platform
import sys
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError, UniverSegError
from ..frozen_task import FrozenTask
from ..imaging.files import named_images, read_image, read_label, write_array, write_mask, write_overlay
from ..imaging.metrics import dice
from ..imaging.preprocess import check_label
from ..named_types import Bools
from ..precision import PRECISIONS
from ..prediction import Prediction
from ..predictor import Predictor
from ..runners import RUNNERS
from ..runners.libraries import runtime_versions
from ..storage.atomic import make_folder, writing
from ..storage.reading import reason, sha256_of
from ..support import SupportSet
from .common import run_command, say
from .opened import Opened, add_image_options, check, in_options, open_task
from .queries import FOLDERS, Queries, find_queries, stale_files
from .report import REPORT, Report

NUMBERS = ("foreground_pixels", "foreground_share", "confidence")  # of a row

EXAMPLE = """example:
  universeg-segment --support examples/ --input scans/ --output results/ --support-size 16 --overlays
  universeg-segment --task task.onnx --input scans/ --output results/
examples/ holds images/ and labels/ with the same file names, at least four of each, better sixteen; scans/ holds
images. Subfolders are read too."""


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="universeg-segment", epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Segments images by example: the support set says what to segment; nothing is trained.")
    by = p.add_mutually_exclusive_group(required=True)
    by.add_argument("--support", type=Path, help="folder with images/ and labels/, or .npz with images and labels")
    by.add_argument("--task", type=Path, metavar="FILE", help="in place of a support: a file of universeg-export "
                    "--freeze, which states all options from --bundle to --percentiles, and --precision, itself")
    p.add_argument("--input", type=Path, nargs="+", required=True, help="image files, or folders of them")
    p.add_argument("--output", type=Path, required=True,
                   help="folder for masks/, report.json and what the options below add")
    p.add_argument("--bundle", type=Path, help="folder of the bundle (the shipped one)")
    p.add_argument("--members", type=int, help="support sets that are drawn and averaged, K (1)")
    p.add_argument("--support-size", type=int, help="entries of each set, S (all); 16 is a good beginning")
    p.add_argument("--replacement", action="store_true", help="draw entries with replacement")
    p.add_argument("--seed", type=int, help="seed of the drawing (0)")
    add_image_options(p)
    p.add_argument("--runner", choices=("auto", *RUNNERS), default="auto")
    p.add_argument("--precision", choices=("auto", *PRECISIONS), help="(auto: the runner's own choice)")
    p.add_argument("--threads", type=int, help="threads of a CPU runner, 1 to 256 (one a core)")
    p.add_argument("--probabilities", action="store_true",
                   help="also write probabilities/NAME.npy and spread/NAME.npy, float32 (H,W)")
    p.add_argument("--overlays", action="store_true", help="also write overlays/NAME.png")
    p.add_argument("--truth", type=Path, help="folder of true masks by the same names: reports Dice")
    p.add_argument("--review-below", type=float, metavar="X",
                   help="name the images whose mask has a confidence below X, from 0 to 1, to be looked at")
    p.add_argument("--resume", action="store_true",
                   help=f"go on where a run with the same options stood, by its {REPORT}")
    return p


def main(arguments: list[str] | None = None) -> int:
    return run_command(_main, parser(), arguments)


def _main(args: argparse.Namespace) -> int:
    from tqdm import tqdm  # type: ignore[import-untyped]  # it comes without types

    # Everything is read and checked before anything is written.
    if args.review_below is not None and not 0 <= args.review_below <= 1:
        raise InputError(f"--review-below is {args.review_below}; give a confidence from 0 to 1")
    check(args, parser())
    support = None if args.support is None else SupportSet.load(args.support)
    queries = find_queries(args.input, args.output)
    truths = named_images(args.truth) if args.truth else {}
    opened = open_task(args, support)
    task = opened.task
    facts = {**_facts(opened), "input_notes": queries.notes}
    if args.truth:
        facts["with_truth"] = sum(query.truth_name in truths for query in queries.files.values())
    report = Report(args.output, {**opened.settings, "outputs": _outputs(args)}, facts, list(queries.files))
    earlier = report.earlier_rows() if args.resume else {}
    earlier = {name: row for name, row in earlier.items() if "error" in row or _is_whole(row, "dice" in row)}
    for folder in _outputs(args):
        make_folder(args.output / folder)
    report.start(earlier)

    complete = False
    try:
        for name, query in tqdm(queries.files.items(), desc="segmenting", unit="image"):
            row = _row(task, name, query.path, truths.get(query.truth_name), earlier.get(name), args)
            report.add(name, _reviewed(row, args.review_below))
        complete = True
    finally:  # an interruption too leaves a report of what is there
        report.write(complete)
    rows = list(report.rows.values())
    _print_summary(rows, args.output, args.review_below)
    if isinstance(task, FrozenTask):
        print(f"a frozen task, {task.kind}: {task.reason}; {task.price}")
    _print_notes(args, queries, rows, facts)
    for note in task.notes:
        say(f"universeg-segment: note on the support: {in_options(note)}")
    for row in rows:
        if "error" in row:
            say(f"universeg-segment: skipped {row['input']}: {row['error']}")
        for note in row.get("notes", ()):
            say(f"universeg-segment: note on {row['input']}: {in_options(note)}")
    return 1 if any("error" in row for row in rows) else 0


def _row(task: Predictor, name: str, path: Path, truth_path: Path | None, earlier: dict[str, Any] | None,
         args: argparse.Namespace) -> dict[str, Any]:
    """Segment one file, unless its row of an earlier run still holds; what the report says of it, an error included."""
    try:
        hashes = {"sha256": sha256_of(path)}
        if truth_path is not None:
            hashes["truth_sha256"] = sha256_of(truth_path)
        if earlier is not None and _holds(earlier, hashes, args):
            return earlier
        return {"input": str(path), **hashes, **_segment(task, name, path, truth_path, args)}
    except UniverSegError as error:
        return {"input": str(path), "error": str(error)}
    except Exception as error:  # whatever it is, the other images are still to be segmented
        return {"input": str(path), "error": f"{path} cannot be segmented ({type(error).__name__}: {reason(error)})"}


def _reviewed(row: dict[str, Any], below: float | None) -> dict[str, Any]:
    """The row with `review`, whether the mask's confidence is below what was asked for; without it where nothing
    was."""
    row = {key: value for key, value in row.items() if key != "review"}
    return row if below is None or "error" in row else {**row, "review": row["confidence"] < below}


def _holds(row: dict[str, Any], hashes: dict[str, str], args: argparse.Namespace) -> bool:
    """Whether the row is whole, of files with these hashes, and what it names is there as it was written."""
    same = {key: row.get(key) for key in ("sha256", "truth_sha256") if key in row} == hashes
    if not same or "error" in row or not _is_whole(row, "truth_sha256" in hashes):
        return False
    try:
        return all(sha256_of(args.output / row[key]) == row[f"{key}_sha256"]
                   for key, folder in FOLDERS.items() if folder in _outputs(args))
    except (InputError, KeyError, TypeError):
        return False


def _is_whole(row: dict[str, Any], scored: bool) -> bool:
    """Whether all that a summary reads of a row is there: reports are edited by hand too."""
    seconds, notes = row.get("seconds"), row.get("notes")
    numbers = [row.get(key) for key in (*NUMBERS, *["dice"] * scored)]
    numbers += list(seconds.values()) if isinstance(seconds, dict) and seconds else [None]
    return (all(isinstance(number, (int, float)) and abs(number) < 1e18 for number in numbers)
            and isinstance(row.get("input"), str) and isinstance(notes, list)
            and all(isinstance(note, str) for note in notes))


def _segment(task: Predictor, name: str, path: Path, truth_path: Path | None,
             args: argparse.Namespace) -> dict[str, Any]:
    """Segment one file and write its results; its files, figures and notes."""
    notes: list[str] = []
    image = read_image(path, notes)
    truth = None
    if truth_path is not None:
        truth = check_label(read_label(truth_path), image.shape[:2], f"true mask {truth_path}")
    try:
        prediction = task.predict(image)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    files = {key: _target(args.output, folder, name, ".npy" if key in ("probability", "spread") else ".png")
             for key, folder in FOLDERS.items() if folder in _outputs(args)}
    write_mask(args.output / files["mask"], prediction.mask)
    for key in ("probability", "spread") if args.probabilities else ():
        write_array(args.output / files[key], getattr(prediction, key))
    if args.overlays:
        write_overlay(args.output / files["overlay"], image, prediction.mask, truth)
    notes += [note for note in prediction.notes if note not in task.notes]
    written = {f"{key}_sha256": sha256_of(args.output / file) for key, file in files.items()}
    return {**files, **written, **_figures(prediction, truth), "notes": notes}


def _target(output: Path, folder: str, name: str, ending: str) -> str:
    """Where a result goes, relative to `output`, once its folder is there."""
    parent = (output / folder / name).parent
    with writing(parent):
        parent.mkdir(parents=True, exist_ok=True)
    return f"{folder}/{name}{ending}"


def _figures(prediction: Prediction, truth: Bools | None) -> dict[str, Any]:
    timing = prediction.timing
    figures: dict[str, Any] = {
        "size": list(prediction.mask.shape),
        "foreground_pixels": int(prediction.mask.sum()),
        "foreground_share": float(prediction.mask.mean()),
        "confidence": prediction.confidence,
        "seconds": {"preprocess": timing.preprocess, "network": timing.network, "postprocess": timing.postprocess},
    }
    if truth is not None:
        figures["dice"] = dice(prediction.mask, truth)
    return figures


def _outputs(args: argparse.Namespace) -> list[str]:
    return ["masks"] + ["probabilities", "spread"] * args.probabilities + ["overlays"] * args.overlays


def _facts(opened: Opened) -> dict[str, Any]:
    from .. import __version__

    versions = {"universeg_rt": __version__, **runtime_versions(), "numpy": np.__version__,
                "python": platform.python_version()}
    return {"versions": versions, "runner_reason": opened.reason, "notes": opened.task.notes}


def _print_summary(rows: list[dict[str, Any]], output: Path, review_below: float | None) -> None:
    done = [row for row in rows if "error" not in row]
    line = f"{len(done)} of {len(rows)} images segmented, masks and {REPORT} in {output}"
    if done:
        line += f"; median {np.median([sum(row['seconds'].values()) for row in done]):.2f} s an image"
    scores = [row["dice"] for row in done if "dice" in row]
    if scores:
        line += f"; mean Dice {np.mean(scores):.3f}"
    print(line)
    if review_below is not None:
        doubtful = sorted((row for row in done if row["review"]), key=lambda row: float(row["confidence"]))
        order = ", the lowest first" if doubtful else ""
        print(f"{len(doubtful)} of them to be looked at: confidence below {review_below:g}{order}")
        for row in doubtful:
            print(f"  {row['confidence']:.2f}  {row['input']}")


def _print_notes(args: argparse.Namespace, queries: Queries, rows: list[dict[str, Any]], facts: dict[str, Any]) -> None:
    """What was left out, lacks a truth, or lies there from earlier."""
    if args.truth:
        count, all_of_them = facts["with_truth"], len(queries.files)
        cure = "" if count == all_of_them else "; a true mask has the path and name of its image, but for the ending"
        print(f"{count} of {all_of_them} images have a true mask in {args.truth}{cure}")
    written = [row[key] for row in rows if "error" not in row for key in FOLDERS if key in row]
    if stale := stale_files(args.output, written):
        print(
            f"other files in the folders of {args.output}: {stale}, of earlier runs, not of this one; remove them, or "
            "choose an --output of its own for each run")
    for note in queries.notes:
        say(f"universeg-segment: {note}")


if __name__ == "__main__":
    sys.exit(main())
