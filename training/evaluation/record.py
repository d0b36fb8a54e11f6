"""Results on disk: written task by task, gone on with, and with what made them."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from universeg_rt.errors import InputError
from universeg_rt.storage.atomic import write_file
from universeg_rt.storage.reading import reading
from universeg_rt.training.evaluation.measure import Measured


def this_run(command: Sequence[str], opened: bool) -> dict:
    """When and by which command, and whether it opened the closed group."""
    return {"date": datetime.now(UTC).isoformat(timespec="seconds"), "command": shlex.join(command),
            "opened_report": opened}


def write_results(path: Path, setup: dict, runs: list[dict], measured: Sequence[Measured], summary: dict) -> None:
    """JSON of `setup` (what the figures depend on), `runs` (`this_run` of each), the summary's parts (empty until all
    is measured) and of each task what was measured."""
    out = {"setup": setup, "runs": runs, **summary, "measured": [_plain(m) for m in measured]}
    with write_file(path) as file:
        file.write((json.dumps(out, indent=1) + "\n").encode())


def read_results(path: Path, setup: dict) -> tuple[list[dict], dict[str, Measured]]:
    """The runs so far and the tasks measured by name; nothing where there is no file. InputError where it is not one
    of ours, or another setup made it: what differs is named."""
    if not path.exists():
        return [], {}
    with reading("the results of an evaluation", path, cure="remove it to begin anew"):
        found = json.loads(path.read_text())
        was, runs = found["setup"], found["runs"]
        measured = [read_measured(entry) for entry in found["measured"]]
    differing = sorted(key for key in was.keys() | setup.keys() if was.get(key) != setup.get(key))
    if differing:
        raise InputError(
            f"{path} was made with another {', '.join(differing)}; give the same again, or another --output")
    return runs, {m.task: m for m in measured}


def _plain(m: Measured) -> dict:
    return {"task": m.task, "dataset": m.dataset, "digest": m.digest, "subjects": m.subjects.tolist(),
            "methods": list(m.methods), "bins": m.bins.tolist(),
            "values": {name: np.where(np.isnan(v), None, v.astype(object)).tolist() for name, v in m.values.items()}}


def read_measured(entry: dict) -> Measured:
    """One task of the list `measured` of a results file."""
    return Measured(entry["task"], entry["dataset"], entry["digest"], np.array(entry["subjects"]),
                    tuple(entry["methods"]), {n: np.array(v, dtype=np.float64) for n, v in entry["values"].items()},
                    np.array(entry["bins"], dtype=np.float64))
