"""Which engines of a bundle fit this machine: by fingerprint, every difference named, nothing ever rebuilt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from ....bundle.bundle import Bundle
from ....bundle.engine import EngineEntry, Profile
from ....environment import variable
from ....errors import EngineError, RunnerError
from ....precision import GPU_AUTO
from ..cuda.device import Device
from ..identity import gpu_facts
from . import plugin


@dataclass(frozen=True)
class Plans:
    """Engines that run one network together: the pair, or the whole network alone (prepare is None)."""

    prepare: EngineEntry | None
    predict: EngineEntry

    @property
    def profile(self) -> Profile:
        return self.predict.profile


def choose(bundle: Bundle, builder: str, precision: str, trt: ModuleType, device: Device,
           plugins: Sequence[Path]) -> tuple[str, list[Plans]]:
    """Precision and engines to run a bundle with `trt` on `device`, in the bundle's order, the pairs first.

    plugins: libraries to look among first. Those that the engines need are loaded. RunnerError where the bundle has no
    engine of this builder and precision, EngineError naming every field that differs where it has some and none fits.
    """
    mine = [e for e in bundle.manifest.engines if e.fingerprint.builder == builder]
    wanted = GPU_AUTO if precision == "auto" else (precision,)
    refused: list[tuple[int, str]] = []
    for each in wanted:
        fitting = []
        for entry in (e for e in mine if e.fingerprint.precision == each):
            differences = _differences(bundle, entry, trt, device, plugins)
            if differences:
                refused.append((len(differences), f"{entry.file} does not fit here; {'; '.join(differences)}"))
            else:
                fitting.append(entry)
        plans = _needed(_plans(fitting))
        if plans:
            for entry in (e for p in plans for e in (p.prepare, p.predict)
                          if e is not None and e.fingerprint.plugin_sha256):
                library = plugin.find(entry.fingerprint.plugin_sha256, plugins)
                if library is not None:  # else it went since it was compared, which loading the engine says
                    plugin.ensure(library, trt)
            return each, plans
        if fitting:
            refused.append(
                (0, f"{', '.join(e.file for e in fitting)} alone cannot run the network; prepare and predict are "
                 "needed over the same sets and entries"))
    cure = f"build one on this machine with universeg-export --engine {builder}"
    if refused:
        raise EngineError(f"{min(refused)[1]}: {cure}")
    have = sorted({e.fingerprint.precision for e in mine})
    raise RunnerError(f"{bundle.path} holds no {builder} engine of {' or '.join(wanted)} "
                      f"({', '.join(have) or 'none at all'}); {cure}", short="no engine in the bundle")


def _differences(bundle: Bundle, entry: EngineEntry, trt: ModuleType, device: Device,
                 plugins: Sequence[Path]) -> tuple[str, ...]:
    fingerprint = entry.fingerprint
    present = {"builder_version": trt.__version__, **gpu_facts(device.gpu),
               "onnx_sha256": _onnx_sha256(bundle, entry)}
    if fingerprint.plugin_sha256:
        present["plugin_sha256"] = fingerprint.plugin_sha256 if plugin.find(fingerprint.plugin_sha256, plugins) else \
            f"no such library (name it in Segmenter.open(plugin=...) or {variable('plugin')})"
    return fingerprint.differences(**present)


def _onnx_sha256(bundle: Bundle, entry: EngineEntry) -> str:
    models = bundle.manifest.models.get(entry.fingerprint.precision)
    name = getattr(models, entry.model, None) if models else None
    return bundle.manifest.files[name].sha256 if name else "no such model"


def _plans(entries: list[EngineEntry]) -> list[Plans]:
    out = []
    for predict in (e for e in entries if e.model == "predict"):
        for prepare in (e for e in entries if e.model == "prepare"):
            if _covers(prepare.profile, predict.profile):
                out.append(Plans(prepare, predict))
                break
    return out + [Plans(None, e) for e in entries if e.model == "whole"]


def _needed(plans: list[Plans]) -> list[Plans]:
    """Without those that take nothing which an earlier one does not take: their engines need not be loaded."""
    out: list[Plans] = []
    for plan in plans:
        if not any(
                _covers(other.profile, plan.profile) and other.profile.queries[2] >= plan.profile.queries[2]
                for other in out):
            out.append(plan)
    return out


def _covers(wide: Profile, narrow: Profile) -> bool:
    """Whether every support that `narrow` takes fits `wide`."""
    return wide.image == narrow.image and all(
        getattr(wide, name)[0] <= getattr(narrow, name)[0] and getattr(narrow, name)[2] <= getattr(wide, name)[2]
        for name in ("sets", "entries"))
