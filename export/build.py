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
from universeg_rt.manifest import InputContract, Manifest, Models
from universeg_rt.runners.streamed import StreamedOnnxRuntime
from universeg_rt.spec import NetworkSpec
from universeg_rt.training.checkpoint import weights_sha256

from .emit import emit_predict, emit_prepare, emit_stages, emit_whole
from .folds import fold
from .parity import Model, ParityReport, Tolerance, check_parity

WHOLE, PREPARE, PREDICT = "model.onnx", "prepare.onnx", "predict.onnx"


def build_bundle(
    spec: NetworkSpec,
    weights: Mapping[str, np.ndarray],
    output: str | os.PathLike,
    *,
    name: str,
    grid: tuple[int, int] = (128, 128),
    provenance: Mapping[str, object] | None = None,
    licence: Mapping[str, str] | None = None,
    tolerance: Tolerance = Tolerance(),
    progress: Callable[[Sequence], Iterator] = iter,
) -> tuple[Bundle, ParityReport]:
    """Write a bundle for a network to the folder `output`.

    grid: height and width that images are resized to. A bundle already at `output` is replaced; anything else there is
    left alone. Raises ParityError where a model differs from the reference by more than `tolerance`, InputError for a grid
    the network cannot take, OutputError where nothing can be written; in each case nothing is left behind.
    """
    output = Path(output)
    check_grid(spec, grid)
    if output.exists() and not (output / MANIFEST).is_file() and (not output.is_dir() or any(output.iterdir())):
        raise OutputError(f"{output} exists and is no bundle; choose a new or empty folder")
    network = fold(spec, weights)
    version = universeg_rt.__version__
    digest = weights_sha256(dict(weights))
    metadata = {"universeg.spec": spec.to_json(), "universeg.version": version, "universeg.weights_sha256": digest}
    with write_folder(output) as folder:
        for file, emit in ((WHOLE, emit_whole), (PREPARE, emit_prepare), (PREDICT, emit_predict)):
            _write(folder / file, emit(network, metadata, version))
        stages = []
        for position, stage in enumerate(emit_stages(network, metadata, version)):
            file = f"stages/{position:02}_{stage.name}.onnx"
            _write(folder / file, stage.model)
            stages.append((stage.name, file))
        models = {
            "whole": whole_model(folder / WHOLE),
            "pair": pair_model(folder / PREPARE, folder / PREDICT),
            "streamed": _streamed_model(StreamedOnnxRuntime([(n, folder / f) for n, f in stages])),
        }
        report = check_parity(spec, weights, models, tolerance, progress)
        files = {str(p.relative_to(folder).as_posix()): file_entry(p) for p in sorted(folder.rglob("*")) if p.is_file()}
        manifest = Manifest(
            name=name, version=version, spec=spec, weights_sha256=digest,
            input=InputContract(grid[0], grid[1], spec.size_multiple),
            models={"fp32": Models(WHOLE, tuple(stages), PREPARE, PREDICT)}, files=files, parity={"fp32": report.summary()},
            provenance=dict(provenance or {}), licence=dict(licence or {}))
        (folder / MANIFEST).write_text(manifest.to_json())
    return Bundle.open(output), report


def check_grid(spec: NetworkSpec, grid: tuple[int, int]) -> None:
    """Raise InputError where the network cannot take images of this size."""
    if any(side < max(8, spec.size_multiple) or side % spec.size_multiple for side in grid):
        raise InputError(
            f"a grid of {grid[0]}x{grid[1]} does not fit; height and width must be multiples of {spec.size_multiple}, at least 8")


def whole_model(path: Path) -> Model:
    """A whole model on ONNX Runtime, as the parity gate calls it."""
    session = _session(path)
    return lambda support, weights, query: session.run(["logits"], {"query": query, **_support_feed(support, weights)})[0]


def pair_model(prepare: Path, predict: Path) -> Model:
    """The two halves of a network on ONNX Runtime, as the parity gate calls them."""
    first, second = _session(prepare), _session(predict)
    between = [output.name for output in first.get_outputs()]

    def run(support: np.ndarray, weights: np.ndarray, query: np.ndarray) -> np.ndarray:
        prepared = dict(zip(between, first.run(between, _support_feed(support, weights))))
        return second.run(["logits"], {"query": query, **prepared})[0]

    return run


def _session(path: Path):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _support_feed(support: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
    return {"support_images": np.ascontiguousarray(support[:, :, :1]),
            "support_labels": np.ascontiguousarray(support[:, :, 1:]), "weights": weights}


def _streamed_model(runner: StreamedOnnxRuntime) -> Model:
    return lambda support, weights, query: runner.run(runner.prepare(support, weights), query)


def _write(path: Path, model) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(model.SerializeToString(deterministic=True))
