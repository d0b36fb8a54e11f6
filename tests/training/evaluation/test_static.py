"""The static way: equal to the exact one where the proxy is the query, and the mean over proxies by hand."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install torch")

from universeg_rt import Ensemble, Segmenter, SupportSet
from universeg_rt.bundle.bundle import Bundle
from universeg_rt.errors import InputError
from universeg_rt.runners.options import Options
from universeg_rt.spec import NetworkSpec
from universeg_rt.training.evaluation.static import PROXIES, StaticRunner
from universeg_rt.training.network.folded_forward import FoldedUniverSeg

from ...conftest import discs

pytestmark = pytest.mark.torch


@pytest.fixture(scope="module")
def static(small_bundle):
    bundle = Bundle.open(small_bundle)
    return Segmenter(bundle, StaticRunner.open(bundle, "auto", Options(threads=1)))


def test_with_the_query_as_its_own_proxy_it_is_exact(small_bundle, static):
    images, labels = discs(1, 32, 32)
    support = SupportSet.from_arrays(images, labels)
    exact = Segmenter.open(small_bundle, threads=1).prepare(support).member_probabilities(images[0])
    assert np.abs(static.prepare(support).member_probabilities(images[0]) - exact).max() < 1e-5
    other = discs(2, 32, 32, seed=1)[0][1]
    exact = Segmenter.open(small_bundle, threads=1).prepare(support).member_probabilities(other)
    assert np.abs(static.prepare(support).member_probabilities(other) - exact).max() > 1e-5, "of another it is not"


def test_terms_are_the_mean_over_proxies_that_never_see_themselves(static):
    random = torch.Generator().manual_seed(0)
    support = torch.rand(3, 2, 32, 32, generator=random).round(decimals=2)
    weights = torch.tensor([0.5, 0.25, 0.25])
    network = static.runner.network
    by_hand = [network.support_terms(support[i, :1][None], support[o, :1][None], support[o, 1:][None], weights[o][None])
               for i, o in ((0, [1, 2]), (1, [0, 2]), (2, [0, 1]))]
    padded = torch.cat([support, torch.ones(1, 2, 32, 32)]).numpy()[None]
    found = static.runner._prepare(padded, np.array([[0.5, 0.25, 0.25, 0]], np.float32))[0]
    for block, term in enumerate(found):
        assert torch.allclose(term, torch.stack([terms[block] for terms in by_hand]).mean(0), atol=1e-5)


def test_no_more_proxies_than_eight_alike_each_time(static, monkeypatch):
    images, labels = discs(PROXIES + 4, 32, 32)
    support, asked = SupportSet.from_arrays(images, labels), []
    terms = static.runner.network.support_terms

    def counted(*given):
        asked.append(given[0].numpy().tobytes())
        return terms(*given)

    monkeypatch.setattr(static.runner.network, "support_terms", counted)
    for _ in range(2):
        static.prepare(support, Ensemble(1))
    assert len(asked) == 2 * PROXIES and len(set(asked)) == PROXIES and asked[:PROXIES] == asked[PROXIES:]


def test_what_cannot_run_so_is_refused(small_bundle):
    bundle = Bundle.open(small_bundle)
    with pytest.raises(InputError, match="fp32; given is int8"):
        StaticRunner.open(bundle, "int8", Options())
    network = FoldedUniverSeg(NetworkSpec("leaky_relu", (4, 4), (4,), "max_pool"))
    image = torch.rand(1, 1, 16, 16)
    with pytest.raises(InputError, match="leaky_relu"):
        network.support_terms(image, image[None], image[None])
