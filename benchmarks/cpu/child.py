"""A side in a process of its own, which runs one call when told and is idle otherwise; and the parent's end of it.

Threads, allocations and caches of one side cannot reach another's. Messages are lines of JSON through the child's
standard input and output; whatever a library prints goes to standard error, which is shown when the process dies.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, fields
from pathlib import Path

import numpy as np

from ..harness.case import Case
from ..harness.machine import matrix_rate, peak_bytes, settle
from .sides import ENVIRONMENTS, Files, Skipped, load

MATRIX = "matrix product"


class Died(Exception):
    """A side's process that ended by itself, or an error in it; the message is the reason."""


class Child:
    """A process that holds one side of one case. Raises Died where it does not answer, Skipped where it cannot run
    here."""

    def __init__(self, name: str, files: Files, case: Case, any_device: bool = False,
                 environment: dict[str, str] | None = None) -> None:
        self.name = name
        self._errors = tempfile.TemporaryFile()
        threads = {key: str(case.threads) for key in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors,
            env={**os.environ, **threads, **ENVIRONMENTS.get(name, {}), **(environment or {})}, text=True)
        paths = {f.name: str(getattr(files, f.name)) for f in fields(files)}
        try:
            self.opened = self.ask(do="load", name=name, files=paths, case=asdict(case), any_device=any_device)
        except BaseException:
            self.close()
            raise

    def ask(self, **message) -> dict:
        """Send a request, wait for its answer."""
        try:
            self._process.stdin.write(json.dumps(message) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except OSError:
            line = ""
        if not line:
            code = self._process.wait()
            self._errors.seek(0)
            last = (self._errors.read().decode(errors="replace").strip().splitlines() or ["it said nothing"])[-1]
            raise Died(f"its process ended with status {code}: {last}")
        answer = json.loads(line)
        if "skipped" in answer:
            raise Skipped(answer["skipped"])
        if "error" in answer:
            raise Died(answer["error"])
        return answer

    def call(self) -> dict[str, float]:
        """Seconds of one call by part."""
        return self.ask(do="call")["seconds"]

    def logits(self) -> np.ndarray:
        """What the last call gave, (B,K,1,H,W)."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "logits.npy"
            self.ask(do="logits", path=str(path))
            return np.load(path)

    def close(self) -> None:
        if self._process.poll() is None:
            self._process.stdin.close()
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._process.stdout.close()
        self._errors.close()


def _serve() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print must not mix with the answers
    side = case = last = None
    for line in sys.stdin:
        message = json.loads(line)
        answer: dict = {}
        try:
            if message["do"] == "load":
                start = time.perf_counter()
                case = Case(**message["case"])
                if message["name"] != MATRIX:
                    files = Files(**{key: Path(value) for key, value in message["files"].items()})
                    side = load(message["name"], files, case, message["any_device"])
                    answer = {"load_s": time.perf_counter() - start, **side.facts}
            elif message["do"] == "call" and side is None:
                answer = {"seconds": {"rate": matrix_rate(case.threads)}}
            elif message["do"] == "call":
                last = side.call()
                answer = {"seconds": last.seconds}
            elif message["do"] == "logits":
                np.save(message["path"], last.logits)
            elif message["do"] == "peak":
                answer = {"bytes": peak_bytes()}
            elif message["do"] == "estimate":
                answer = side.estimate() if side.estimate is not None else {}
        except Skipped as error:
            answer = {"skipped": str(error)}
        except Exception as error:  # the parent decides what it means
            answer = {"error": f"{type(error).__name__}: {(str(error).strip().splitlines() or ['no reason given'])[0]}"}
        settle()
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    _serve()
