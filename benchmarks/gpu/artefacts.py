"""What the contenders run: kernels, a bundle in every precision, plain ONNX exports of the reference, engines."""

from __future__ import annotations

import importlib
import importlib.util
import shutil
import time
import warnings
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

import universeg_rt
from universeg_rt.bundle.bundle import MANIFEST, SHIPPED, Bundle, file_entry
from universeg_rt.bundle.engine import Profile
from universeg_rt.bundle.manifest import InputContract, Manifest, network_metadata
from universeg_rt.errors import UniverSegError
from universeg_rt.export.folds import fold
from universeg_rt.export.folds.cost import network_cost
from universeg_rt.kernels.support_mean.check.steps import one_line
from universeg_rt.precision import GPU_AUTO, PRECISIONS
from universeg_rt.spec import NetworkSpec

from ..harness.models import random_weights
from . import chosen, deadline, machine

if TYPE_CHECKING:  # it wants onnx, which PyTorch's contenders do without
    from universeg_rt.export.emit.quantise import Quantisation


def run_network(state: dict, entry: dict) -> None:
    """The weights that everything is made of: a checkpoint's, or random ones."""
    options = state["options"]
    if options.checkpoint is not None:
        from universeg_rt.training.network.checkpoint import load_checkpoint

        spec, weights, _ = load_checkpoint(options.checkpoint,
                                           None if options.spec is None else NetworkSpec.preset(options.spec))
        entry["weights"] = options.checkpoint.name
    else:
        spec = state.get("small_spec") or NetworkSpec.preset(options.spec or "v1")
        weights, entry["weights"] = random_weights(spec), "random"
    state["spec"], state["weights"] = spec, {key: np.asarray(value, np.float32) for key, value in weights.items()}
    state["network"] = fold(spec, state["weights"])
    state["costs"] = network_cost(state["network"], *state["grid"])
    entry["spec"] = spec.to_dict()


def run_kernels(state: dict, entry: dict) -> None:
    """Builds the kernels and runs their self-test: every kernel on the GPU against the same code on the CPU."""
    from universeg_rt.kernels.support_mean.check import devices
    from universeg_rt.kernels.support_mean.check import machine as native

    dry = state["device"] == "cpu"
    given = {"dry": dry, "arch": "native", "build_dir": state["options"].kernels_build or state["work"] / "kernels",
             "say": state["say"], "deadline": state["deadline"]}
    entry["build"], entry["selftest"] = {}, {}
    native.build_native(given, entry["build"], state["write"])
    if not entry["build"]["passed"]:
        return skip(entry, entry["build"].get("why", "the kernels could not be built"))
    native.run_selftest(given, entry["selftest"], state["write"])
    entry["passed"] = entry["selftest"]["passed"] is not False
    if not entry["passed"]:
        entry["why"] = "the self-test failed: " + entry["selftest"].get("why", "")
        return
    state["kernel_device"] = devices.open_device(given)
    _build_plugins(state, entry)


def _build_plugins(state: dict, entry: dict) -> None:
    """The TensorRT plugin, one library for each folder of headers that is found (TENSORRT_INCLUDE)."""
    from universeg_rt.kernels.build import build

    entry["skipped"] = {}
    if state["device"] == "cpu":
        entry["skipped"]["plugin"] = "it runs on a GPU only"
        return
    try:
        built = build(["plugin"], build_dir=state["work"] / "plugin", architectures=entry["build"].get("architecture"))
    except UniverSegError as error:
        entry["skipped"]["plugin"] = one_line(error)
        return
    state["plugins"] = [str(path) for path in built.plugins]
    entry["plugins"] = [path.name for path in built.plugins]
    if not built.plugins:
        entry["skipped"]["plugin"] = built.skipped.get("plugin", "not built")


def run_bundle(state: dict, entry: dict) -> None:
    """A bundle in fp32 and, where this version exports them, fp16 and int8. The runners judge its parity, later."""
    from universeg_rt.export.precisions import Precision, write_models

    folder, options = state["work"] / "bundle", state["options"]
    shutil.rmtree(folder, ignore_errors=True)
    entry["skipped"], shipped = {}, _shipped_bundle(state)
    wanted = not options.no_int8 and options.checkpoint is not None
    if wanted and shipped is not None and "int8" in shipped.manifest.models:
        shutil.copytree(shipped.path, folder)  # what is timed is what users run
        entry["int8"] = "the shipped bundle's own models"
        state["bundle"] = Bundle.open(folder)
        entry["precisions"] = [name for name in PRECISIONS if name in shipped.manifest.models]
        return
    digest, given = _digest(state["weights"]), InputContract(*state["grid"], state["spec"].size_multiple)
    metadata = network_metadata(state["spec"], digest, given, universeg_rt.__version__)
    precisions = [Precision("fp32"), Precision("fp16")]
    try:
        if options.no_int8 or options.checkpoint is None:
            raise UniverSegError("left out by --no-int8, or since the weights are random: their masks are of no task")
        quantisation, spared = _int8_plan(state)
        entry["int8"] = f"calibrated here, in float: {', '.join(spared) or 'nothing'}"
        precisions.append(Precision("int8", quantisation))
    except Exception as error:
        entry["skipped"]["int8"] = one_line(error)
        state["say"](f"bundle int8: skipped, {one_line(error)}")
    models = write_models(folder, state["network"], state["weights"], precisions, metadata, universeg_rt.__version__)
    files = {file.name: file_entry(file) for file in sorted(folder.iterdir())}
    manifest = Manifest(
        name="benchmark", version=universeg_rt.__version__, spec=state["spec"],
        weights_sha256=digest, input=given, models=models, files=files)
    (folder / MANIFEST).write_text(manifest.to_json())
    state["bundle"] = Bundle.open(folder)
    entry["precisions"] = list(models)


def _shipped_bundle(state: dict) -> Bundle | None:
    """The shipped bundle, where it is of these weights and this image size."""
    if not (SHIPPED / MANIFEST).is_file():
        return None
    bundle = Bundle.open(SHIPPED)
    size = bundle.manifest.input.height, bundle.manifest.input.width
    return bundle if bundle.manifest.weights_sha256 == _digest(state["weights"]) and size == tuple(
        state["grid"]) else None


def _int8_plan(state: dict) -> tuple[Quantisation, tuple[str, ...]]:
    """What the export would choose: the same calibration, the same blocks left in float."""
    from universeg_rt.export.gate.held_out import HeldOutTolerance
    from universeg_rt.export.int8.calibration import synthetic_episodes
    from universeg_rt.export.int8.sensitivity import int8_plan

    grid = tuple(state["grid"])
    return int8_plan(state["network"], synthetic_episodes(grid, 0), grid, HeldOutTolerance().flipped)


def run_plain(state: dict, entry: dict) -> None:
    """The reference exported as it stands by PyTorch: a file for each S, since a trace keeps the size it saw."""
    import torch

    from universeg_rt.training.network.reference import UniverSeg

    if importlib.util.find_spec("onnx") is None:
        return skip(entry, "onnx is not installed (pip install onnx)")
    network = UniverSeg(state["spec"]).eval()
    network.load_state_dict({key: torch.from_numpy(value) for key, value in state["weights"].items()})
    state["plain"], entry["files"], entry["skipped"] = {}, [], {}
    names = ["query", "support_images", "support_labels"]
    height, width = state["grid"]
    for entries in state["support_sizes"]:
        path = state["work"] / f"plain_{entries}.onnx"
        support = (1, entries, 1, height, width)
        example = (torch.rand(1, 1, height, width), torch.rand(support), torch.ones(support))
        try:
            with warnings.catch_warnings(), torch.inference_mode():
                warnings.simplefilter("ignore")  # the tracer says that shapes become constants, which is known
                torch.onnx.export(network, example, str(path), input_names=names, output_names=["logits"],
                                  opset_version=17, dynamo=False)
        except Exception as error:
            entry["skipped"][str(entries)] = one_line(error)
            continue
        state["plain"][entries] = path
        entry["files"].append(path.name)
    if not state["plain"]:
        skip(entry, f"PyTorch exports none: {next(iter(entry['skipped'].values()))}")


def run_engines(state: dict, entry: dict) -> None:
    """TensorRT and TensorRT-RTX engines of prepare and predict: a bundle with native operators, one with the plugin."""
    from universeg_rt.export.engine.build import EngineOptions, build_engines

    if "bundle" not in state:
        find_earlier(state)
    entry["built"], entry["skipped"], state["engine_bundles"] = {}, {}, {}
    if "bundle" not in state:
        return skip(entry, "there is no bundle to build engines of; run the step bundle")
    sets, entries, end = state["members"], state["support_sizes"], deadline.of_step(state, "engines")
    profile = Profile((1, 1, 1), (min(sets), min(sets), max(sets)),
                      (min(entries), min(max(64, min(entries)), max(entries)), max(entries)), state["grid"])
    given = [p for p in (state["options"].plugin or "").split(":") if p] or state.get("plugins", [])
    for builder, module in (("tensorrt", "tensorrt"), ("tensorrt-rtx", "tensorrt_rtx")):
        if state["device"] == "cuda" and importlib.util.find_spec(module) is None:
            entry["skipped"][builder] = f"{module} is not installed (pip install {builder})"
            continue
        if state["device"] == "cpu":
            entry["skipped"][builder] = "engines run on a GPU only"
            continue
        plugin_here = _plugin_for(module, given)
        for plugin in (None, plugin_here) if plugin_here else (None,):
            for precision in sorted(state["bundle"].manifest.models, key=[*GPU_AUTO, *PRECISIONS].index):
                label = _label(builder, precision, plugin)
                if why := chosen.left_out(state["options"], label):
                    entry["skipped"][label] = why
                    continue
                if time.monotonic() > end:
                    entry["skipped"][label] = "the time limit was reached"
                    continue
                bundle = state["work"] / label.replace(" ", "-")
                try:
                    shutil.rmtree(bundle, ignore_errors=True)
                    shutil.copytree(state["bundle"].path, bundle)
                    options = EngineOptions(builder, (precision,), ("prepare", "predict"), profile,
                                            plugin=Path(plugin) if plugin else None)
                    outcomes = build_engines(Bundle.open(bundle), options, say=state["say"],
                                             progress=partial(deadline.build_until, end))
                except (UniverSegError, OSError, ImportError) as error:
                    entry["skipped"][label] = one_line(error)
                    state["say"](f"engine {label}: skipped, {one_line(error)}")
                    continue
                state["engine_bundles"][label] = (builder, precision, bundle)
                entry["built"][label] = {
                    o.entry.model: {"bytes": o.bytes, "memory_bytes": o.entry.memory_bytes} for o in outcomes}
                state["say"](f"engine {label}: built")
                state["write"]()
        if plugin_here is None:
            entry["skipped"][f"{builder} plugin"] = (
                f"none of {len(given)} plugin libraries is for this generation of TensorRT" if given else
                "no plugin library: its step needs NvInfer.h (TENSORRT_INCLUDE), or name one with --plugin")
    machine.free(state)
    if not state["engine_bundles"]:
        skip(entry, "; ".join(f"{name}: {why}" for name, why in entry["skipped"].items()))


def _plugin_for(module: str, plugins: list[str]) -> str | None:
    """The first plugin library of the generation of an installed TensorRT."""
    from universeg_rt.runners.gpu.tensorrt import plugin

    for path in plugins:
        try:
            needed = plugin.required_generation(importlib.import_module(module).__version__)
            if plugin.inspect(path).generation == needed:
                return path
        except Exception:  # a library or a module that cannot be loaded: the build says why
            continue
    return None


def find_earlier(state: dict) -> None:
    """Takes what an earlier run of the same weights left in the work folder, for the steps that this run leaves out."""
    work, steps = state["work"], state["options"].steps
    if "bundle" not in steps and (work / "bundle" / MANIFEST).is_file():
        bundle = Bundle.open(work / "bundle")
        if bundle.manifest.weights_sha256 == _digest(state["weights"]):
            state["bundle"] = bundle
    if "kernels" not in steps and state["device"] == "cuda":
        _find_kernels(state, state["options"].kernels_build or work / "kernels")
    if "bundle" not in state:
        return
    if "plain" not in steps:
        state["plain"] = {int(p.stem.split("_")[1]): p for p in work.glob("plain_*.onnx")}
    if "engines" not in steps:
        state["engine_bundles"] = {}
        for manifest in sorted(work.glob(f"tensorrt*/{MANIFEST}")):
            bundle = Bundle.open(manifest.parent)
            if bundle.manifest.engines and bundle.manifest.weights_sha256 == state["bundle"].manifest.weights_sha256:
                fingerprint = bundle.manifest.engines[0].fingerprint
                state["engine_bundles"][_label(fingerprint.builder, fingerprint.precision,
                                               fingerprint.plugin_sha256)] = (fingerprint.builder,
                                                                              fingerprint.precision, manifest.parent)


def _find_kernels(state: dict, folder: Path) -> None:
    """A library that lies there, where it is of these sources and for this GPU; another would be timed as ours."""
    from universeg_rt.kernels.build import brought
    from universeg_rt.kernels.support_mean.check.devices import Gpu
    from universeg_rt.kernels.support_mean.check.machine import own_architecture
    from universeg_rt.kernels.support_mean.library import Library

    if built := brought(folder, own_architecture()):
        state["kernel_device"] = Gpu(Library(built.library))
    else:
        state["no_kernels"] = f"{folder} holds no library of these sources for this GPU; run the step kernels"


def _label(builder: str, precision: str, plugin: object) -> str:
    return f"{builder} {precision}" + (" plugin" if plugin else "")


def skip(entry: dict, why: str) -> None:
    entry.update(passed=None, why=f"skipped: {why}")


def _digest(weights: dict) -> str:
    from universeg_rt.training.network.checkpoint import weights_sha256

    return weights_sha256(weights)
