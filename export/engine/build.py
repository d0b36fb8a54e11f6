"""Engines from a bundle's ONNX models, each with its fingerprint, its profile and its timing cache, put into the
bundle."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from universeg_rt.bundle.bundle import Bundle
from universeg_rt.bundle.engine import BUILDERS, MODELS, EngineEntry, Fingerprint, Profile
from universeg_rt.errors import InputError

from . import timing
from .features import LEVELS
from .process import Built, Hello, Report, Worker
from .store import add_engine

if TYPE_CHECKING:
    from .model import BuilderModel

Progress = Callable[[str], AbstractContextManager[Report]]


@dataclass(frozen=True)
class EngineOptions:
    """What to build, checked when made (InputError).

    builder: of BUILDERS. precisions: of `precision.PRECISIONS`. models: of MODELS; empty: what a runner reads
    (`Models.on_device`). plugin: a plugin library for the support-mean operation; None: native operators. timing_cache:
    a file to start from and to leave the timings in. workspace: bytes; None: all there is. tf32: whether float32
    products may be rounded to TF32. level: how long the builder searches, 0 to 5. hardware: "none" this GPU, "same" its
    compute capability, "ampere+". capabilities: for tensorrt-rtx, as ("8.6", "8.9"). rebuild: build anew what the
    bundle already has.
    """

    builder: str
    precisions: tuple[str, ...] = ("fp32",)
    models: tuple[str, ...] = ()
    profile: Profile = Profile()
    plugin: Path | None = None
    timing_cache: Path | None = None
    workspace: int | None = None
    tf32: bool = False
    level: int | None = None
    hardware: str = "none"
    capabilities: tuple[str, ...] = ()
    rebuild: bool = False

    def __post_init__(self) -> None:
        if self.builder not in BUILDERS:
            raise InputError(f"the builder is {self.builder!r}; accepted: {', '.join(BUILDERS)}")
        for model in self.models:
            if model not in MODELS:
                raise InputError(f"the model is {model!r}; accepted: {', '.join(MODELS)}")
        if self.hardware not in ("none", *LEVELS):
            raise InputError(f"hardware compatibility is {self.hardware!r}; accepted: none, {', '.join(LEVELS)}")
        if self.workspace is not None and self.workspace < 1:
            raise InputError(
                f"the workspace is {self.workspace} bytes; give a positive number, or nothing for all there is")
        if self.level is not None and not 0 <= self.level <= 5:
            raise InputError(f"the optimization level is {self.level}; accepted: 0 to 5")
        if self.timing_cache is not None and not self.timing_cache.parent.is_dir():
            raise InputError(f"the timing cache {self.timing_cache}: its folder does not exist; make it first")
        if self.builder == "tensorrt" and self.capabilities:
            raise InputError("compute capabilities are for tensorrt-rtx; tensorrt builds for the GPU that is there")
        if self.builder == "tensorrt-rtx" and self.hardware != "none":
            raise InputError("hardware compatibility is for tensorrt; tensorrt-rtx has compute capabilities")
        if self.plugin is not None and not self.plugin.is_file():
            raise InputError(
                f"no plugin library at {self.plugin}; build it with `python -m universeg_rt.kernels.build --plugin`")

    def request(self, copy: BuilderModel) -> dict:
        """What the builder's process is asked for a model."""
        return {
            "shapes": copy.shapes, "allowed": copy.allowed, "float32_tensors": copy.float32_tensors, "tf32": self.tf32,
            "workspace": self.workspace, "level": self.level, "hardware": self.hardware,
            "capabilities": self.capabilities
        }


@dataclass(frozen=True)
class Outcome:
    """One engine of the bundle: its entry, its size in bytes, and whether it was built now or stood there already."""

    entry: EngineEntry
    bytes: int
    built: bool


def build_engines(bundle: Bundle, options: EngineOptions,
                  progress: Progress = lambda label: nullcontext(lambda *_: None),
                  say: Callable[[str], None] = print) -> list[Outcome]:
    """Build what `options` ask for, one engine after the other, each added to the bundle as soon as it is ready.

    progress: given "whole fp32", a context with what is called several times a second. say: takes lines for the user.
    Raises EngineError where one cannot be built, InputError where the bundle lacks what is asked for; engines added
    before stay, and nothing half-made is left.
    """
    (height, width), image = options.profile.image, (bundle.manifest.input.height, bundle.manifest.input.width)
    if (height, width) != image:
        raise InputError(
            f"the profile is for images of {height}x{width}, the bundle's network for {image[0]}x{image[1]}")
    jobs = [(precision, model, file) for precision in options.precisions
            for model, file in _models(bundle, precision, options)]
    outcomes = []
    for precision, model, file in jobs:
        with progress(f"{model} {precision}") as report:
            outcomes.append(_build_one(bundle, options, precision, model, file, report, say))
        bundle = Bundle.open(bundle.path)
    return outcomes


def check_library(options: EngineOptions) -> None:
    """Raise EngineError, with what to install, where these engines cannot be built here; takes a second or two."""
    Worker(options.builder, str(options.plugin or "")).close()


def _models(bundle: Bundle, precision: str, options: EngineOptions) -> list[tuple[str, str]]:
    """(model, file) of a precision."""
    models = bundle.manifest.models
    if precision not in models:
        raise InputError(
            f"{bundle.path} holds no {precision} models; it has {', '.join(models)}: choose one of these, or "
            "export it with universeg-export")
    there = {name: file for name in MODELS if (file := getattr(models[precision], name, None))}
    missing = [name for name in options.models if name not in there]
    if missing:
        raise InputError(f"{bundle.path} holds no {precision} model {', '.join(missing)}; it has {', '.join(there)}")
    return [(name, there[name]) for name in options.models or models[precision].on_device]


def _build_one(bundle: Bundle, options: EngineOptions, precision: str, model: str, file: str, report: Report,
               say: Callable[[str], None]) -> Outcome:
    from .model import for_builder, read_model

    source = read_model(bundle.load(precision, model))
    copy = for_builder(source, options.profile, options.plugin is not None)
    with Worker(options.builder, str(options.plugin or "")) as worker:
        fingerprint = fingerprint_of(options, worker.hello, precision, bundle.manifest.files[file].sha256)
        entry = EngineEntry(model, "", "", fingerprint, options.profile)
        for other in bundle.manifest.engines:
            if other.key == entry.key and not options.rebuild:
                return Outcome(other, bundle.manifest.files[other.file].bytes, False)
        names, passed = timing.of_bundle(bundle.manifest.engines, fingerprint)
        given = timing.open_file(options.timing_cache, fingerprint) if options.timing_cache else None
        for why in passed + ([f"{given.path}: {given.set_aside}"] if given and given.set_aside else []):
            say(f"timing cache set aside, {why}")
        caches = [bundle.read(name) for name in names]
        if given and given.content and not given.set_aside:
            caches.append(given.content)
        built = worker.build(options.request(copy), copy.model, caches, report)
        if built.cache_refused:
            say(f"timing cache set aside by the library: {built.cache_refused}")
        check_memory(built, worker.hello, say)
    entry, ours = add_engine(bundle.path, replace(entry, memory_bytes=built.memory_bytes), built.plan,
                             built.timing_cache, options.rebuild)
    if given:
        _keep_timings(given, built, fingerprint, say)
    return Outcome(entry, bundle.file(entry.file).stat().st_size, ours)


def fingerprint_of(options: EngineOptions, hello: Hello, precision: str, onnx_sha256: str) -> Fingerprint:
    """Of an engine of a model that these options ask for, by the library that said hello."""
    gpu, capability = hello.gpu, hello.compute_capability
    choices = {
        "tf32": "on" if options.tf32 else "off", "workspace": str(options.workspace or "all"),
        "optimization_level": "default" if options.level is None else str(options.level),
        "typing": "strong" if hello.strong else "weak"}
    if options.builder == "tensorrt-rtx":  # portable by nature
        gpu, capability = "", " ".join(options.capabilities) or "8.0+"
    else:
        choices["hardware_compatibility"] = options.hardware
        if options.hardware != "none":
            gpu, capability = "", "8.0+" if options.hardware == "ampere+" else capability
    sha256 = hashlib.sha256(options.plugin.read_bytes()).hexdigest() if options.plugin else ""
    return Fingerprint(options.builder, hello.version, hello.cuda, gpu, capability, onnx_sha256, hello.plugin_version,
                       sha256, precision, tuple(choices.items()))


def check_memory(built: Built, hello: Hello, say: Callable[[str], None]) -> None:
    """Say where an engine needs more than the GPU has."""
    if hello.gpu_bytes and built.memory_bytes > hello.gpu_bytes:
        say(f"warning: at its largest shapes this engine needs {built.memory_bytes / 1e9:.1f} GB of GPU memory, and "
            f"{hello.gpu} has {hello.gpu_bytes / 1e9:.1f} GB; build for fewer entries, sets or queries")


def _keep_timings(given: timing.TimingFile, built: Built, fingerprint: Fingerprint, say: Callable[[str], None]) -> None:
    if built.cache_refused and given.content and not given.set_aside:
        if not fingerprint.gpu:  # without a GPU nothing is timed, and the file may still be good where there is one
            return say(f"timing cache {given.path} left as it was")
        given = replace(given, set_aside=built.cache_refused)
    if built.timing_cache:
        say(timing.write(given, built.timing_cache, fingerprint))
