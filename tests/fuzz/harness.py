"""Runs cases in a child process that may hang, die or ask for too much memory, and goes on behind them."""

from __future__ import annotations

import faulthandler
import importlib
import itertools
import json
import os
import pkgutil
import random
import resource
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from . import MEMORY, SECONDS

ROOT = Path(__file__).resolve().parents[2]
HELPERS = {"__main__", "harness", "mutate", "defects"}


@dataclass
class Result:
    """One module's run: how many cases had which outcome, and a line or more on each defect; skipped: why none ran."""

    name: str
    counts: Counter = field(default_factory=Counter)
    defects: list[str] = field(default_factory=list)
    skipped: str = ""
    seconds: float = 0.0


def modules() -> list[str]:
    """Names of the modules that have cases."""
    return sorted(m.name for m in pkgutil.iter_modules([str(Path(__file__).parent)])
                  if m.name not in HELPERS and not m.name.startswith("test_"))


def run(names: list[str], cases: int, seed: int, seconds: float = SECONDS) -> list[Result]:
    """Run `cases` cases of each module; a child that is lost is replaced by one that begins with the next case."""
    results = {name: Result(name) for name in names}
    left = [(name, 0) for name in names]
    while left:
        with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
            left = _one_child(left, results, [cases, seed, seconds], Path(folder))
    return list(results.values())


def _one_child(left: list[tuple[str, int]], results: dict[str, Result], settings: list,
               folder: Path) -> list[tuple[str, int]]:
    """Start a child on what is left; what is left when it ends."""
    with open(folder / "said", "w+b") as said:
        child = subprocess.Popen(
            [sys.executable, "-m", "tests.fuzz.harness", json.dumps([left, *settings]), str(folder)], cwd=ROOT,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=said, env={**os.environ, "OMP_NUM_THREADS": "1"})
        name, index, case, since = left[0][0], left[0][1], "", time.monotonic()
        for line in child.stdout:
            event = json.loads(line)
            result = results[event["module"]]
            if "begun" in event:
                name, index, case, since = event["module"], event["begun"], event["case"], time.monotonic()
            elif "skipped" in event:
                result.skipped = event["skipped"]
            elif "outcome" in event:
                case = ""
                result.counts[event["outcome"]] += 1
                result.seconds += event["seconds"]
                if event["defect"]:
                    result.defects.append(f"{name} case {index} ({event['case']}): {event['defect']}")
        status = child.wait()
        if status == 0:
            return []
        said.seek(0)
        words = said.read().decode(errors="replace")
        words = words[words.find("Timeout ("):][:3000] if "Timeout (" in words else words[-3000:]
        if not case:
            raise RuntimeError(
                f"the fuzzers' child ended with {status} outside a case, after {name} case {index}:\n{words}")
        outcome = "time-out" if "Timeout (" in words else f"death ({status})"
        results[name].counts[outcome] += 1
        results[name].seconds += time.monotonic() - since
        results[name].defects.append(f"{name} case {index} ({case}): {outcome}\n{words}")
        names = [n for n, _ in left]
        return [(name, index + 1), *((n, 0) for n in names[names.index(name) + 1:])]


def _child(left: list[tuple[str, int]], cases: int, seed: int, seconds: float, folder: Path) -> None:
    report = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # commands print; this pipe is for outcomes

    def say(**event) -> None:
        report.write(json.dumps(event) + "\n")

    for name, start in left:
        try:
            module = importlib.import_module(f"tests.fuzz.{name}")
            own = folder / name
            own.mkdir()
            stream = itertools.islice(module.cases(random.Random(f"{name} {seed}"), own), cases)
            _run_module(name, itertools.islice(enumerate(stream), start, None), seconds, say)
        except ModuleNotFoundError as error:
            if (error.name or "").split(".")[0] in ("universeg_rt", "tests"):
                raise
            say(module=name, skipped=f"needs {error.name}")


def _run_module(name: str, stream, seconds: float, say) -> None:
    first = True
    for index, (case, body) in stream:
        case = case.encode("ascii", "backslashreplace").decode()
        say(module=name, begun=index, case=case)
        if first:  # the module's imports are done, what a case imports itself is small
            _limit_memory()
            first = False
        started = time.monotonic()
        faulthandler.dump_traceback_later(seconds, exit=True)
        try:
            outcome, defect = _outcome(body)
        finally:
            faulthandler.cancel_dump_traceback_later()
        say(module=name, outcome=outcome, defect=defect, case=case, seconds=time.monotonic() - started)
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(resource.RLIMIT_AS, (hard, hard))


def _outcome(body) -> tuple[str, str]:
    from universeg_rt.errors import UniverSegError

    try:
        body()
    except UniverSegError as error:
        if _out_of_memory(error):
            return "memory", f"{type(error).__name__} covers a MemoryError: {error}"
        return type(error).__name__, ""
    except MemoryError:
        return "memory", traceback.format_exc(limit=-4)
    except BaseException as error:  # any other is what is looked for
        return f"raw {type(error).__name__}", traceback.format_exc(limit=-6)[-3000:]
    return "success", ""


def _out_of_memory(error: BaseException | None) -> bool:
    """Whether a MemoryError, or torch's message of one, is the error or what it was raised for."""
    while error is not None:
        if isinstance(error, MemoryError) or "DefaultCPUAllocator" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def _limit_memory() -> None:
    """MEMORY bytes more than are mapped now; a large mapping of a library counts, so the limit is relative."""
    pages = int(Path("/proc/self/statm").read_text().split()[0]) if Path("/proc/self/statm").exists() else None
    if pages is not None:
        bound = pages * resource.getpagesize() + MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (bound, resource.getrlimit(resource.RLIMIT_AS)[1]))


if __name__ == "__main__":
    faulthandler.enable()
    _child(*json.loads(sys.argv[1]), Path(sys.argv[2]))
