"""A static task in int8: the masks of the float one, in a third of its bytes."""

from __future__ import annotations

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="onnx is not installed: pip install '.[export]'")
pytest.importorskip("torch", reason="torch is not installed: pip install '.[export]'")

from universeg_rt import Bundle
from universeg_rt.bundle import onnx_file
from universeg_rt.bundle.onnx_bind import bind
from universeg_rt.errors import InputError
from universeg_rt.export.folds import fold, fold_static
from universeg_rt.export.folds.constant_through_target import constant
from universeg_rt.export.frozen import quantise_frozen
from universeg_rt.export.gate.terms import SupportTerms
from universeg_rt.export.precisions import open_session
from universeg_rt.imaging.metrics import dice
from universeg_rt.training.episodes.synthetic import synthetic_subjects

pytestmark = pytest.mark.torch
SIDE, ENTRIES, QUERIES = 64, 6, 6


@pytest.fixture(scope="module")
def task():
    """The shipped bundle, a synthetic task's constants with its support as proxies, the support's images, queries."""
    bundle = Bundle.open()
    images, labels = synthetic_subjects(12, ENTRIES + QUERIES, SIDE)
    maps = np.concatenate([images.numpy(), labels.numpy()], axis=1).astype(np.float32)
    low, high = (f(maps[:, :1], axis=(2, 3), keepdims=True) for f in (np.min, np.max))
    maps[:, :1] = (maps[:, :1] - low) / (high - low)
    support, queries = maps[:ENTRIES], maps[ENTRIES:, :1]
    weights = np.full(ENTRIES - 1, 1 / (ENTRIES - 1), np.float32)
    terms = SupportTerms(bundle.manifest.spec, bundle.weights())
    of_proxies = [terms(np.delete(support, i, 0), weights, support[i : i + 1, :1]) for i in range(ENTRIES)]
    network = fold_static(fold(bundle.manifest.spec, bundle.weights()))
    constants = {f"constant_{i}": constant(block, np.mean([t[i] for t in of_proxies], axis=0))[None]
                 for i, block in enumerate(network.blocks)}
    return bundle, constants, support[:, :1], queries


@pytest.mark.parametrize("cpu_kernels", [True, False])
def test_the_masks_are_those_of_the_float_task(task, cpu_kernels):
    bundle, constants, proxies, queries = task
    template = bundle.load("fp32", "static").whole()
    exact = bind(template, constants, {}, outputs=None, query_size=(SIDE, SIDE))
    small = quantise_frozen(bundle, constants, proxies, {"task": "synthetic"}, cpu_kernels=cpu_kernels)
    onnx.checker.check_model(onnx.load_model_from_string(small), full_check=True)
    expected, found = (open_session(model).run(None, {"query": queries})[0] > 0.5 for model in (exact, small))
    assert 0.02 < expected.mean() < 0.98
    assert dice(found, expected) > 0.97
    assert len(small) < 0.32 * len(exact)
    said = onnx_file.metadata(small)
    assert said["universeg.precision"] == "int8" and said["task"] == "synthetic"
    tensors = onnx_file.tensors(small)
    for name, value in constants.items():
        integers, scales = tensors[f"{name}/integers"], tensors[f"{name}/scales"]
        assert integers.dtype == np.int8
        assert (np.abs(integers * scales[:, None, None] - value[0]) <= 0.5001 * scales[:, None, None]).all()
    kept = {name.rsplit("/", 1)[0] for name, value in tensors.items() if value.dtype == np.float32 and value.size > 200}
    assert all(name.startswith("enc0/") for name in kept), "the first block alone is in float"


@pytest.mark.parametrize("change, message", [
    (lambda c, q: (c, q[:0]), "give one or more"),
    (lambda c, q: (c, q[:, :, :62]), "multiples of 8"),
    (lambda c, q: (c, q[:, :, :32]), r"do not fit queries of 32x64: constant_0 has the shape \(1, 64, 64, 64\)"),
    (lambda c, q: ({n: v for n, v in c.items() if n != "constant_3"}, q), "constant_3 has the shape None"),
])
def test_what_does_not_fit_is_refused(task, change, message):
    bundle, constants, proxies, _ = task
    with pytest.raises(InputError, match=message):
        quantise_frozen(bundle, *change(constants, proxies))
