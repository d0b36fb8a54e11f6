"""Nothing is reported to anybody: in a fresh home no file but our own cache, no name looked up, no socket to the
network."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ..conftest import discs
from .test_support import write_folder

# What makes the runtimes' own reporting stay quiet in tests, so that a test would prove nothing.
QUIETING = ("CI", "GITHUB_ACTIONS", "TF_BUILD", "TRAVIS", "CIRCLECI", "JENKINS_URL", "GITLAB_CI", "TEAMCITY_VERSION",
            "BUILD_ID", "JENKINS_HOME", "ORT_DISABLE_TELEMETRY", "UNIVERSEG_RT_CACHE", "XDG_CACHE_HOME",
            "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME")

SHIM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
static void said(const char *what) {
    FILE *file = fopen(getenv("LOOK_UPS"), "a");
    if (file) { fprintf(file, "%s\n", what); fclose(file); }
}
int getaddrinfo(const char *node, const char *service, const struct addrinfo *hints, struct addrinfo **out) {
    said(node ? node : "getaddrinfo");
    return EAI_FAIL;
}
struct hostent *gethostbyname(const char *name) { said(name); return NULL; }
int connect(int handle, const struct sockaddr *address, socklen_t length) {
    if (address->sa_family == AF_INET || address->sa_family == AF_INET6) said("AF_INET connect");
    return ((int (*)(int, const struct sockaddr *, socklen_t))dlsym(RTLD_NEXT, "connect"))(handle, address, length);
}
"""


@pytest.fixture
def watched(tmp_path):
    """run(code, *arguments) -> (process, files below its fresh home, what it asked of the network), by strace or a
    library put before the system's; skips where there is neither."""
    home, log = tmp_path / "home", tmp_path / "network"
    home.mkdir()
    environment = {key: value
                   for key, value in os.environ.items()
                   if key not in QUIETING} | {"HOME": str(home), "PYTHONDONTWRITEBYTECODE": "1"}
    strace, compiler = shutil.which("strace"), shutil.which("cc") or shutil.which("gcc")
    if strace and subprocess.run([strace, "-f", "-o", os.devnull, "true"], capture_output=True).returncode == 0:
        before = [strace, "-f", "-qq", "-e", "trace=network,openat", "-o", str(log)]
    elif compiler and sys.platform == "linux":
        (tmp_path / "shim.c").write_text(SHIM)
        subprocess.run(
            [compiler, "-shared", "-fPIC", "-o",
             str(tmp_path / "shim.so"),
             str(tmp_path / "shim.c"), "-ldl"], check=True)
        before, environment = [], {**environment, "LD_PRELOAD": str(tmp_path / "shim.so"), "LOOK_UPS": str(log)}
    else:
        pytest.skip("watching native look-ups needs strace, or a C compiler on Linux")

    def run(code: str, *arguments: object):
        log.write_text("")
        done = subprocess.run([*before, sys.executable, "-c", code, *map(str, arguments)], env=environment,
                              capture_output=True, text=True, timeout=300)
        lines = log.read_text(errors="replace").splitlines()
        if before:
            lines = [line for line in lines if "AF_INET" in line or "resolv.conf" in line]
        files = sorted(p.relative_to(home).as_posix() for p in home.rglob("*") if p.is_file())
        return done, files, lines

    return run


PREDICT = """
import sys
import numpy as np
from universeg_rt import Segmenter, SupportSet

support = np.load(sys.argv[3])
segmenter = Segmenter.open(sys.argv[1], runner=sys.argv[2])
task = segmenter.prepare(SupportSet.from_arrays(support["images"], support["labels"]))
task.predict(support["images"][0])
print(segmenter.runner.name, *(m for m in ("onnxruntime", "openvino", "openvino_telemetry") if m in sys.modules))
"""


@pytest.mark.parametrize("runner", ["auto", "onnxruntime", "openvino"])
def test_a_prediction_tells_nobody(small_bundle, tmp_path, watched, runner):
    if runner == "openvino":
        pytest.importorskip("openvino", reason="openvino is not installed: pip install '.[openvino]'")
    images, labels = discs(3)
    np.savez(tmp_path / "support.npz", images=images, labels=labels)
    done, files, network = watched(PREDICT, small_bundle, runner, tmp_path / "support.npz")
    assert done.returncode == 0, done.stderr
    name, *loaded = done.stdout.split()
    assert [file for file in files if not file.startswith(".cache/universeg_rt/")] == [] and network == []
    assert loaded == [name] if name in ("onnxruntime",
                                        "openvino") else loaded == [], "a runtime that does not run was imported"
    assert bool(files) == (name == "openvino")


def test_the_command_tells_nobody(small_bundle, tmp_path, watched):
    write_folder(tmp_path / "support", *discs(3))
    code = ("import sys; from universeg_rt.cli.segment import main; status = main(sys.argv[1:])\n"
            "print(*(m for m in ('onnxruntime', 'openvino', 'torch') if m in sys.modules)); sys.exit(status)")
    done, files, network = watched(code, "--bundle", small_bundle, "--support", tmp_path / "support", "--input",
                                   tmp_path / "support" / "images", "--output", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert files == [] and network == []
    if (Path(tmp_path) / "out" / "report.json").read_text().count('"name": "native"'):
        assert done.stdout.splitlines()[-1] == ""


def test_the_watch_sees_a_look_up(watched):
    code = ("import os, socket\ntry: socket.getaddrinfo('universeg-rt.invalid', 80)\nexcept OSError: pass\n"
            "open(os.path.expanduser('~/x'), 'w')")
    _, files, network = watched(code)
    assert network and files == ["x"]


@pytest.mark.parametrize("given, expected", [(None, "1"), ("0", "0")])
def test_the_users_own_choice_stands(monkeypatch, given, expected):
    from universeg_rt.runners.libraries import ORT_TELEMETRY, import_onnxruntime

    monkeypatch.setenv(ORT_TELEMETRY, "x")  # so that the test leaves the variable as it was
    monkeypatch.delenv(ORT_TELEMETRY) if given is None else monkeypatch.setenv(ORT_TELEMETRY, given)
    import_onnxruntime()
    assert os.environ[ORT_TELEMETRY] == expected


def test_the_package_that_openvino_reports_by_can_still_be_imported_by_others():
    pytest.importorskip("openvino_telemetry", reason="openvino_telemetry is not installed")
    code = ("from universeg_rt.runners.libraries import import_openvino\nimport_openvino()\n"
            "import openvino_telemetry; print(openvino_telemetry.__name__)")
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True,
                          check=True).stdout.strip() == "openvino_telemetry"
