"""Files and folders appear whole or not at all."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time

import pytest

from universeg_rt import Bundle
from universeg_rt.errors import OutputError
from universeg_rt.storage import atomic
from universeg_rt.storage.atomic import write_file, write_folder


def names(folder):
    return sorted(p.name for p in folder.iterdir())


def test_a_file_is_replaced_only_when_whole(tmp_path):
    path = tmp_path / "f"
    path.write_text("old")
    with pytest.raises(RuntimeError):
        with write_file(path) as file:
            file.write(b"half")
            raise RuntimeError
    assert path.read_text() == "old" and names(tmp_path) == ["f"]
    with write_file(path) as file:
        file.write(b"new")
    assert path.read_text() == "new" and names(tmp_path) == ["f"]


def test_a_folder_is_replaced_only_when_whole(tmp_path):
    path = tmp_path / "d"
    for attempt in ("one", "two"):
        with write_folder(path) as folder:
            (folder / attempt).write_text(attempt)
        assert names(path) == [attempt] and names(tmp_path) == ["d"]
    with pytest.raises(KeyboardInterrupt):
        with write_folder(path) as folder:
            (folder / "three").write_text("")
            raise KeyboardInterrupt
    assert names(path) == ["two"] and names(tmp_path) == ["d"]


def test_where_nothing_can_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write"):
        with write_file(tmp_path / "file" / "x"):
            pass
    with pytest.raises(OutputError, match="cannot write"):
        with write_folder(tmp_path / "file" / "x"):
            pass
    with pytest.raises(OutputError, match="cannot write"):
        with write_folder(tmp_path / "new"):
            raise OSError(28, "No space left on device")
    assert names(tmp_path) == ["file"]


# Killed in the middle -------------------------------------------------------------------------------------------------

KILLED = """
import os, signal, sys
from pathlib import Path
from universeg_rt.storage import atomic

folder, exchange, what = Path(sys.argv[1]), sys.argv[2] == "exchange", sys.argv[3]
if not exchange:
    atomic._renameat2 = lambda: None
path, results = folder / "b", []

def write(text):
    if what == "file":
        with atomic.write_file(path) as file:
            file.write(text.encode())
    else:
        with atomic.write_folder(path) as new:
            (new / "f").write_text(text)

def read():
    if what == "file":
        return path.read_text()
    atomic.recover_folder(path)
    assert sorted(p.name for p in path.iterdir()) == ["f"]
    return (path / "f").read_text()

def killed_at(line):
    left = line
    def trace(frame, event, argument):
        nonlocal left
        if frame.f_code.co_filename != atomic.__file__:
            return None
        if event == "line":
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return trace
    sys.settrace(trace)

write("0")
for line in range(1, 150):
    child = os.fork()
    if child == 0:
        killed_at(line)
        write(str(line))
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    missing = not os.path.lexists(path)
    results.append(read())
    if missing:
        print("recovered at", line)
    if status == 0:
        break
    assert status == signal.SIGKILL, status
assert results[-1] == str(line) and "0" in results, results
for before, text in zip(["0"] + results, results):
    assert text in (before, str(results.index(text) + 1)), results
print("lines", line)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forked processes")
@pytest.mark.parametrize("what, how", [("file", "exchange"), ("folder", "exchange"), ("folder", "two renames")])
def test_killed_at_any_line_the_old_or_the_new_is_there(tmp_path, what, how):
    if how == "exchange" and what == "folder" and not _can_exchange(tmp_path):
        pytest.skip("names cannot be exchanged on this system")
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path), how, what], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    *recovered, lines = done.stdout.splitlines()
    assert int(lines.split()[1]) > 10
    assert bool(recovered) == (how == "two renames"), "with an exchange there is never a moment with nothing there"
    left = names(tmp_path)
    assert len(left) > 3 and all(name == "b" or name.endswith(atomic.TEMPORARY) for name in left)
    # An hour later the next write sweeps all of it.
    _make_old(tmp_path)
    with write_file(tmp_path / "c"):
        pass
    assert names(tmp_path) == ["b", "c"]


def _can_exchange(folder) -> bool:
    for name in "xy":
        (folder / name).write_text(name)
    done = atomic._exchange(folder / "x", folder / "y")
    for name in "xy":
        (folder / name).unlink()
    return done


def _make_old(folder, seconds: float = 2 * atomic.OLD) -> None:
    for path in folder.iterdir():
        os.utime(path, (time.time() - seconds,) * 2)


def test_a_bundle_taken_away_by_a_kill_comes_back_when_it_is_opened(small_bundle, tmp_path):
    taken = tmp_path / f".mine.abcd1234{atomic.TEMPORARY}"
    taken.mkdir()
    shutil.copytree(small_bundle, taken / atomic.REPLACED)
    assert Bundle.open(tmp_path / "mine").manifest == Bundle.open(small_bundle).manifest
    assert names(tmp_path) == ["mine"]


def test_a_sweep_leaves_what_lives_is_young_or_is_anothers(tmp_path, monkeypatch):
    monkeypatch.setattr(atomic, "_swept", set())
    others = [
        ".x.abcdefgh.tmp", ".universeg.tmp", "x.abcdefgh.universeg.tmp", ".x.ABCDEFGH.universeg.tmp",
        ".x.abc.universeg.tmp"
    ]
    for name in others + [".dead.abcdefg1.universeg.tmp"]:
        (tmp_path / name).write_text("")
    (tmp_path / ".kept.abcdefg1.universeg.tmp").symlink_to(tmp_path / ".x.abcdefgh.tmp")
    code = f"""
import sys
from universeg_rt.storage.atomic import write_file, write_folder
with write_file({str(tmp_path / "f")!r}) as file, write_folder({str(tmp_path / "d")!r}) as folder:
    print("ready", flush=True)
    sys.stdin.read()
"""
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          text=True) as process:
        assert process.stdout.readline() == "ready\n"
        _make_old(tmp_path)
        (tmp_path / ".young.abcdefg1.universeg.tmp").write_text("")
        atomic._sweep_once(tmp_path)
        left = names(tmp_path)
        process.communicate("")
    assert process.returncode == 0 and set(names(tmp_path)) >= {"f", "d"}
    assert set(others) < set(left) and ".dead.abcdefg1.universeg.tmp" not in left
    assert ".young.abcdefg1.universeg.tmp" in left and ".kept.abcdefg1.universeg.tmp" in left
    assert len([name for name in left if name.startswith((".f.", ".d."))]) == 2


def test_an_interrupt_between_two_renames_puts_the_old_folder_back(tmp_path, monkeypatch):
    path, real, calls = tmp_path / "d", os.rename, []
    with write_folder(path) as folder:
        (folder / "one").write_text("")
    monkeypatch.setattr(atomic, "_renameat2", lambda: None)

    def rename(source, target):
        real(source, target)
        calls.append(target)
        if len(calls) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(os, "rename", rename)
    with pytest.raises(KeyboardInterrupt):
        with write_folder(path) as folder:
            (folder / "two").write_text("")
    assert names(path) == ["one"] and names(tmp_path) == ["d"]


def test_what_is_written_can_be_locked_by_the_writer(tmp_path):
    """Engines are added to a bundle under a lock on its folder, also to one that is just being written."""
    fcntl = pytest.importorskip("fcntl", reason="this system has no such locks")
    with write_folder(tmp_path / "d") as folder:
        handle = os.open(folder, os.O_RDONLY)
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(handle)
