"""The native runner's threads: in forked children, where too few can be started, where memory runs out, and how many
may be asked for.

Each case runs in a process of its own with a time limit, so that a hang fails.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from universeg_rt import Segmenter
from universeg_rt.errors import InputError
from universeg_rt.runners.threads import MAX_THREADS, cores, quota

from ...conftest import discs

OPENED = """
import gc, multiprocessing, os, resource, signal, sys, threading
import numpy as np
from universeg_rt import Segmenter, SupportSet
from universeg_rt.errors import RunnerError

os.register_at_fork(after_in_child=lambda: signal.alarm(20))  # no child outlives a hang
arrays = np.load(sys.argv[2])
images, labels = arrays["images"], arrays["labels"]

def opened(threads):
    segmenter = Segmenter.open(sys.argv[1], runner="native", threads=threads)
    return segmenter, segmenter.prepare(SupportSet.from_arrays(images[:4], labels[:4]))

def limit_memory(more):
    size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + more, -1))

segmenter, task = opened(3)
want = task.predict(images[5]).probability

def use():
    assert np.array_equal(task.predict(images[5]).probability, want)

def in_child(check):
    child = os.fork()
    if not child:
        check()
        sys.exit(0)  # as a worker of a server does: every object goes
    assert os.waitpid(child, 0)[1] == 0
"""

CASES = {
    "exit": "in_child(lambda: None)",
    "use": "in_child(use)",
    "drop": """
def drop():
    global segmenter, task
    segmenter = task = None
    gc.collect()
in_child(drop)
use()
""",
    "use in a grandchild": "in_child(lambda: (in_child(use), use()))",
    "open anew": """
def again():
    global task
    task = opened(2)[1]
    use()
in_child(again)
""",
    "multiprocessing": """
with multiprocessing.get_context("fork").Pool(2) as pool:
    for probability in pool.map_async(lambda_free, range(6)).get(30):
        assert np.array_equal(probability, want)
""",
    "fork while another thread predicts": """
stop = threading.Event()
def predict():
    while not stop.is_set():
        use()
callers = [threading.Thread(target=predict) for _ in range(2)]
for caller in callers:
    caller.start()
try:
    for _ in range(8):
        in_child(use)
finally:
    stop.set()
    for caller in callers:
        caller.join()
use()
""",
}


def run(code: str, bundle, tmp_path, **environment: str) -> subprocess.CompletedProcess:
    pytest.importorskip("universeg_rt._native",
                        reason="the native runner is not built here: reinstall where there is a C++ compiler")
    images, labels = discs(6)
    np.savez(tmp_path / "arrays.npz", images=images, labels=labels)
    (tmp_path / "case.py").write_text(OPENED + code)
    done = subprocess.run(
        [sys.executable, str(tmp_path / "case.py"),
         str(bundle), str(tmp_path / "arrays.npz")], capture_output=True, text=True, timeout=120,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1", **environment})
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.parametrize("name", CASES)
def test_a_forked_child(small_bundle, tmp_path, name):
    code = CASES[name].replace("lambda_free", "predicted")
    run("def predicted(_):\n    return task.predict(images[5]).probability\n" + code, small_bundle, tmp_path)


@pytest.fixture
def few_threads(tmp_path):
    """A library to load first; after its fail_after(n), pthread_create starts n threads and no more."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or not sys.platform.startswith("linux"):
        pytest.skip("a C compiler and Linux are needed")
    (tmp_path / "few.c").write_text("""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
static int left = 1 << 30;
void fail_after(int n) { left = n; }
typedef int (*create)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
int pthread_create(pthread_t *t, const pthread_attr_t *a, void *(*f)(void *), void *x) {
  return left-- <= 0 ? EAGAIN : ((create)dlsym(RTLD_NEXT, "pthread_create"))(t, a, f, x);
}
""")
    subprocess.run([compiler, "-shared", "-fPIC",
                    str(tmp_path / "few.c"), "-o",
                    str(tmp_path / "few.so"), "-ldl"], check=True)
    return str(tmp_path / "few.so")


@pytest.mark.parametrize("count", [0, 1, 5])
def test_as_many_threads_as_can_be_started(small_bundle, tmp_path, few_threads, count):
    run(f"""
import ctypes
fail_after = ctypes.CDLL(None).fail_after
fail_after({count})
segmenter, task = opened(9)
assert segmenter.runner.notes == ("{count + 1} of 9 threads: this process can start no more",), segmenter.runner.notes
assert segmenter.runner.notes[0] in segmenter.runner.reason
assert segmenter.runner.threads == {count + 1}, segmenter.runner.threads
use()
def fewer():
    fail_after({count // 2})
    use()
in_child(fewer)
use()
""", small_bundle, tmp_path, LD_PRELOAD=few_threads)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize("megabytes", [120, 280])
def test_threads_leave_room_where_memory_is_limited(small_bundle, tmp_path, megabytes):
    run(f"""
limit_memory({megabytes} * 2**20)
segmenter, task = opened({MAX_THREADS})
assert segmenter.runner.notes[0].startswith(f"{{segmenter.runner.threads}} of {MAX_THREADS} threads")
assert segmenter.runner.threads < {MAX_THREADS}
use()
in_child(use)
""", small_bundle, tmp_path)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_out_of_memory_is_a_runner_error(small_bundle, tmp_path):
    run(
        """
many = np.tile(images[:4], (200, 1, 1)), np.tile(labels[:4], (200, 1, 1))
large = segmenter.prepare(SupportSet.from_arrays(*(np.kron(array, np.ones((1, 4, 4))) for array in many)))
limit_memory(4 * 2**20)
try:
    large.predict(images[5])
except RunnerError as error:
    assert "not enough memory" in str(error) and "fewer entries" in str(error), error
else:
    raise AssertionError("it did not run out of memory")
resource.setrlimit(resource.RLIMIT_AS, (-1, -1))
use()
""", small_bundle, tmp_path)


@pytest.mark.parametrize("threads", [0, -1, MAX_THREADS + 1, 1000, 2.0, True, "2"])
def test_numbers_of_threads_that_are_refused(small_bundle, threads):
    for runner in ("native", "onnxruntime", "auto"):
        with pytest.raises(InputError, match=f"threads is .*from 1 to {MAX_THREADS}"):
            Segmenter.open(small_bundle, runner=runner, threads=threads)


def test_the_most_threads_change_no_bit(small_bundle, tmp_path):
    run(f"task = opened({MAX_THREADS})[1]\nuse()\nin_child(use)\n", small_bundle, tmp_path)


def test_the_default_keeps_to_the_bound(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(4 * MAX_THREADS)), raising=False)
    assert cores() == MAX_THREADS


@pytest.mark.parametrize("own, files, granted", [
    ("0::/", {"cpu.max": "150000 100000"}, 1.5),
    ("0::/a/b", {"a/cpu.max": "200000 100000", "a/b/cpu.max": "max 100000", "cpu.max": "max 100000"}, 2.0),
    ("0::/a", {"a/cpu.max": "max 100000"}, float("inf")),
    ("4:cpu,cpuacct:/d", {"cpu,cpuacct/d/cpu.cfs_quota_us": "50000", "cpu,cpuacct/d/cpu.cfs_period_us": "100000"}, 0.5),
    ("4:cpu:/", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, float("inf")),
    ("3:memory:/", {"memory/cpu.max": "100000 100000"}, float("inf")),
    ("0::/", {"cpu.max": "nonsense"}, float("inf")),
    (None, {"cpu.max": "100000 100000"}, float("inf"))])
def test_what_cgroups_grant(tmp_path, own, files, granted, monkeypatch):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text + "\n")
    if own is not None:
        (tmp_path / "own").write_text(own + "\n")
    assert quota(tmp_path, tmp_path / "own") == granted
    here = cores()
    monkeypatch.setattr("universeg_rt.runners.threads.quota", lambda: granted)
    assert 1 <= cores() <= max(1, granted) and cores() <= here
