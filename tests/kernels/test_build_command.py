"""The build command: what cannot be built is skipped with its reason, what fails is one line, installing needs
nothing."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from universeg_rt.errors import RunnerError
from universeg_rt.kernels import build as build_module

ROOT = Path(__file__).resolve().parents[2]
PLACES = ("/usr/include", "/usr/include/x86_64-linux-gnu", "/usr/include/aarch64-linux-gnu",
          "/usr/local/tensorrt/include")


def nvcc() -> str | None:
    return os.environ.get("CUDACXX") or shutil.which("nvcc")


@pytest.fixture()
def cmake():
    if build_module.tool("cmake") is None:
        pytest.skip("cmake was not found (pip install cmake ninja)")


def test_parts_without_their_tools_are_skipped_with_the_reason(cmake, tmp_path, monkeypatch):
    monkeypatch.setenv("CUDACXX", str(tmp_path / "no-nvcc"))
    built = build_module.build(["cuda", "plugin"], build_dir=tmp_path / "b", tensorrt_include=[])
    assert "nvcc was not found" in built.skipped["cuda"] and "nvcc was not found" in built.skipped["plugin"]
    assert built.library is None and built.plugins == []


def test_plugin_headers_are_asked_for_and_checked(cmake, tmp_path, monkeypatch):
    """Without NvInfer.h the plugin is skipped, saying how to give it; a folder without it stops the build."""
    if nvcc() is None:
        pytest.skip("nvcc was not found (set CUDACXX)")
    if any((Path(place) / "NvInfer.h").exists() for place in PLACES):
        pytest.skip("this machine has NvInfer.h in a usual place")
    monkeypatch.delenv("TENSORRT_INCLUDE", raising=False)
    options = dict(build_dir=tmp_path / "b", architectures="90")
    assert "set TENSORRT_INCLUDE" in build_module.build(["plugin"], **options).skipped["plugin"]
    with pytest.raises(RunnerError, match="has no NvInfer.h"):
        build_module.build(["plugin"], tensorrt_include=[str(tmp_path)], **options)


def test_no_cmake_names_the_cure(tmp_path, monkeypatch):
    monkeypatch.setattr(build_module, "tool", lambda name: None)
    with pytest.raises(RunnerError, match="pip install cmake ninja"):
        build_module.build(build_dir=tmp_path)


def test_products_are_put_where_the_package_looks(tmp_path):
    (tmp_path / "libsupport_mean.so").write_bytes(b"library")
    built = build_module.Built(library=tmp_path / "libsupport_mean.so")
    assert build_module.install(built, tmp_path / "out") == [tmp_path / "out" / "lib" / "libsupport_mean.so"]
    (tmp_path / "file").write_text("")
    with pytest.raises(RunnerError, match="--out"):
        build_module.install(built, tmp_path / "file")


def test_the_command_runs_as_a_script_without_the_package(tmp_path):
    """As setup.py calls it: in an isolated environment with neither NumPy nor the package installed."""
    command = [sys.executable, "-I", "-S", ROOT / "kernels" / "build.py", "--help"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0 and "--tensorrt-include" in done.stdout


def build_without_tools(folder, native: str) -> subprocess.CompletedProcess:
    """setup.py's build step with a PATH that holds no tool at all; native: UNIVERSEG_RT_NATIVE."""
    environment = os.environ | {
        "PATH": "", "CXX": "no-such-compiler", "CC": "no-such-compiler", "UNIVERSEG_RT_BUILD_KERNELS": "0",
        "UNIVERSEG_RT_NATIVE": native
    }
    command = [
        sys.executable, "setup.py", "-q", "build", "--build-base", folder / "b", "egg_info", "--egg-base", folder
    ]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    if "No module named 'setuptools'" in done.stderr:
        pytest.skip("setuptools is missing (pip install setuptools)")
    return done


def test_a_native_part_that_is_required_and_cannot_be_built_fails(tmp_path):
    done = build_without_tools(tmp_path, "1")
    assert done.returncode != 0 and "no-such-compiler" in done.stderr


def test_installing_runs_no_compiler(tmp_path):
    done = build_without_tools(tmp_path, "")
    assert done.returncode == 0, done.stderr[-2000:]
    assert "WARNING: universeg_rt is built without its native CPU runner" in done.stderr
    assert "no-such-compiler" in done.stderr
    package = next((tmp_path / "b").glob("lib*")) / "universeg_rt" / "kernels"
    found = {path.relative_to(package).as_posix() for path in package.rglob("*") if path.is_file()}
    assert {
        "CMakeLists.txt", "README.md", "build.py", "support_mean/cuda/launch.cu", "support_mean/cuda/support_mean.h",
        "support_mean/cuda/storage.cuh", "support_mean/plugin/plugin.cpp", "support_mean/plugin/common.h"
    } <= found
    assert not any(name.endswith((".so", ".o")) for name in found)
    assert (package.parent / "training" / "MODEL_CARD.md").is_file(), "whoever installs the weights gets their card"


def test_what_was_built_elsewhere_is_taken_where_it_fits(tmp_path, monkeypatch):
    """Whole, of these sources and for this GPU; a stale library is built anew."""
    for name in ("libsupport_mean.so", "support_mean_selftest"):
        (tmp_path / name).write_text(name)
    made = build_module.Built(library=tmp_path / "libsupport_mean.so", selftest=tmp_path / "support_mean_selftest")
    folder = tmp_path / "kernels"
    assert build_module.brought(folder, "90") is None
    build_module.bring(made, "90", folder)
    for architecture in ("90", "native"):
        found = build_module.brought(folder, architecture)
        assert found.library.read_text() == "libsupport_mean.so" and found.selftest.is_file()
    (folder / "bin" / "support_mean_selftest").chmod(0o644)  # as a transfer may leave it
    assert os.access(build_module.brought(folder, "90").selftest, os.X_OK)
    assert build_module.brought(folder, "80") is None
    monkeypatch.setattr(build_module, "_digest_of_sources", lambda: "others")
    assert build_module.brought(folder, "90") is None
    monkeypatch.undo()
    (folder / "bin" / "support_mean_selftest").unlink()
    assert build_module.brought(folder, "90") is None


def test_the_check_takes_what_was_brought_and_builds_nothing(tmp_path, monkeypatch):
    from universeg_rt.kernels.support_mean.check import machine

    made = build_module.Built(library=tmp_path / "library", selftest=tmp_path / "selftest")
    monkeypatch.setattr(machine, "build", lambda *_, **__: pytest.fail("built"))
    monkeypatch.setattr(machine, "brought", lambda folder, architecture: made if architecture == "90" else None)
    state, entry = {"dry": False, "arch": "90", "build_dir": tmp_path}, {}
    machine.build_native(state, entry, lambda: None)
    assert state["built"] is made and entry["passed"] is True and "built elsewhere" in entry["why"]
