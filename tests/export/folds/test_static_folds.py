"""Each fold of the static network against the unfolded one in PyTorch, in float64, borders included."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install torch")
from torch.nn.functional import conv2d

from universeg_rt.errors import InputError
from universeg_rt.export.emit import emit_static, layers
from universeg_rt.export.emit.graph import GraphBuilder
from universeg_rt.export.folds import STATIC_FOLDS, biases_in_constant, constant_through_target, fold, fold_static
from universeg_rt.export.folds.folded import FoldedNetwork
from universeg_rt.frozen.record import constant_name
from universeg_rt.spec import NetworkSpec
from universeg_rt.training.network.folded_forward import FoldedUniverSeg

from ...conftest import random_weights
from ..conftest import SMALL_SPECS
from ..emit.test_emit import evaluator_of
from .test_folds import computed, maps, notes, relative_error, tensor

pytestmark = pytest.mark.torch

STATIC_SPECS = {name: spec for name, spec in SMALL_SPECS.items() if spec.cross_activation == "none"}
STATIC_SPECS["deep"] = NetworkSpec("none", (3, 4, 2, 5, 3), (2, 3, 4, 2), "max_pool", negative_slope=1 / 16)


@pytest.fixture(params=sorted(STATIC_SPECS))
def unfolded(request):
    """A specification, its weights, two queries, each block's term, and the unfolded static network's logits."""
    spec = STATIC_SPECS[request.param]
    weights, rng = random_weights(spec, dtype=np.float64), np.random.default_rng(5)
    height, width = 2 * spec.size_multiple, 3 * spec.size_multiple
    query = rng.random((2, 1, height, width))
    terms = [rng.standard_normal((b.features, height >> b.level, width >> b.level)) for b in spec.blocks()]
    network = FoldedUniverSeg(spec).double()
    network.load_state_dict({key: torch.from_numpy(value) for key, value in weights.items()})
    with torch.inference_mode():
        logits = network.static_logits(tensor(query), [tensor(t)[None] for t in terms]).numpy()
    return spec, weights, query, terms, logits


def emitted(network: FoldedNetwork, query: np.ndarray, terms: list[np.ndarray]) -> np.ndarray:
    """Logits (B,1,H,W) of the static model that is emitted of a network."""
    feed = {constant_name(block.spec): constant_through_target.constant(block, term)[None]
            for block, term in zip(network.blocks, terms, strict=True)}
    (probability,) = evaluator_of(emit_static(network, {}, "0", np.float64)).run(None, {"query": query, **feed})
    return np.log(probability / (1 - probability))


@pytest.mark.parametrize("taken", range(len(STATIC_FOLDS) + 1))
def test_the_static_network_after_each_fold_is_the_unfolded_one(unfolded, taken):
    spec, weights, query, terms, expected = unfolded
    network = fold(spec, weights)
    for module in STATIC_FOLDS[:taken]:
        network = module.apply(network)
    # Logits come back from probabilities, which costs digits.
    assert np.abs(expected).max() < 20
    assert np.abs(emitted(network, query, terms) - expected).max() < 1e-6 * np.abs(expected).max()


def v1_block(folds):
    network = fold(SMALL_SPECS["v1"], random_weights(SMALL_SPECS["v1"], dtype=np.float64))
    for module in folds:
        network = module.apply(network)
    return network.blocks[0]


def unfolded_block(block, u, m):
    """Wt * (Wu * u + b + m) + bt."""
    z = conv2d(u, tensor(block.query_term_weight), tensor(block.cross_bias), padding=1) + m
    return conv2d(z, tensor(block.target_weight), tensor(block.target_bias), padding=1)


@pytest.mark.parametrize("size", [(8, 8), (3, 5), (1, 4)])
def test_constant_through_target(size):
    block = v1_block([constant_through_target])
    u, m = maps(3, 1, *size), maps(1, block.features, *size, seed=2)
    c = tensor(constant_through_target.constant(block, m[0].numpy()))
    q = conv2d(u, tensor(block.query_term_weight), tensor(block.cross_bias), padding=1)
    ours = conv2d(q, tensor(block.target_weight), tensor(block.target_bias), padding=1) + c
    assert relative_error(ours, unfolded_block(block, u, m)) < 1e-9


@pytest.mark.parametrize("size", [(8, 8), (3, 5), (1, 4)])
def test_biases_in_constant(size):
    block = v1_block([constant_through_target, biases_in_constant])
    u, m = maps(3, 1, *size), maps(1, block.features, *size, seed=2)
    c = tensor(constant_through_target.constant(block, m[0].numpy()))
    q = conv2d(u, tensor(block.query_term_weight), padding=1)
    expected = unfolded_block(block, u, m)
    assert relative_error(conv2d(q, tensor(block.target_weight), padding=1) + c, expected) < 1e-9
    inside = conv2d(m, tensor(block.target_weight), padding=1) + tensor(
        block.target_weight.sum((2, 3)) @ block.cross_bias + block.target_bias)[:, None, None]
    plain = conv2d(q, tensor(block.target_weight), padding=1) + inside
    assert relative_error(plain,
                          expected) > 1e-3, "a bias taken through as one number a channel must be wrong on the border"


@pytest.mark.parametrize("size", [(8, 8), (3, 5), (4, 4), (16, 9)])
def test_compose_query_on_the_whole_image(size):
    block = v1_block(STATIC_FOLDS)
    u, m = maps(3, 1, *size), maps(1, block.features, *size, seed=2)
    c = tensor(constant_through_target.constant(block, m[0].numpy()))

    def composed(g: GraphBuilder, u: str) -> str:
        return layers.composed(g, "composed", u, block.query_composed_weight, block.query_border_kernels, "whole")

    assert relative_error(computed(composed, u=u) + c, unfolded_block(block, u, m)) < 1e-9


def test_which_blocks_take_which_fold():
    v1 = NetworkSpec.preset("v1")
    network = fold_static(fold(v1, random_weights(v1)))
    assert all(notes(network, "constant_through_target").values()) and all(
        notes(network, "biases_in_constant").values())
    assert [b.query_composed_weight is not None for b in network.blocks] == [True] + [False] * 6
    reasons = {n.block: n.reason for n in network.notes if n.fold == "compose_query"}
    assert "25 instead of 585 multiplications" in reasons["enc_blocks.0"] and "costs more" in reasons["enc_blocks.1"]


def test_an_activation_in_the_cross_convolution_has_no_static_form():
    paper = SMALL_SPECS["paper"]
    network = fold(paper, random_weights(paper))
    with pytest.raises(InputError, match="no static form"):
        fold_static(network)
    for module in STATIC_FOLDS:
        network = module.apply(network)
    for module in STATIC_FOLDS:
        assert not any(notes(network, module.__name__.rsplit(".", 1)[1]).values())
