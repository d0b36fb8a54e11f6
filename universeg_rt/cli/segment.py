"""`universeg-segment`: a support set and query images in; masks, and on request probabilities and overlays, out."""

from __future__ import annotations

import argparse
import platform
import sys
from typing import Any

import numpy as np

from ..errors import UniverSegError
from ..imaging.files import named_images
from ..predictor import Predictor
from ..runners.libraries import runtime_versions
from ..storage.atomic import make_folder
from ..storage.reading import reason, sha256_of
from ..support import SupportSet
from .common import run_command
from .html import needs_html, write_html
from .images import segment_image
from .opened import Opened, open_task
from .options import check, parser
from .queries import Query, find_queries
from .report import Report
from .results import is_whole, outputs, reviewed, stands
from .summary import print_all


def main(arguments: list[str] | None = None) -> int:
    return run_command(_main, parser(), arguments)


def _main(args: argparse.Namespace) -> int:
    from tqdm import tqdm  # type: ignore[import-untyped]  # it comes without types

    # Everything is read and checked before anything is written.
    check(args, parser())
    if args.html:
        needs_html()
    support = None if args.support is None else SupportSet.load(args.support)
    queries = find_queries(args.input, args.output)
    truths = named_images(args.truth) if args.truth else {}
    opened = open_task(args, support)
    facts = {**_facts(opened), "input_notes": queries.notes}
    if args.truth:
        facts["with_truth"] = sum(query.truth_name in truths for query in queries.files.values())
    report = Report(args.output, {**opened.settings, "outputs": outputs(args)}, facts, list(queries.files))
    earlier = report.earlier_rows() if args.resume else {}
    earlier = {name: row for name, row in earlier.items() if "error" in row or is_whole(row, "dice" in row)}
    for folder in outputs(args):
        make_folder(args.output / folder)
    report.start(earlier)

    complete = False
    try:
        for name, query in tqdm(queries.files.items(), desc="segmenting", unit="image"):
            row = _row(opened.task, name, query, truths.get(query.truth_name), earlier.get(name), args)
            report.add(name, reviewed(row, args.review_below))
        complete = True
    finally:  # an interruption too leaves a report of what is there
        content = report.write(complete)
        if args.html:
            write_html(args.output, content)
    rows = list(report.rows.values())
    print_all(args, opened.task, queries, rows, facts)
    return 1 if any("error" in row for row in rows) else 0


def _row(task: Predictor, name: str, query: Query, truth: Any, earlier: dict[str, Any] | None,
         args: argparse.Namespace) -> dict[str, Any]:
    """Segment one file, unless its row of an earlier run still holds; what the report says of it, an error included."""
    path = query.path
    try:
        hashes = {"sha256": sha256_of(path)}
        if truth is not None:
            hashes["truth_sha256"] = sha256_of(truth)
        if earlier is not None and stands(earlier, hashes, args):
            return earlier
        return {"input": str(path), **hashes, **segment_image(task, name, path, truth, args)}
    except UniverSegError as error:
        return {"input": str(path), "error": str(error)}
    except Exception as error:  # whatever it is, the other images are still to be segmented
        return {"input": str(path), "error": f"{path} cannot be segmented ({type(error).__name__}: {reason(error)})"}


def _facts(opened: Opened) -> dict[str, Any]:
    from .. import __version__

    versions = {"universeg_rt": __version__, **runtime_versions(), "numpy": np.__version__,
                "python": platform.python_version()}
    return {"versions": versions, "runner_reason": opened.reason, "notes": opened.task.notes}


if __name__ == "__main__":
    sys.exit(main())
