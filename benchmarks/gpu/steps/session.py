"""All processes of a session: found, waited for and ended together, also where what started them was killed.

A command that starts a session (`start_new_session`) gives it its own number. What it starts is of it too, and stays so
when the command itself has ended.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

KILLING = 10.0  # seconds at the most that what was killed may take, waiting for a device


def members(session: int) -> list[int]:
    """The processes of a session that still run."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, ValueError):  # it has ended
            state, _, _, of = (process / "stat").read_text().rpartition(")")[2].split()[:4]
            if int(of) == session and state not in "ZX":
                found.append(int(process.name))
    return found


def send(session: int, number: int) -> None:
    for process in members(session):
        with suppress(ProcessLookupError):
            os.kill(process, number)


def wait(session: int, seconds: float) -> bool:
    """Whether all of it has ended, after `seconds` at the most."""
    end = time.monotonic() + seconds
    while members(session):
        if time.monotonic() > end:
            return False
        time.sleep(0.2)
    return True


def end(session: int, grace: float) -> bool:
    """Ask all of it to end, and kill what has not after `grace` seconds; True where none had to be killed."""
    send(session, signal.SIGTERM)
    if wait(session, grace):
        return True
    stop = time.monotonic() + KILLING
    while members(session) and time.monotonic() < stop:  # again: one may have started another meanwhile
        send(session, signal.SIGKILL)
        time.sleep(0.05)
    return False


class Guard:
    """Ends the session that it was told of last when this process ends, however that comes."""

    def __init__(self) -> None:
        self._process = subprocess.Popen([sys.executable, "-I", "-S", __file__], stdin=subprocess.PIPE,
                                         start_new_session=True)

    def watch(self, session: int) -> None:
        """0: none."""
        self._process.stdin.write(b"%d\n" % session)
        self._process.stdin.flush()

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait()


def _guard() -> None:
    session = 0
    for line in sys.stdin:
        session = int(line)
    if session:
        end(session, 0)


if __name__ == "__main__":
    _guard()
