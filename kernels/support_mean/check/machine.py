"""The steps outside Python: what machine this is, the build, the self-test, and the memory and race checkers."""

from __future__ import annotations

import math
import os
import platform
import shutil
import subprocess
import time
from pathlib import Path

from universeg_rt.errors import RunnerError

from ...build import brought, build, state_sources, tool

TOOLS = ("memcheck", "racecheck", "initcheck", "synccheck")
# What each checker prints when it found nothing.
CLEAN = "ERROR SUMMARY: 0 errors", "RACECHECK SUMMARY: 0 hazards"
NOT_HERE = "Device not supported"  # under some virtual machines


def describe() -> dict:
    """Names and versions that a measurement depends on; what cannot be found out is None."""
    out = {
        "python": platform.python_version(), "processor": platform.machine(), "cores": os.cpu_count(),
        "nvcc": _last_line(["nvcc", "--version"], "release"),
        "gpu": _last_line(["nvidia-smi", "--query-gpu=name,driver_version,memory.total,clocks.sm,clocks.mem",
                           "--format=csv,noheader"]),
    }
    try:
        import torch

        out["torch"] = torch.__version__
        if torch.cuda.is_available():
            p = torch.cuda.get_device_properties(0)
            out |= {"device": p.name, "compute_capability": f"{p.major}.{p.minor}",
                    "multiprocessors": p.multi_processor_count, "l2_bytes": getattr(p, "L2_cache_size", None),
                    "memory_bytes": p.total_memory, "cudnn": torch.backends.cudnn.version()}
    except ImportError:
        out["torch"] = None
    return out


def build_native(state: dict, entry: dict, write) -> None:
    """Builds the CUDA library and the self-test; on a dry run also the CPU build, and CUDA only where nvcc is found."""
    dry, arch = state["dry"], state["arch"]
    parts = ["host"] if dry else ["cuda"]
    if dry and tool("nvcc") and arch != "native":
        parts.append("cuda")
    if arch == "native":
        arch = own_architecture()
    entry["architecture"] = arch
    if not dry and (earlier := brought(Path(state["build_dir"]), arch)):
        state["built"] = earlier
        entry.update(passed=True, why=f"built elsewhere or earlier, of these sources: {state['build_dir']}")
        return
    built = build(parts, build_dir=Path(state["build_dir"]), architectures=arch if "cuda" in parts else None)
    state["built"] = built
    entry["skipped"] = built.skipped
    missing = [part for part in parts if part in built.skipped]
    if missing:
        entry["why"] = "; ".join(f"{part}: {built.skipped[part]}" for part in missing)
    entry["passed"] = not missing
    if not dry and entry["passed"]:
        state_sources(Path(state["build_dir"]), arch)


def own_architecture() -> str:
    """The GPU's own, as CMake writes it; "native" leaves the question to CMake."""
    try:
        import torch

        return "{}{}".format(*torch.cuda.get_device_capability(0)) if torch.cuda.is_available() else "native"
    except ImportError:
        return "native"


def run_selftest(state: dict, entry: dict, write) -> None:
    """Every kernel on small awkward problems, the GPU against the same code on the CPU, in a process without Python."""
    program = state["built"].selftest
    if program is None:
        entry.update(passed=None,
                     why="skipped: a dry run builds it where nvcc is found and --arch is given, such as 90")
        return
    command = [str(program)] + (["--dry-run", "--quick"] if state["dry"] else [])
    left = state.get("deadline", math.inf) - time.monotonic()  # half of it: a kernel that hangs is not all that is seen
    done = _run(command, max(1.0, min(240.0, left / 2)))
    lines = done[1].strip().splitlines() or ["no output"]
    wrong = [line for line in lines if line.startswith("FAILED")]
    entry.update(command=command[1:], wrong=wrong[:20], output="\n".join(lines[-20:]), passed=done[0] == 0)
    state["say"](lines[-1])
    if not entry["passed"]:
        entry["why"] = f"exit status {done[0]}: {wrong[0] if wrong else '; '.join(lines[-2:])}"


def run_sanitizers(state: dict, entry: dict, write) -> None:
    """compute-sanitizer's four checkers over the self-test; each must report nothing."""
    sanitizer = shutil.which("compute-sanitizer") or shutil.which("compute-sanitizer", path="/usr/local/cuda/bin")
    if state["dry"] or sanitizer is None:
        why = "a dry run has no GPU" if state["dry"] else "compute-sanitizer was not found"
        entry.update(passed=None, why=f"skipped: {why}")
        return
    entry["tools"] = {}
    for name in TOOLS:
        command = [sanitizer, "--tool", name, "--error-exitcode", "9", str(state["built"].selftest), "--quick"]
        left = state["deadline"] - time.monotonic()
        if left < 5:
            entry.update(passed=False, why=f"the time limit was reached before {name}")
            return
        status, output = _run(command, min(180, left))
        clean = status == 0 and any(line in output for line in CLEAN)
        if NOT_HERE in output:
            entry.update(passed=None, why=f"skipped: compute-sanitizer says: {NOT_HERE}")
            return
        entry["tools"][name] = {"clean": clean, "status": status, "output": output[-2000:]}
        state["say"](f"{name}: {'clean' if clean else 'NOT CLEAN'}")
        write()
    entry["passed"] = all(found["clean"] for found in entry["tools"].values())
    if not entry["passed"]:
        entry["why"] = "not clean: " + ", ".join(n for n, found in entry["tools"].items() if not found["clean"])


def _run(command: list[str], limit: float) -> tuple[int, str]:
    """(exit status, output); 124 where the limit in seconds was reached."""
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=limit)
        return done.returncode, done.stdout
    except subprocess.TimeoutExpired as stopped:
        text = stopped.stdout or b""
        if isinstance(text, bytes):
            text = text.decode(errors="replace")
        return 124, f"{text}\nstopped after {limit:g} s"
    except OSError as error:
        raise RunnerError(f"cannot run {command[0]}: {error}") from None


def _last_line(command: list[str], word: str = "") -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return None
    lines = [line.strip() for line in done.stdout.splitlines() if word in line]
    return lines[-1] if done.returncode == 0 and lines else None
