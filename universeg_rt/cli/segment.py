"""`universeg-segment`: a support set and query images or volumes in; masks, and on request probabilities, overlays and
a report to read, out."""

from __future__ import annotations

import argparse
import platform
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError, UniverSegError
from ..runners.libraries import runtime_versions
from ..storage.atomic import make_folder
from ..storage.reading import is_folder, reason, sha256_of, sha256_of_files
from ..volumes.reading import read_volume
from ..volumes.volume import Volume
from .common import in_options, run_command
from .html import needs_html, write_html
from .images import segment_image
from .opened import Opened, normalisation, open_task
from .options import check, parser
from .partial import discard
from .progress import Progress
from .queries import Queries, Query, find_queries
from .report import Report
from .results import is_whole, outputs, reviewed, stands
from .summary import print_all
from .supports import READ, is_of_file, is_of_volumes, load_support, refuse_beside_pictures, slice_notes, slices_taken
from .truths import Truths, find_truths
from .volumes import Job, segment_volume


def main(arguments: list[str] | None = None) -> int:
    return run_command(_main, parser(), arguments)


def _main(args: argparse.Namespace) -> int:
    from .. import __version__

    # Everything is read and checked before anything is written.
    check(args, parser())
    if args.html:
        needs_html()
    queries = find_queries(args.input, args.output)
    of_volumes, volumes = is_of_volumes(args), any(query.volume for query in queries.files.values())
    support = None if args.support is None else load_support(args, normalisation(args), _volumes(queries, args),
                                                             of_volumes=of_volumes)
    if not volumes and not of_volumes:
        refuse_beside_pictures({name: getattr(args, name) for name in READ})
    if args.follow and not volumes:
        raise InputError("--follow: --input holds no volumes, whose slices have an order; leave it out")
    truths = find_truths(args.truth) if args.truth else {}
    taken = slices_taken(args, support) if support is not None and of_volumes else {}
    opened = open_task(args, support, taken)
    facts = {**_facts(opened), "notes": [*opened.task.notes, *slice_notes(args, taken)], "input_notes": queries.notes}
    used = [truths[query.truth_name] for query in queries.files.values() if query.truth_name in truths]
    of_file = "" not in opened.task.values if support is None else is_of_file(args, support)
    how = Truths.of(used, len(opened.task.values), args.label is not None, of_file)
    if args.truth:
        facts["with_truth"] = len(used)
    settings = {"version": __version__, **opened.settings, "outputs": outputs(args)}
    report = Report(args.output, settings, facts, list(queries.files))
    earlier = report.earlier_rows() if args.resume else {}
    earlier = {name: row for name, row in earlier.items() if "error" in row or is_whole(row, "dice" in row)}
    for folder in outputs(args):
        make_folder(args.output / folder)
    if not args.resume:
        discard(args.output)
    report.start(earlier)

    complete, progress = False, Progress(len(queries.files))
    try:
        with progress:
            for name, query in queries.files.items():
                truth = truths.get(query.truth_name)
                row = _row(opened, name, query, truth, how, earlier.get(name), args, settings, progress, report)
                report.add(name, reviewed(row, args.review_below))
                progress.next()
        complete = True
    finally:  # an interruption too leaves a report of what is there
        content = report.write(complete, progress.unfinished)
        if args.html:
            write_html(args.output, content)
    rows = list(report.rows.values())
    print_all(args, opened, queries, rows, facts)
    return 1 if any("error" in row for row in rows) else 0


def _volumes(queries: Queries, args: argparse.Namespace) -> Iterator[Volume]:
    """The volumes among the queries that can be read; what is wrong with others their rows say. Raises where none
    can be read."""
    first, read = None, 0
    for query in queries.files.values():
        if query.volume:
            try:
                volume = read_volume(query.path, time=args.time, series=args.series)
            except UniverSegError as error:
                first = first or error
                continue
            read += 1
            yield volume
    if first is not None and not read:
        raise first


def _row(opened: Opened, name: str, query: Query, truth: Path | None, how: Truths, earlier: dict[str, Any] | None,
         args: argparse.Namespace, settings: dict[str, Any], progress: Progress, report: Report
         ) -> dict[str, Any]:
    """Segment one file, unless its row of an earlier run still holds; what the report says of it, an error included."""
    path = query.path
    try:
        hashes = {"sha256": _hash(path)}
        if truth is not None:
            hashes |= {"truth_sha256": _hash(truth), **how.hold}
        if earlier is not None and stands(earlier, hashes, args):
            return earlier
        if query.volume:
            job = Job(name, path, truth, how, hashes)
            tick = progress.slices(name)

            def told(more: int, count: int) -> None:
                tick(more, count)
                report.tell(progress.unfinished)

            found = segment_volume(opened, job, args, told, settings)
        else:
            found = segment_image(opened, name, path, truth, how, args)
        return {"input": str(path), **hashes, **found}
    except UniverSegError as error:
        return {"input": str(path), "error": in_options(str(error))}
    except Exception as error:  # whatever it is, the other images are still to be segmented
        return {"input": str(path), "error": f"{path} cannot be segmented ({type(error).__name__}: {reason(error)})"}


def _hash(path: Path) -> str:
    return sha256_of_files(path) if is_folder(path) else sha256_of(path)


def _facts(opened: Opened) -> dict[str, Any]:
    from .. import __version__

    versions = {"universeg_rt": __version__, **runtime_versions(), "numpy": np.__version__,
                "python": platform.python_version()}
    return {"versions": versions, "runner_reason": opened.reason}


if __name__ == "__main__":
    sys.exit(main())
