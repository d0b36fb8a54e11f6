"""From weights to a checked bundle: fold, emit, compare with the reference, write the manifest; all of it or nothing."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

import universeg_rt
from universeg_rt.atomic import write_folder
from universeg_rt.bundle import MANIFEST, Bundle, file_entry
from universeg_rt.errors import InputError, OutputError
from universeg_rt.manifest import InputContract, Manifest, network_metadata
from universeg_rt.runners import PRECISIONS
from universeg_rt.spec import NetworkSpec
from universeg_rt.training.checkpoint import weights_sha256

from .calibration import CalibrationData, calibrate, synthetic_episodes
from .folds import fold
from .held_out import HeldOutTolerance, check_held_out
from .parity import AnyTolerance, HalfTolerance, MaskTolerance, ParityReport, Reference, Tolerance, check_parity
from .precisions import Precision, open_models, write_models
from .sensitivity import MARGIN, spare_blocks

HELD_OUT = 500_000  # number of the first held-out task: far from those that are calibrated on
HELD_OUT_TASKS = 12


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
) -> tuple[Bundle, dict[str, ParityReport]]:
    """Write a bundle for a network to the folder `output`; also returns each precision's parity report.

    grid: height and width that images are resized to. precisions: of `runners.PRECISIONS`; fp32 is always among them.
    calibration: of int8 (None: synthetic tasks of seed 0). A bundle already at `output` is replaced; anything else there is
    left alone. Raises ParityError where a model differs from the reference by more than its precision's tolerance,
    InputError for a grid the network cannot take, an unknown precision or calibration data that cannot be used, OutputError
    where nothing can be written; in each case nothing is left behind.
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
    with write_folder(output) as folder:
        reference, models, reports, parity = Reference(spec, weights), {}, {}, {}
        for precision in precisions:
            quantisation = None
            if precision == "int8":
                calibration = synthetic_episodes(grid, 0) if calibration is None else calibration
                quantisation, spared = spare_blocks(
                    network, calibrate(network, calibration, progress), calibration, MARGIN * held_out_tolerance.flipped)
                provenance["calibration"] = {**calibration.provenance(), "blocks_in_float": list(spared)}
            dtype = np.float16 if precision == "fp16" else np.float32
            models[precision] = write_models(folder, network, Precision(precision, dtype, quantisation), metadata, version)
            held: AnyTolerance = {"fp32": tolerance, "fp16": half_tolerance, "int8": int8_tolerance}[precision]
            opened = open_models(folder, models[precision], spec)
            reports[precision] = check_parity(spec, weights, opened, held, progress, reference)
            parity[precision] = reports[precision].summary()
            if precision == "int8":
                fresh = synthetic_episodes(grid, calibration.seed, HELD_OUT_TASKS, first=HELD_OUT)
                float32 = open_models(folder, models["fp32"], spec)["streamed"]
                parity[precision]["held_out"] = check_held_out(opened, float32, fresh, held_out_tolerance, progress)
        files = {str(p.relative_to(folder).as_posix()): file_entry(p) for p in sorted(folder.rglob("*")) if p.is_file()}
        manifest = Manifest(
            name=name, version=version, spec=spec, weights_sha256=digest,
            input=given, models=models, files=files, provenance=provenance, licence=dict(licence or {}))
        (folder / MANIFEST).write_text(manifest.with_parity(parity).to_json())
    return Bundle.open(output), reports


def check_output(output: Path) -> None:
    """Raise OutputError where something stands at `output` that is no bundle and must not be replaced."""
    if output.exists() and not (output / MANIFEST).is_file() and (not output.is_dir() or any(output.iterdir())):
        raise OutputError(f"{output} exists and is no bundle; choose a new or empty folder")


def check_grid(spec: NetworkSpec, grid: tuple[int, int]) -> None:
    """Raise InputError where the network cannot take images of this size."""
    if any(side < max(8, spec.size_multiple) or side % spec.size_multiple for side in grid):
        raise InputError(
            f"a grid of {grid[0]}x{grid[1]} does not fit; height and width must be multiples of {spec.size_multiple}, at least 8")


def check_precisions(precisions: Sequence[str]) -> tuple[str, ...]:
    """In the order in which they are made, fp32 first and always there; InputError for an unknown one."""
    unknown = sorted(set(precisions) - set(PRECISIONS))
    if unknown:
        raise InputError(f"precisions {', '.join(unknown)}; accepted: {', '.join(PRECISIONS)}")
    return tuple(p for p in PRECISIONS if p == "fp32" or p in precisions)
