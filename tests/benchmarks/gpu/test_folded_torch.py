"""The folded network in PyTorch, with and without the kernels."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the benchmark needs torch")
pytest.importorskip("onnx", reason="emitting the models needs onnx")

from universeg_rt.benchmarks.gpu import folded_torch
from universeg_rt.errors import RunnerError
from universeg_rt.export.gate.inputs import make_inputs
from universeg_rt.export.gate.parity import Reference
from universeg_rt.spec import NetworkSpec

from ...conftest import SMALL_SPEC, random_weights
from ...kernels.conftest import native  # noqa: F401 (a fixture)

pytestmark = pytest.mark.torch


@pytest.mark.parametrize("spec", [SMALL_SPEC, NetworkSpec("none", (6, 5), (4,), "max_pool"),
                                  NetworkSpec("none", (4, 5, 6, 7), (6, 5, 4), "max_pool")], ids=str)
@pytest.mark.parametrize("channels_last", [False, True])
def test_the_folded_network_is_the_reference(spec, channels_last):
    weights = random_weights(spec)
    network = folded_torch.FoldedInference(spec, weights, "cpu", torch.float32, channels_last=channels_last)
    support, entry_weights, query = make_inputs("random", 32, 48, 3, 2)
    queries = np.concatenate([query, query[:, :, ::-1]])
    with torch.inference_mode():
        prepared = network.prepare(torch.from_numpy(support), torch.from_numpy(entry_weights))
        logits = network.forward(torch.from_numpy(queries), prepared).numpy()
    reference = Reference(spec, weights)
    expected = np.concatenate([reference._run(support, entry_weights, one[None], False) for one in queries])
    assert np.abs(logits - expected).max() < 1e-4


@pytest.mark.parametrize("channels_last", [False, True])
def test_with_the_kernels_it_gives_the_same(native, channels_last):  # noqa: F811
    from universeg_rt.kernels.support_mean.check.devices import Dry

    weights = random_weights(SMALL_SPEC)
    support, entry_weights, query = make_inputs("random", 32, 32, 3, 2)
    called = []
    operation = folded_torch.kernel_support_mean(Dry(native.__file__), channels_last)

    def counted(*given):
        called.append(given[4:])
        return operation(*given)

    results = []
    for support_mean in (None, counted):
        network = folded_torch.FoldedInference(SMALL_SPEC, weights, "cpu", torch.float32, support_mean, channels_last)
        with torch.inference_mode():
            prepared = network.prepare(torch.from_numpy(support), torch.from_numpy(entry_weights))
            results.append(network.forward(torch.from_numpy(query), prepared).numpy())
    assert np.abs(results[0] - results[1]).max() < 1e-5
    # (pool, full-resolution maps read): both encoders that pool, the deepest, and the decoder before the last.
    assert called == [(True, False), (True, True), (False, True), (False, False)]


def test_means_of_half_precision_make_no_float32_copy_of_the_maps():
    maps = torch.rand(1, 2, 300, 3, 4, 4).half() + 4
    for weights in (torch.full((2, 300), 1 / 300), torch.rand(2, 300).softmax(1)):
        equal = bool((weights == weights[0, 0]).all())
        prepared = folded_torch.Prepared(maps, maps[:, :, 0], weights, equal)
        seen: list = []

        class Watch(torch.utils._python_dispatch.TorchDispatchMode):
            def __torch_dispatch__(self, function, types, given=(), named=None, seen=seen):
                out = function(*given, **(named or {}))
                seen.append((out.dtype, out.numel()))
                return out

        with Watch():
            mean = prepared.mean(maps)
        expected = torch.einsum("ks,bkschw->bkchw", weights, maps.float())
        assert mean.dtype == torch.float16 and (mean.float() - expected).abs().max() < 5e-3
        assert not [n for dtype, n in seen if dtype == torch.float32 and n >= maps.numel()]
        assert bool([n for _, n in seen if n >= maps.numel()]) == (not equal)


def test_another_variant_is_refused_by_name():
    spec = NetworkSpec("leaky_relu", (6, 5), (4,), "bilinear")
    with pytest.raises(RunnerError, match="released variant"):
        folded_torch.FoldedInference(spec, random_weights(spec), "cpu", torch.float32)
