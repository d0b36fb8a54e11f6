"""Fixtures shared by all tests; material that another clone may lack is looked for and skipped with a reason."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from universeg_rt.spec import NetworkSpec

ROOT = Path(__file__).resolve().parents[1]

# A network that runs in a moment, with all that v1 has.
SMALL_SPEC = NetworkSpec("none", (6, 5, 7), (4, 6), "max_pool")
SMALL_GRID = (32, 32)


def material(*parts: str) -> Path:
    """A file of the optional material folder (UNIVERSEG_RT_MATERIAL, else `shared/` beside the clone), or skip."""
    folder = Path(os.environ.get("UNIVERSEG_RT_MATERIAL", ROOT.parent / "shared"))
    path = folder.joinpath(*parts)
    if not path.exists():
        pytest.skip(
            f"{'/'.join(parts)} is not in this clone's material folder (set UNIVERSEG_RT_MATERIAL to point to it)")
    return path


def native_part():
    """The compiled module of the native runner, or skip.

    With UNIVERSEG_RT_NATIVE=1, as `make test` sets it, its absence is an error.
    """
    if os.environ.get("UNIVERSEG_RT_NATIVE") == "1":
        return importlib.import_module("universeg_rt._native")
    return pytest.importorskip(
        "universeg_rt._native",
        reason="the native runner is not built here: reinstall universeg_rt where there is a C++ compiler")


def random_weights(spec: NetworkSpec, seed: int = 0, dtype=np.float32) -> dict[str, np.ndarray]:
    """Weights large enough that an error anywhere shows in the output."""
    rng = np.random.default_rng(seed)
    return {
        key: (rng.standard_normal(shape) *
              (0.3 if len(shape) == 1 else 1.5 / np.sqrt(np.prod(shape[1:])))).astype(dtype)
        for key, shape in spec.weight_shapes().items()
    }


@pytest.fixture(scope="session")
def parity_archive():
    """Weights, inputs and logits of the published v1 implementation."""
    return np.load(material("parity", "universeg_v1_parity.npz"))


@contextlib.contextmanager
def quick_gate(*image_sizes: tuple[int, int], entries: tuple[int, ...] = (1, 3)) -> Iterator[pytest.MonkeyPatch]:
    """Exports pass the gate on few inputs: these image sizes (SMALL_GRID without any) and numbers of entries."""
    from universeg_rt.export.gate import parity

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parity, "SUPPORT_SIZES", entries)
        patch.setattr(parity, "IMAGE_SIZES", image_sizes or (SMALL_GRID,))
        yield patch


@pytest.fixture(scope="session")
def small_bundle(tmp_path_factory) -> Path:
    """A bundle of SMALL_SPEC with random weights, exported and checked as users do."""
    pytest.importorskip("onnx", reason="exporting needs onnx: pip install '.[export]'")
    pytest.importorskip("torch", reason="the parity gate needs torch: pip install '.[export]'")
    from universeg_rt.export.build import build_bundle

    folder = tmp_path_factory.mktemp("bundles") / "small"
    with quick_gate():
        build_bundle(SMALL_SPEC, random_weights(SMALL_SPEC), folder, name="small", grid=SMALL_GRID,
                     provenance={"made": "for tests"}, licence={"weights": "none"})
    return folder


@pytest.fixture(scope="session")
def typed_bundle(small_bundle, tmp_path_factory) -> Path:
    """The same with its fp16 and int8 models, which no gate has seen: for what their types do, not their values."""
    from universeg_rt.bundle.bundle import Bundle, file_entry
    from universeg_rt.export.folds import fold
    from universeg_rt.export.int8.calibration import calibrate, synthetic_episodes
    from universeg_rt.export.precisions import Precision, write_models

    weights = random_weights(SMALL_SPEC)
    folder, manifest = tmp_path_factory.mktemp("bundles") / "typed", Bundle.open(small_bundle).manifest
    network = fold(SMALL_SPEC, weights)
    quantisation = calibrate(network, synthetic_episodes(SMALL_GRID, 0, episodes=2, entries=2))
    precisions = (Precision("fp32"), Precision("fp16"), Precision("int8", quantisation))
    models = write_models(folder, network, weights, precisions, manifest.metadata, manifest.version)
    files = {file.name: file_entry(file) for file in folder.iterdir()}
    (folder / "manifest.json").write_text(
        dataclasses.replace(manifest, models=models, files=files, parity={}).to_json())
    return folder


def native_model(arrays: dict[str, np.ndarray]):
    """Arrays as the native runner's list of a bundle, with weights of its own, as NativeRunner takes them."""
    from universeg_rt.bundle.model_bytes import ModelBytes
    from universeg_rt.bundle.weights import WEIGHTS
    from universeg_rt.export.emit.native import emit_native
    from universeg_rt.export.emit.store import WeightStore

    store = WeightStore()
    listed = emit_native(arrays, store)
    return ModelBytes("native.json", listed, {WEIGHTS: store.file({}).data})


def write_native(folder: Path, arrays: dict[str, np.ndarray]) -> Path:
    """The same as files; the list's."""
    model = native_model(arrays)
    for name, data in ((model.name, model.data), *model.external.items()):
        (folder / name).write_bytes(data)
    return folder / model.name


@pytest.fixture(scope="session")
def tensorrt_rtx(tmp_path_factory) -> dict[str, str]:
    """Environment variables under which a child process imports `tensorrt_rtx` and builds plans on the CPU, or skip."""
    from .tensorrt_rtx import make

    return make(tmp_path_factory.mktemp("tensorrt_rtx"))


def disc_data_set(folder: Path, count: int = 20) -> Path:
    """A data set of one task, `discs`, a subject an image; the path of its YAML file."""
    images, labels = discs(count)
    np.savez(folder / "discs.npz", images=images, labels=labels.astype(np.uint8), ids=np.arange(count).astype(str))
    file = folder / "discs.yaml"
    file.write_text("name: discs\nlicence: none\ntasks:\n  - {name: discs, file: discs.npz}\n")
    return file


def in_threads(work: Callable[[int], object], count: int) -> None:
    """Call work(0) to work(count - 1), each in a thread of its own, and wait for all."""
    threads = [threading.Thread(target=work, args=(n,)) for n in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def damage(data, content: bytes, within: int | None = None) -> bytes:
    """Content cut short or with a byte changed, as hypothesis draws from `data`; within: among so many first bytes."""
    from hypothesis import strategies as st

    if data.draw(st.booleans()):
        return content[: data.draw(st.integers(0, len(content) - 1))]
    changed = bytearray(content)
    place = data.draw(st.integers(0, min(within or len(content), len(content)) - 1))
    changed[place] ^= data.draw(st.integers(1, 255))
    return bytes(changed)


def discs(count: int, height: int = 40, width: int = 36, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Images (N,H,W) uint8 of a bright disc on noise, and the disc as label bool."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    cy, cx = rng.uniform(12, height - 12, (count, 1, 1)), rng.uniform(12, width - 12, (count, 1, 1))
    labels = (y - cy) ** 2 + (x - cx) ** 2 < 9**2
    images = np.clip(60 + 120 * labels + rng.normal(0, 12, labels.shape), 0, 255).astype(np.uint8)
    return images, labels
