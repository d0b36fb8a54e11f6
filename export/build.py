"""From weights to a checked bundle: fold, emit, compare with the reference, write the manifest.

All of it or nothing, as far as float32 goes; another precision that fails its gate is left out, and the caller is told
why.
The cheapest gate comes first: int8's held-out tasks take seconds, the comparisons with the reference minutes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

import universeg_rt
from universeg_rt.bundle.bundle import MANIFEST, Bundle, file_entry
from universeg_rt.bundle.manifest import InputContract, Manifest, Models, network_metadata
from universeg_rt.errors import InputError, OutputError, ParityError
from universeg_rt.precision import PRECISIONS
from universeg_rt.spec import NetworkSpec
from universeg_rt.storage.atomic import write_folder
from universeg_rt.training.network.checkpoint import weights_sha256

from .folds import fold
from .gate.episodes import CalibrationData
from .gate.held_out import HeldOutTolerance, check_held_out
from .gate.parity import AnyTolerance, HalfTolerance, MaskTolerance, ParityReport, Reference, Tolerance, check_parity
from .gate.terms import SupportTerms
from .int8.calibration import METHOD, SYNTHETIC, synthetic_episodes
from .int8.sensitivity import int8_plan
from .precisions import Precision, open_models, write_models

HELD_OUT = 500_000  # number of the first held-out task: far from those that are calibrated on
HELD_OUT_TASKS = 12


@dataclass(frozen=True)
class Exported:
    """A written bundle, the parity report of each precision in it, and why each other one that was asked for is not."""

    bundle: Bundle
    reports: dict[str, ParityReport]
    failed: dict[str, str]


@dataclass
class _Attempts:
    """The precisions that are still in the race, and why the others left it."""

    models: dict[str, Models]
    failed: dict[str, str] = field(default_factory=dict)

    @contextmanager
    def gate(self, precision: str, cure: str = "") -> Iterator[None]:
        """Removes a precision that fails inside. float32's error goes on: without it there is no bundle."""
        try:
            yield
        except ParityError as error:
            if precision == "fp32":
                raise
            del self.models[precision]
            self.failed[precision] = f"{str(error).splitlines()[0]}; {cure}, or export without --precision {precision}"


def build_bundle(
    spec: NetworkSpec,
    weights: Mapping[str, np.ndarray],
    output: str | os.PathLike,
    *,
    name: str,
    grid: tuple[int, int] = (128, 128),
    precisions: Sequence[str] = ("fp32",),
    calibration: CalibrationData | None = None,
    provenance: Mapping[str, object] | None = None,
    licence: Mapping[str, str] | None = None,
    tolerance: Tolerance = Tolerance(),
    half_tolerance: HalfTolerance = HalfTolerance(),
    int8_tolerance: MaskTolerance = MaskTolerance(),
    held_out_tolerance: HeldOutTolerance = HeldOutTolerance(),
    progress: Callable[[Sequence], Iterator] = iter,
) -> Exported:
    """Write a bundle for a network to the folder `output`.

    grid: height and width that images are resized to. precisions: of `precision.PRECISIONS`; fp32 is always among them.
    calibration: of int8 (None: synthetic tasks of seed 0). A bundle already at `output` is replaced; anything else
    there is left alone. A precision beside float32 that differs from the reference by more than its tolerance is not
    written; the result's `failed` says why. Raises ParityError where float32 does, InputError for a grid the network
    cannot take, an unknown precision or calibration data that cannot be used, OutputError where nothing can be written;
    in each case nothing is left behind.
    """
    output = Path(output)
    check_grid(spec, grid)
    precisions = check_precisions(precisions)
    check_output(output)
    network = fold(spec, weights)
    version, digest = universeg_rt.__version__, weights_sha256(dict(weights))
    given = InputContract(grid[0], grid[1], spec.size_multiple)
    metadata = network_metadata(spec, digest, given, version)
    provenance = dict(provenance or {})
    tolerances: dict[str, AnyTolerance] = {"fp32": tolerance, "fp16": half_tolerance, "int8": int8_tolerance}
    with write_folder(output) as folder:
        plan = None
        if "int8" in precisions:
            calibration = synthetic_episodes(grid, 0) if calibration is None else calibration
            plan, spared = int8_plan(network, calibration, grid, held_out_tolerance.flipped, progress)
            provenance["calibration"] = {**calibration.provenance(), "method": METHOD, "blocks_in_float": list(spared)}
        made = {each: Precision(each, plan if PRECISIONS[each].is_quantised else None) for each in precisions}
        attempts = _Attempts(write_models(folder, network, weights, tuple(made.values()), metadata, version))
        terms = SupportTerms(spec, weights)
        opened = {each: open_models(folder, models, network, terms) for each, models in attempts.models.items()}
        held_out, reports, reference = {}, {}, Reference(spec, weights)
        if calibration is not None and "int8" in precisions:
            with attempts.gate("int8", _cure("int8", calibration)):
                fresh = synthetic_episodes(grid, calibration.seed, HELD_OUT_TASKS, first=HELD_OUT)
                held_out = {
                    "held_out": check_held_out(opened["int8"], opened["fp32"]["streamed"], fresh, held_out_tolerance,
                                               progress)
                }
        for each in tuple(attempts.models):
            with attempts.gate(each, _cure(each, calibration)):
                reports[each] = check_parity(spec, weights, opened[each], tolerances[each], progress, reference)
        if "int8" in attempts.failed:
            del provenance["calibration"]
        if attempts.failed:  # again, without their numbers: the others' are the same
            for file in folder.iterdir():
                file.unlink()
            attempts.models = write_models(folder, network, weights, [made[each] for each in attempts.models], metadata,
                                           version)
        parity = {
            name: {**report.summary(), **(held_out if name == "int8" else {})}
            for name, report in reports.items()
        }
        files = {str(p.relative_to(folder).as_posix()): file_entry(p) for p in sorted(folder.rglob("*")) if p.is_file()}
        manifest = Manifest(
            name=name, version=version, spec=spec, weights_sha256=digest,
            input=given, models=attempts.models, files=files, provenance=provenance, licence=dict(licence or {}))
        (folder / MANIFEST).write_text(manifest.with_parity(parity).to_json())
    return Exported(Bundle.open(output), reports, attempts.failed)


def _cure(precision: str, calibration: CalibrationData | None) -> str:
    """What may bring a precision within its tolerance."""
    if precision != "int8" or calibration is None:
        return "run these weights in float32 (engines: with --tf32)"
    if calibration.source == SYNTHETIC:
        return "calibrate on images like yours (--calibration SUPPORT)"
    return "give --calibration more entries, and more different ones, or leave it out (then synthetic tasks are taken)"


def check_output(output: Path) -> None:
    """Raise OutputError where something stands at `output` that is no bundle and must not be replaced."""
    if output.exists() and not (output / MANIFEST).is_file() and (not output.is_dir() or any(output.iterdir())):
        raise OutputError(f"{output} exists and is no bundle; choose a new or empty folder")


def check_grid(spec: NetworkSpec, grid: tuple[int, int]) -> None:
    """Raise InputError where the network cannot take images of this size."""
    if any(side < max(8, spec.size_multiple) or side % spec.size_multiple for side in grid):
        raise InputError(
            f"a grid of {grid[0]}x{grid[1]} does not fit; height and width must be multiples of {spec.size_multiple}, "
            "at least 8"
        )


def check_precisions(precisions: Sequence[str]) -> tuple[str, ...]:
    """In the order in which they are made, fp32 first and always there; InputError for an unknown one."""
    unknown = sorted(set(precisions) - set(PRECISIONS))
    if unknown:
        raise InputError(f"precisions {', '.join(unknown)}; accepted: {', '.join(PRECISIONS)}")
    return tuple(p for p in PRECISIONS if p == "fp32" or p in precisions)
