"""Runs a check or benchmark step by step and keeps a result file that is whole after each change."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from universeg_rt.storage.atomic import write_json

# A step fills in its entry of the result file: `passed` and, where that is not True, `why`.
Step = Callable[[dict], None]


class Report:
    """The result file: a dictionary that is written whole after each change."""

    def __init__(self, path: Path, values: Mapping[str, object]) -> None:
        self.path, self.started = path, time.monotonic()
        self.values: dict = {"passed": None, **values, "steps": {}}

    def write(self) -> None:
        self.values["seconds"] = round(time.monotonic() - self.started, 2)
        write_json(self.path, self.values)

    def say(self, line: str) -> None:
        print(f"[{time.monotonic() - self.started:6.1f} s] {line}", flush=True)

    def run(self, steps: Mapping[str, Step], needed: Collection[str], time_limit: float) -> bool:
        """Run the steps in order; True where none failed. A step that fails does not stop those after it, unless it is
        among those `needed` by them. No step starts after `time_limit` seconds."""
        results = self.values["steps"]
        for name, step in steps.items():
            entry = results[name] = {"passed": None}
            began = time.monotonic()
            if began > self.started + time_limit:
                entry.update(passed=False, why=f"not run: the time limit of {time_limit:g} s was reached")
            else:
                try:
                    step(entry)
                    if entry["passed"] is None and not entry.get("why"):
                        entry["passed"] = True
                except Exception as error:  # another version of a library may raise anything; others go on
                    entry.update(passed=False, why=f"{type(error).__name__}: {one_line(error)}")
            entry["seconds"] = round(time.monotonic() - began, 2)
            verdict = {True: "passed", False: "FAILED", None: "skipped"}[entry["passed"]]
            self.say(f"{name}: {verdict} in {entry['seconds']:.1f} s" +
                     (f" ({entry['why']})" if entry.get("why") else ""))
            self.write()
            if name in needed and entry["passed"] is False and began <= self.started + time_limit:
                break
        return all(entry["passed"] is not False for entry in results.values()) and len(results) == len(steps)


def one_line(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else f"{text[:297]}..."
