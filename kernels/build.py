"""Builds the native parts with CMake: the CPU build of the kernels, the CUDA library, the TensorRT plugin.

    python -m universeg_rt.kernels.build                    everything that can be built here; says what was skipped
    python -m universeg_rt.kernels.build --host             only the CPU build (needs pybind11 and a C++ compiler)
    python -m universeg_rt.kernels.build --cuda --arch 90   only the CUDA library, for one architecture
    python -m universeg_rt.kernels.build --plugin --tensorrt-include /usr/include/x86_64-linux-gnu

Installing universeg_rt never runs this, unless UNIVERSEG_RT_BUILD_KERNELS=1 is set (setup.py). Uses the standard
library only, so that it also runs as a script from a plain checkout.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass, field
from pathlib import Path

try:
    from universeg_rt.errors import RunnerError
except ImportError:  # run as a script where the package and what it imports are not installed

    class RunnerError(Exception):
        """Stands in for universeg_rt.errors.RunnerError."""


SOURCE = Path(__file__).resolve().parent
PARTS = ("host", "cuda", "plugin")
BROUGHT = "built_for.json"
SKIPPED = re.compile(r"-- (host module|CUDA library|TensorRT plugin): skipped, (.*)")


@dataclass
class Built:
    """Files that a build made, and why the others were not: part -> reason."""

    host: Path | None = None
    library: Path | None = None
    selftest: Path | None = None
    plugins: list[Path] = field(default_factory=list)
    plugin_selftests: list[Path] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)


def build(parts=PARTS, *, build_dir: Path, architectures: str | None = None, tensorrt_include: list[str] | None = None,
          cuda_flags: str | None = None) -> Built:
    """Configures and builds `parts` in `build_dir` (again only what changed). RunnerError where a tool fails.

    architectures: CMAKE_CUDA_ARCHITECTURES, such as "90" or "native"; None builds all that the project supports.
    tensorrt_include: folders with NvInfer.h, a plugin for each; None looks into TENSORRT_INCLUDE and the usual places.
    """
    cmake = tool("cmake")
    if cmake is None:
        raise RunnerError("cmake was not found; install it (pip install cmake ninja, or apt install cmake ninja-build)")
    build_dir = Path(build_dir)
    build_dir.mkdir(parents=True, exist_ok=True)
    command = [cmake, "-S", str(SOURCE), "-B", str(build_dir), f"-DPython3_EXECUTABLE={sys.executable}"]
    for part in PARTS:
        command.append(f"-DSUPPORT_MEAN_{part.upper()}={'ON' if part in parts else 'OFF'}")
    ninja = tool("ninja")
    if ninja is not None and not (build_dir / "Makefile").exists():
        command += ["-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={ninja}"]
    pybind11 = _pybind11_folder()
    if pybind11 is not None:
        command.append(f"-Dpybind11_DIR={pybind11}")
    if architectures is not None:
        command.append(f"-DCMAKE_CUDA_ARCHITECTURES={architectures}")
    if cuda_flags is not None:
        command.append(f"-DCMAKE_CUDA_FLAGS={cuda_flags}")
    folders = tensorrt_include if tensorrt_include is not None else _from_environment()
    command.append(f"-DTENSORRT_INCLUDE={';'.join(folders)}")
    if "CUDACXX" not in os.environ and shutil.which("nvcc") is None and Path("/usr/local/cuda/bin/nvcc").exists():
        os.environ["CUDACXX"] = "/usr/local/cuda/bin/nvcc"
    told = _run(command, build_dir / "configure.log")
    names = {"host module": "host", "CUDA library": "cuda", "TensorRT plugin": "plugin"}
    out = Built(skipped={names[part]: why for part, why in SKIPPED.findall(told) if names[part] in parts})
    _run([cmake, "--build", str(build_dir), "--parallel", str(os.cpu_count() or 1)], build_dir / "build.log")
    lib, programs = build_dir / "lib", build_dir / "bin"
    if "host" in parts and "host" not in out.skipped:
        out.host = lib / f"_support_mean_host{sysconfig.get_config_var('EXT_SUFFIX')}"
    if "cuda" in parts and "cuda" not in out.skipped:
        out.library, out.selftest = lib / "libsupport_mean.so", programs / "support_mean_selftest"
    if "plugin" in parts and "plugin" not in out.skipped:
        versions = re.findall(r"TensorRT plugin: will be built for TensorRT ([0-9.]+)", told)
        out.plugins = [lib / f"libuniverseg_rt_plugin_trt{v}.so" for v in versions]
        out.plugin_selftests = [programs / f"universeg_rt_plugin_trt{v}_selftest" for v in versions]
    for path in (out.host, out.library, out.selftest, *out.plugins):
        if path is not None and not path.exists():
            raise RunnerError(f"the build ended well and {path} is not there; see {build_dir / 'build.log'}")
    return out


def install(built: Built, folder: Path) -> list[Path]:
    """Copies the products to where the package looks for them: the module to `folder`, libraries to `folder/lib`."""
    copies = [(built.host, folder)] if built.host else []
    copies += [(path, folder / "lib") for path in (built.library, built.selftest, *built.plugins) if path is not None]
    out = []
    try:
        for path, to in copies:
            to.mkdir(parents=True, exist_ok=True)
            temporary = to / f".{path.name}.new"
            shutil.copy2(path, temporary)
            os.replace(temporary, to / path.name)  # a process that has the old library open keeps it
            out.append(to / path.name)
    except OSError as error:
        raise RunnerError(f"cannot write {folder}: {error}; choose a folder with --out") from None
    return out


def bring(built: Built, architecture: str, folder: Path) -> None:
    """Puts the CUDA library and its self-test where a build would, with what they are of, for machines of this
    architecture; `brought` takes them there."""
    for path, part in ((built.library, "lib"), (built.selftest, "bin")):
        (folder / part).mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, folder / part / path.name)
    state_sources(folder, architecture)


def state_sources(folder: Path, architecture: str) -> None:
    """Says beside a build of what it is, for `brought`."""
    (folder / BROUGHT).write_text(json.dumps({"architecture": architecture, "sources": _digest_of_sources()}))


def brought(folder: Path, architecture: str) -> Built | None:
    """What `bring` or a build put there, where it is whole, of these sources and for this architecture ("native": any).

    A transfer may have lost the self-test's executable bit; it is set again.
    """
    try:
        said = json.loads((folder / BROUGHT).read_text())
    except (OSError, ValueError):
        return None
    if said["sources"] != _digest_of_sources() or architecture not in ("native", said["architecture"]):
        return None
    library, selftest = folder / "lib" / "libsupport_mean.so", folder / "bin" / "support_mean_selftest"
    if not (library.is_file() and selftest.is_file()):
        return None
    if not os.access(selftest, os.X_OK):
        selftest.chmod(selftest.stat().st_mode | 0o111)
    return Built(library=library, selftest=selftest)


def _digest_of_sources() -> str:
    kinds = (".cu", ".cuh", ".cpp", ".h")
    files = [path for path in sorted((SOURCE / "support_mean").rglob("*")) if path.suffix in kinds]
    contents = [f"{path.relative_to(SOURCE)} {hashlib.sha256(path.read_bytes()).hexdigest()}" for path in files]
    return hashlib.sha256("\n".join(contents).encode()).hexdigest()


def tool(name: str) -> str | None:
    """A program on the PATH or, as pip installs cmake and ninja, beside the Python interpreter."""
    return shutil.which(name) or shutil.which(name, path=str(Path(sys.executable).parent))


def _from_environment() -> list[str]:
    return [folder for folder in os.environ.get("TENSORRT_INCLUDE", "").split(os.pathsep) if folder]


def _pybind11_folder() -> str | None:
    told = subprocess.run([sys.executable, "-m", "pybind11", "--cmakedir"], capture_output=True, text=True)
    return told.stdout.strip() if told.returncode == 0 else None


def _run(command: list[str], log: Path) -> str:
    """Output of a command, also kept in `log`; RunnerError with its last lines where it fails."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    log.write_text(done.stdout)
    if done.returncode != 0:
        lines = [line for line in done.stdout.splitlines() if line.strip()]
        first = next((i for i, line in enumerate(lines) if "error" in line.lower()), max(0, len(lines) - 4))
        raise RunnerError(f"{Path(command[0]).name} failed; {log} holds its output. It said: "
                          + " ".join(line.strip() for line in lines[first : first + 4]))
    return done.stdout


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m universeg_rt.kernels.build", description=__doc__.split("\n")[0])
    parser.add_argument("--host", action="store_true", help="the CPU build of the kernels, a Python module")
    parser.add_argument("--cuda", action="store_true", help="the CUDA library and its self-test")
    parser.add_argument("--plugin", action="store_true", help="the TensorRT plugin")
    parser.add_argument("--arch", help="CUDA architectures, separated by ; (default: 75 80 86 89 90, or say native)")
    parser.add_argument("--tensorrt-include", action="append", metavar="DIR",
                        help="folder with NvInfer.h; may be repeated")
    parser.add_argument("--build-dir", type=Path, default=Path("build/universeg_rt_kernels"),
                        help="default: %(default)s")
    parser.add_argument("--out", type=Path, default=SOURCE,
                        help="where the package looks for the products: its own folder")
    options = parser.parse_args(arguments)
    parts = [part for part in PARTS if getattr(options, part)] or list(PARTS)
    try:
        built = build(parts, build_dir=options.build_dir, architectures=options.arch,
                      tensorrt_include=options.tensorrt_include)
        for path in install(built, options.out):
            print(f"built {path}")
    except RunnerError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for part, why in built.skipped.items():
        print(f"skipped {part}: {why}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
