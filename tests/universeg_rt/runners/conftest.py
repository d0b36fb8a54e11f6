"""A bundle with engines for the stand-in GPU, and the inputs and logits that every runner is held against."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest

from universeg_rt.bundle.bundle import MANIFEST, Bundle, file_entry
from universeg_rt.bundle.engine import EngineEntry, Fingerprint, Profile
from universeg_rt.runners import open_runner
from universeg_rt.runners.gpu.identity import gpu_facts

from ...fakes.device import StandIn
from ...fakes.tensorrt import write_plan

PROFILE = Profile((1, 1, 3), (1, 1, 3), (1, 2, 6), (32, 32))


def add_engines(bundle: Bundle, *models: str, builder: str = "tensorrt", precision: str = "fp32",
                profile: Profile = PROFILE, **facts: str) -> Bundle:
    """The bundle with a fake engine of each model, made for the stand-in GPU unless `facts` say otherwise."""
    import onnx

    manifest, entries = bundle.manifest, []
    for model in models:
        source = getattr(manifest.models[precision], model)
        known = {"builder_version": "10.14.1", **gpu_facts(StandIn.gpu),
                 "plugin_version": "", "plugin_sha256": "", "onnx_sha256": manifest.files[source].sha256, **facts}
        entry = EngineEntry(model, "", "", Fingerprint(builder=builder, precision=precision, **known), profile)
        entry = replace(entry, file=f"engines/{model}-{precision}-{entry.key}.plan")
        path = bundle.file(entry.file)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(plan(onnx.load(bundle.file(source)), profile))
        entries.append(entry)
    files = manifest.files | {e.file: file_entry(bundle.file(e.file)) for e in entries}
    (bundle.path / MANIFEST).write_text(replace(manifest, files=files, engines=(*manifest.engines, *entries)).to_json())
    return Bundle.open(bundle.path)


def plan(model, profile: Profile) -> bytes:
    """What a build from an onnx.ModelProto would give, as far as running it goes."""
    from universeg_rt.export.engine.model import for_builder

    given = for_builder(model, profile, plugin=False)
    return write_plan({"shapes": given.shapes}, given.model)


@pytest.fixture
def plain_bundle(small_bundle, tmp_path) -> Bundle:
    """A copy that the test may change."""
    return Bundle.open(shutil.copytree(small_bundle, tmp_path / "bundle"))


@pytest.fixture
def engine_bundle(plain_bundle) -> Bundle:
    return add_engines(plain_bundle, "prepare", "predict")


def support(sets: int, entries: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Support (K,S,2,32,32) and weights (K,S), unequal, and with padding where there is more than one entry."""
    rng = np.random.default_rng([seed, sets, entries])
    out = rng.random((sets, entries, 2, 32, 32), np.float32)
    out[:, :, 1] = out[:, :, 1] > 0.5
    weights = rng.random((sets, entries), np.float32) + 0.1
    if entries > 1:
        weights[-1, -1] = 0
    return out, weights / weights.sum(axis=1, keepdims=True)


def queries(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([1, seed, count]).random((count, 1, 32, 32), np.float32)


@pytest.fixture(scope="session")
def expected(small_bundle):
    """Logits by the CPU runner, which the export has compared with the reference network."""
    runner = open_runner(Bundle.open(small_bundle), "onnxruntime", "fp32", 1)
    return lambda given, asked: runner.run(runner.prepare(*given), asked)
