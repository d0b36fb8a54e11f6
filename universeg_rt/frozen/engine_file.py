"""An engine of a frozen task as a file beside it: a line of JSON that says what it is, then the plan.

`task.onnx` has `task.tensorrt.fp32.engine`, `task.tensorrt-rtx.fp16.engine` and so on, written by `universeg-export
--task task.onnx --engine ...`.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path

from ..bundle.engine import EngineEntry
from ..bundle.manifest import LARGEST_FILE
from ..errors import EngineError
from ..storage.atomic import write_file
from ..storage.reading import reading

SUFFIX, FORMAT, LONGEST_LINE = ".engine", 1, 1 << 20


def place(task: Path, builder: str, precision: str) -> Path:
    """Where the engine of a frozen file stands."""
    return task.with_name(f"{task.stem}.{builder}.{precision}{SUFFIX}")


def beside(task: Path) -> tuple[Path, ...]:
    """The engines that stand beside a frozen file."""
    try:
        names = sorted(path.name for path in task.parent.iterdir())
    except OSError:
        return ()
    return tuple(task.with_name(name) for name in names
                 if name.startswith(f"{task.stem}.") and name.endswith(SUFFIX))


def write(path: Path, entry: EngineEntry, plan: bytes) -> None:
    """Whole or not at all; OutputError where it cannot be written."""
    facts = {"format": FORMAT, "entry": asdict(entry), "plan_sha256": hashlib.sha256(plan).hexdigest()}
    with write_file(path) as file:
        file.write(json.dumps(facts, sort_keys=True).encode() + b"\n" + plan)


def read(path: Path) -> tuple[EngineEntry, bytes]:
    """What the engine is, and its plan; EngineError where the file is no whole engine."""
    cure = "build it again with universeg-export --task ... --engine ..."
    with reading("an engine of a frozen task", path, EngineError, cure=cure), open(path, "rb") as file:
        line = file.readline(LONGEST_LINE)
        plan = file.read(LARGEST_FILE)
        facts = json.loads(line)
        if not isinstance(facts, dict) or facts.get("format") != FORMAT:
            raise ValueError(f"it is not of format {FORMAT}")
        if hashlib.sha256(plan).hexdigest() != facts["plan_sha256"]:
            raise ValueError("its plan is cut off or altered")
        return EngineEntry.from_dict(facts["entry"]), plan
