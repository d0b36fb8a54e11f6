"""The exporter's side of the child process: starts it, hands it a build, and makes errors of ours of whatever
happens."""

from __future__ import annotations

import queue
import re
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from universeg_rt.errors import EngineError

from .protocol import read_message, write_message

MODULES = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
CURES = {
    "tensorrt": "pip install tensorrt-cu13 (CUDA 13; CUDA 12: tensorrt-cu12; Jetson: JetPack brings it) on a machine "
                "with an NVIDIA GPU and its driver",
    "tensorrt-rtx": "install the wheel tensorrt_rtx out of NVIDIA's TensorRT-RTX package, with its lib folder on the "
                    "library path; the wheel onnxruntime-ep-nv-tensorrt-rtx-cu13 holds the libraries without a "
                    "Python interface",
}
_MODULE = "universeg_rt.export.engine.worker"
_TICK = 0.2  # seconds between signs of life while the library says nothing

Report = Callable[[str, int, int], None]  # phase, steps done, of how many (0: not known)


@dataclass(frozen=True)
class Hello:
    """What the library and the machine say of themselves; texts are empty where there is nothing to say.

    strong: whether networks take their types from the ONNX file. cuda: the driver's. gpu_bytes: the GPU's memory.
    """

    version: str
    strong: bool
    plugin_version: str
    gpu: str
    cuda: str
    compute_capability: str
    gpu_bytes: int


@dataclass(frozen=True)
class Built:
    """A plan, the timings it was built with, the device memory in bytes that running it takes (0: not said), and why
    earlier timings were set aside (empty: they were taken, or there were none)."""

    plan: bytes
    timing_cache: bytes
    memory_bytes: int
    cache_refused: str


class Worker:
    """One child process for one build; to be used in a `with` block, at whose end it is gone.

    Raises EngineError where the library is missing, refuses, crashes, or is killed.
    """

    def __init__(self, builder: str, plugin: str = "") -> None:
        self.builder = builder
        self._messages: queue.Queue = queue.Queue()
        self._stderr: deque[str] = deque(maxlen=20)
        self._log: deque[str] = deque(maxlen=20)
        self._cache_refused = ""
        self._child = subprocess.Popen(
            [sys.executable, "-m", _MODULE, MODULES[builder], plugin], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE)
        self._threads = [threading.Thread(target=target, daemon=True) for target in (self._read, self._read_stderr)]
        for thread in self._threads:
            thread.start()
        try:
            header, _ = self._wait_for("hello", lambda *_: None)
        except BaseException:
            self.close()
            raise
        self.hello = Hello(**{name: header[name] for name in Hello.__dataclass_fields__})

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        self._child.kill()
        self._child.wait()
        for thread in self._threads:
            thread.join(timeout=5)
        for stream in (self._child.stdin, self._child.stdout, self._child.stderr):
            try:
                stream.close()
            except OSError:
                pass

    def build(self, request: dict, model: bytes, caches: Sequence[bytes], report: Report) -> Built:
        """Build one engine; `request` as `worker` reads it. Calls `report` several times a second."""
        try:
            write_message(self._child.stdin, request, model, *caches)
        except OSError:
            pass  # it has died; what it said last is read below
        header, (plan, cache) = self._wait_for("built", report)
        return Built(plan, cache, header["memory_bytes"], self._cache_refused)

    def _wait_for(self, kind: str, report: Report) -> tuple[dict, list[bytes]]:
        phase = ("starting the library" if kind == "hello" else "parsing the model", 0, 0)
        while True:
            try:
                message = self._messages.get(timeout=_TICK)
            except queue.Empty:
                report(*phase)
                continue
            if message is None:
                raise self._crashed()
            header, blobs = message
            if header["kind"] == kind:
                return header, blobs
            if header["kind"] == "progress":
                phase = (header["phase"], header["done"], header["of"])
                report(*phase)
            elif header["kind"] == "log":
                self._log.append(header["text"])
            elif header["kind"] == "cache_refused":
                self._cache_refused = header["text"]
            elif header["kind"] == "refused":
                raise self._refused(header["text"])

    def _refused(self, text: str) -> EngineError:
        lines = " | ".join((text, *self._log))
        need = memory_needed(lines)
        if need is not None:
            return EngineError(
                f"{self.builder} has not enough GPU memory{need}: {_clean(text)}; build for fewer entries, sets "
                "or queries (--profile-...), give more --workspace, or end what else uses the GPU")
        cure = any(sign in text for sign in ("cannot be imported", "not its libraries", "driver"))
        return EngineError(f"{self.builder}: {_clean(text)}{': ' + CURES[self.builder] if cure else ''}")

    def _crashed(self) -> EngineError:
        status = self._child.wait()
        self._threads[1].join(timeout=5)
        lines = [*list(self._log)[-3:], *list(self._stderr)[-5:]]
        last = _clean(" | ".join(dict.fromkeys(lines))) or "nothing"
        if status < 0:
            name = signal.Signals(-status).name if -status in signal.valid_signals() else f"signal {-status}"
            how = f"crashed ({name})"
            if name == "SIGKILL":
                how = f"was killed ({name}), most likely for want of main memory"
        else:
            how = f"ended with status {status}"
        need = memory_needed(last)
        memory = "" if need is None else f"; not enough GPU memory{need}"
        return EngineError(
            f"the {self.builder} library {how} in its own process{memory}; it said last: {last}; nothing was written")

    def _read(self) -> None:
        while (message := read_message(self._child.stdout)) is not None:
            self._messages.put(message)
        self._messages.put(None)

    def _read_stderr(self) -> None:
        for line in self._child.stderr:
            text = line.decode(errors="replace").strip()
            if text:
                self._stderr.append(text)


def memory_needed(text: str) -> str | None:
    """How much GPU memory the library wanted, as " (1.1 GB were asked for)", empty where it does not say; None where
    memory was not the trouble."""
    if not re.search(r"out ?of ?memory|could not be allocated|insufficient memory|workspace limit", text,
                     re.IGNORECASE):
        return None
    sizes = [int(size) for size in re.findall(r"(?:size was|size of|memory \()\s*(\d+)", text)]
    return f" ({max(sizes) / 1e9:.2g} GB were asked for)" if sizes else ""


def _clean(text: str) -> str:
    return " ".join(text.split())
