"""One step on a GPU machine: its parts as processes with a time each, a log that outlives a kill, few small files."""

from __future__ import annotations

import argparse
import importlib.machinery
import json
import os
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from universeg_rt.checkout import ROOT, make_importable_for_children
from universeg_rt.cli.common import run_command
from universeg_rt.errors import InputError, OutputError
from universeg_rt.storage.atomic import make_folder, write_file

from . import plan, session

FILES, BYTES = 8, 16 << 20  # that a step leaves: so many files, each of so many bytes at the most
GRACE = 5.0  # seconds between asking a part to end and ending it


class Step:
    """out: what goes home. work: stays on the machine for later steps. seconds: after which nothing of it runs.

    `OUT/NAME.jsonl` gets a line for all that happens, at once and on the disk.
    """

    def __init__(self, name: str, out: Path, work: Path, seconds: float, device: str, upload: Path) -> None:
        self.name, self.device, self.upload = name, device, upload
        self.out, self.work = make_folder(out).absolute(), make_folder(work).absolute()
        self._began, self._deadline = time.monotonic(), time.monotonic() + seconds
        make_importable_for_children(self.work / "site")
        sites = [str(path) for path in sorted((self.work / "runtimes").glob("*")) if path.is_dir()]
        self.environment = {**os.environ, "PYTHONPATH": os.pathsep.join([os.environ["PYTHONPATH"], *sites])}
        self._guard = session.Guard()
        self.note("begin", seconds=seconds, device=device, missing={
            each: plan.WANTS[each] for each in plan.STEPS[name].needs if _is_missing(each, sites)})

    @property
    def small(self) -> bool:
        """A rehearsal: toy sizes."""
        return self.device == "cpu"

    def left(self) -> float:
        """Seconds, those kept back for ending apart."""
        return max(0.0, self._deadline - time.monotonic() - GRACE)

    def note(self, what: str, **values: object) -> None:
        line = {"what": what, "at": round(time.monotonic() - self._began, 2), **values}
        with open(self.out / f"{self.name}.jsonl", "a") as file:
            file.write(json.dumps(line) + "\n")
            file.flush()
            os.fsync(file.fileno())
        print(json.dumps(line), flush=True)

    def part(self, name: str, module: str, *words: object, seconds: float, limit: str = "--time-limit") -> bool:
        """Run a module's command with `seconds` at the most, or what is left; True where it ends well in time.

        limit: its own option of that meaning, by which it ends before it is killed; empty: it has none.
        """
        seconds = min(seconds, self.left())
        if seconds < 1:
            self.note(name, ended="not begun: no time is left")
            return False
        command = [sys.executable, "-m", module, *map(str, words)]
        if limit:
            command += [limit, f"{max(1.0, seconds - 2 * GRACE):.0f}"]
        log = self.work / f"{self.name}_{name}.log"
        with open(log, "wb") as said:
            process = subprocess.Popen(command, stdout=said, stderr=subprocess.STDOUT, env=self.environment,
                                       start_new_session=True)
            self._guard.watch(process.pid)
            ended, status = "", None
            try:
                status = process.wait(seconds)
            except subprocess.TimeoutExpired:
                ended = f"ended after its {seconds:.0f} s"
            finally:  # what it started too
                session.end(process.pid, GRACE)
                self._guard.watch(0)
                process.poll()
        lines = log.read_text(errors="replace").splitlines()
        self.note(name, status=status, ended=ended or "by itself", said=[line[:200] for line in lines[-12:]])
        return status == 0

    def close(self) -> None:
        """Put what is too much or too large into one archive, in parts; OutputError where even that is too much."""
        self._guard.close()
        keep = self.out / f"{self.name}.jsonl"
        others = [path for path in sorted(self.out.rglob("*")) if path.is_file() and path != keep]
        if len(others) + 1 > FILES or any(path.stat().st_size > BYTES for path in others):
            archive(self.out, others, self.out / "results.tar", self.work)
            for path in others:
                path.unlink()
        found = [path for path in self.out.rglob("*") if path.is_file()]
        self.note("end", files=len(found))
        if len(found) > FILES:
            raise OutputError(f"{self.out} holds {len(found)} files; no more than {FILES} go home")


def _is_missing(module: str, sites: list[str]) -> bool:
    """Whether a part would not find it; nothing is imported."""
    return importlib.machinery.PathFinder.find_spec(module, [*sites, *sys.path]) is None


def archive(root: Path, files: list[Path], target: Path, work: Path) -> list[Path]:
    """Files below `root` as TARGET, or as TARGET.00, TARGET.01 ... of at most BYTES where it is larger."""
    whole = work / f"{target.name}.whole"
    with tarfile.open(whole, "w") as tar:
        for path in files:
            tar.add(path, path.relative_to(root).as_posix())
    written, size = [], whole.stat().st_size
    with open(whole, "rb") as source:
        for number in range(max(1, -(-size // BYTES))):
            name = target if size <= BYTES else target.with_name(f"{target.name}.{number:02}")
            with write_file(name) as file:
                file.write(source.read(BYTES))
            written.append(name)
    whole.unlink()
    return written


def main(name: str, description: str, body: Callable[[Step, argparse.Namespace], bool],
         add: Callable[[argparse.ArgumentParser], object] = lambda parser: None,
         arguments: list[str] | None = None) -> int:
    """The command of a step. Exit status 0 where all of it ended well."""
    parser = argparse.ArgumentParser(prog=f"{name}.py", description=description)
    parser.add_argument("--out", type=Path, required=True, help="folder for what goes home")
    parser.add_argument("--work", type=Path, default=Path("/tmp/universeg_rt_steps"),
                        help="folder on the machine that later steps find again (%(default)s)")
    parser.add_argument("--upload", type=Path, default=ROOT / "upload",
                        help="what beforehand.py made (%(default)s)")
    parser.add_argument("--seconds", type=float, default=plan.STEPS[name].seconds,
                        help="after which it has ended (%(default)s)")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu: a rehearsal at toy sizes")
    add(parser)

    def run(options: argparse.Namespace) -> int:
        if options.seconds < 3 * GRACE:
            raise InputError(f"--seconds {options.seconds:g}: give at least {3 * GRACE:g}")
        step = Step(name, options.out, options.work, options.seconds, options.device, options.upload)
        with _closing(step):
            return 0 if body(step, options) else 1

    return run_command(run, parser, arguments)


@contextmanager
def _closing(step: Step) -> Iterator[None]:
    try:
        yield
    except BaseException as error:
        step.note("failed", why=f"{type(error).__name__}: {error}")
        raise
    finally:
        step.close()
