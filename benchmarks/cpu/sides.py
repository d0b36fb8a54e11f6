"""The sides of the benchmark: how each is loaded in its own process, and what one call of it is.

A call of a peer goes from the support and the queries on the network's grid to logits, once for each query and each
member, as these networks take them. A call of ours goes from images to masks through the SDK, timed in parts.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from universeg_rt.bundle.bundle import Bundle
from universeg_rt.errors import RunnerError
from universeg_rt.runners import RUNNERS
from universeg_rt.runners.cpu.native import NATIVE
from universeg_rt.runners.libraries import import_onnxruntime

from ..harness.case import Case

PEERS = {
    "reference": "the network as published, eager PyTorch",
    "reference-kept": "the same, with an allocator that keeps freed memory (see ENVIRONMENTS)",
    "compiled": "the same under torch.compile",
    "plain": "a plain ONNX export of it for this S, ONNX Runtime",
    "folded-onnxruntime": "the folded network as one model, ONNX Runtime",
    "folded-openvino": "the same, functions inlined, OpenVINO for this S",
}
# Eager PyTorch gives the memory of every large map back to the system and gets fresh pages for the next; with glibc's
# allocator told to keep it, the reference spends no time there. No user has this set, so it is a side of its own.
ENVIRONMENTS = {"reference-kept": {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**40)}}
TORCH = ("reference", "reference-kept", "compiled", "plain")  # sides with the reference's arithmetic and a checkpoint
OURS = "ours"


class Skipped(Exception):
    """A side that cannot run here; the message is the reason."""


@dataclass(frozen=True)
class Files:
    """What the sides load; `plain` and `inlined` are made for the run (models.py)."""

    bundle: Path
    plain: Path
    inlined: Path


@dataclass
class Call:
    """What one call took, in seconds by part, and what it gave: logits (B,K,1,H,W) where they were asked for."""

    seconds: dict[str, float]
    logits: np.ndarray | None = None


@dataclass
class Side:
    """A loaded side. facts: what it says of itself, for the results."""

    call: Callable[[], Call]
    facts: dict = field(default_factory=dict)
    estimate: Callable[[], dict] | None = None


def our_sides(bundle: Bundle) -> list[str]:
    """`ours-<runner>` for each runner of the SDK, and `ours-<runner>-int8` where the bundle has int8 models: the
    precisions that gain something on a CPU."""
    precisions = [p for p in NATIVE if p in bundle.manifest.precisions]
    return [f"{OURS}-{runner}" + ("" if p == "fp32" else f"-{p}") for runner in RUNNERS for p in precisions]


def load(name: str, files: Files, case: Case, any_device: bool) -> Side:
    """Load a side in this process. Raises Skipped with the reason where it cannot run here."""
    if name.startswith(f"{OURS}-"):
        return _ours(name, files, case, any_device)
    try:
        return {
            "reference": _reference, "reference-kept": _reference, "compiled": _compiled, "plain": _plain,
            "folded-onnxruntime": _folded_onnxruntime, "folded-openvino": _folded_openvino
        }[name](files, case)
    except ImportError as error:
        raise Skipped(f"{error.name} is not installed") from None


def _each(case: Case, network: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Side:
    """A peer from its call (query (1,1,H,W), support (S,2,H,W)) -> logits (1,1,H,W)."""
    queries, sets = case.on_grid(), case.sets()

    def call() -> Call:
        start = time.perf_counter()
        logits = [[network(query, entries)[0] for entries in sets] for query in queries]
        seconds = time.perf_counter() - start
        return Call({"network": seconds, "total": seconds}, np.stack([np.stack(row) for row in logits]))

    return Side(call)


# PyTorch ------------------------------------------------------------------------------------------------------------


def _torch_network(files: Files, case: Case):
    import torch

    from ..harness.models import reference_network

    torch.set_num_threads(case.threads)
    return torch, reference_network(files.bundle)


def _torch_side(torch, network, case: Case) -> Side:
    def run(query: np.ndarray, entries: np.ndarray) -> np.ndarray:
        x = torch.from_numpy(entries)[None]
        with torch.inference_mode():
            return network(torch.from_numpy(query), x[:, :, :1].contiguous(), x[:, :, 1:].contiguous()).numpy()

    return _each(case, run)


def _reference(files: Files, case: Case) -> Side:
    return _torch_side(*_torch_network(files, case), case)


def _compiled(files: Files, case: Case) -> Side:
    if not any(shutil.which(name) for name in ("g++", "c++", "clang++", "cl")):
        raise Skipped("torch.compile needs a C++ compiler, and there is none here")
    torch, network = _torch_network(files, case)
    side = _torch_side(torch, torch.compile(network), case)
    start = time.perf_counter()
    try:
        side.call()
    except Exception as error:  # its errors are of many types, and long
        raise Skipped(f"torch.compile failed: {str(error).strip().splitlines()[0]}") from None
    side.facts["compile_s"] = time.perf_counter() - start
    return side


# ONNX Runtime and OpenVINO on one model -------------------------------------------------------------------------------


def _onnxruntime_session(path: Path, threads: int):
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _feed(query: np.ndarray, entries: np.ndarray) -> dict[str, np.ndarray]:
    return {"query": query, "support_images": np.ascontiguousarray(entries[None, :, :1]),
            "support_labels": np.ascontiguousarray(entries[None, :, 1:])}


def _plain(files: Files, case: Case) -> Side:
    session = _onnxruntime_session(files.plain, case.threads)
    return _each(case, lambda query, entries: session.run(["logits"], _feed(query, entries))[0])


def _folded_onnxruntime(files: Files, case: Case) -> Side:
    bundle = Bundle.open(files.bundle)
    session = _onnxruntime_session(bundle.file(bundle.manifest.models["fp32"].whole), case.threads)
    return _each(case, lambda query, entries: session.run(["logits"], _feed(query, entries))[0][0])


def _folded_openvino(files: Files, case: Case) -> Side:
    from universeg_rt.runners.cpu.openvino import shared_core

    core = shared_core()
    model = core.read_model(str(files.inlined))
    shape = [1, case.support_size, 1, case.size, case.size]
    sizes = {"query": [1, 1, case.size, case.size], "support_images": shape, "support_labels": shape}
    model.reshape({i: sizes[i.any_name] for i in model.inputs if i.any_name in sizes})
    compiled = core.compile_model(model, "CPU", {
        "INFERENCE_NUM_THREADS": case.threads, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"})
    request = compiled.create_infer_request()
    row = np.full((1, case.support_size), 1 / case.support_size, np.float32)
    extra = {"weights": row} if any("weights" in i.names for i in compiled.inputs) else {}

    def run(query: np.ndarray, entries: np.ndarray) -> np.ndarray:
        request.infer({**_feed(query, entries), **extra}, share_inputs=True)
        return np.array(request.get_tensor("logits").data)[0]

    return _each(case, run)


# Ours ---------------------------------------------------------------------------------------------------------------


def _ours(name: str, files: Files, case: Case, any_device: bool) -> Side:
    from universeg_rt import Segmenter
    from universeg_rt.runners import open_runner

    runner_name = name.removeprefix(f"{OURS}-")
    precision = next((p for p in NATIVE if runner_name.endswith(f"-{p}")), "fp32")
    runner_name = runner_name.removesuffix(f"-{precision}")
    bundle = Bundle.open(files.bundle)
    grid = replace(bundle.manifest.input, height=case.size, width=case.size)
    bundle = replace(bundle, manifest=replace(bundle.manifest, input=grid))
    try:
        runner = open_runner(bundle, runner_name, precision, case.threads)
    except RunnerError as error:
        raise Skipped(str(error)) from None
    if not any_device and "CPU" not in runner.device:
        raise Skipped(f"it runs on {runner.device}; name the side to measure it all the same")
    spent = {"prepare": 0.0, "run": 0.0}
    logits: list[np.ndarray] = []

    def timed(part: str, inner: Callable) -> Callable:
        def outer(*args):
            start = time.perf_counter()
            value = inner(*args)
            spent[part] += time.perf_counter() - start
            if part == "run":
                logits[:] = [value]
            return value

        return outer

    runner.prepare, runner.run = timed("prepare", runner.prepare), timed("run", runner.run)
    segmenter = Segmenter(bundle, runner)
    support, ensemble, images = case.support, case.ensemble, case.images

    def call() -> Call:
        spent.update(prepare=0.0, run=0.0)
        start = time.perf_counter()
        task = segmenter.prepare(support, ensemble)
        prepared = time.perf_counter() - start
        predictions = task.predict_batch(images)
        total = time.perf_counter() - start
        after = sum(p.timing.postprocess for p in predictions)
        before = prepared - spent["prepare"] + sum(p.timing.preprocess for p in predictions)
        return Call({"preprocess": before, **spent, "network": spent["prepare"] + spent["run"], "postprocess": after,
                     "total": total}, logits[0])

    def estimate() -> dict:
        cost = segmenter.estimate(case.support_size, case.members)
        return {"seconds": cost.seconds, "bytes": cost.bytes}

    facts = {"runner": runner_name, "precision": runner.precision, "device": runner.device, "reason": runner.reason}
    return Side(call, facts, estimate)
