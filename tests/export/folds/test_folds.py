"""Each fold against the unfolded block, in float64, borders included."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install torch")
from torch.nn.functional import conv2d, interpolate, leaky_relu

from universeg_rt.export.folds.folded import FoldedNetwork
from universeg_rt.export.folds import FOLDS, compose, fold
from universeg_rt.spec import NetworkSpec

from ...conftest import random_weights as float32_weights
from ..conftest import SMALL_SPECS

pytestmark = pytest.mark.torch


def random_weights(spec, dtype=np.float64):
    return float32_weights(spec, dtype=dtype)

V1, PAPER = SMALL_SPECS["v1"], SMALL_SPECS["paper"]


def folded(spec: NetworkSpec) -> FoldedNetwork:
    return fold(spec, random_weights(spec))


def tensor(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(array))


def maps(*shape: int, seed: int = 1) -> torch.Tensor:
    return tensor(np.random.default_rng(seed).standard_normal(shape))


def relative_error(actual: torch.Tensor, expected: torch.Tensor) -> float:
    return float((actual - expected).abs().max() / expected.abs().max())


def notes(network: FoldedNetwork, name: str) -> dict[str, bool]:
    return {n.block: n.applied for n in network.notes if n.fold == name}


@pytest.mark.parametrize("spec", [V1, PAPER], ids=["v1", "paper"])
def test_split_query_term(spec):
    network = folded(spec)
    for block in network.blocks:
        u, v = maps(1, block.spec.query_channels, 9, 11), maps(4, block.spec.support_channels, 9, 11, seed=2)
        whole = conv2d(torch.cat([u.expand(4, -1, -1, -1), v], 1), tensor(block.cross_weight), tensor(block.cross_bias), padding=1)
        q = conv2d(u, tensor(block.query_term_weight), tensor(block.cross_bias), padding=1)
        split = conv2d(v, tensor(block.support_term_weight), padding=1) + q
        assert relative_error(split, whole) < 1e-9


def test_mean_before_convolution_with_weights():
    network = folded(V1)
    assert all(notes(network, "mean_before_convolution").values())
    block = network.blocks[1]
    v, weights = maps(5, block.spec.support_channels, 8, 8), torch.tensor([0.1, 0.4, 0.0, 0.2, 0.3], dtype=torch.float64)
    kernel = tensor(block.support_term_weight)
    after = (weights[:, None, None, None] * conv2d(v, kernel, padding=1)).sum(0, keepdim=True)
    before = conv2d((weights[:, None, None, None] * v).sum(0, keepdim=True), kernel, padding=1)
    assert relative_error(before, after) < 1e-9


def test_mean_before_convolution_is_refused_after_an_activation_and_rightly():
    network = folded(PAPER)
    assert not any(notes(network, "mean_before_convolution").values())
    z = maps(5, 3, 8, 8)
    assert relative_error(leaky_relu(z.mean(0), 0.01), leaky_relu(z, 0.01).mean(0)) > 1e-2


@pytest.mark.parametrize("spec", [V1, PAPER], ids=["v1", "paper"])
def test_dead_support_branch_is_the_last_block_only(spec):
    network = folded(spec)
    assert [b.support_weight is None for b in network.blocks] == [False] * (len(network.blocks) - 1) + [True]


def test_mean_through_upsampling():
    low, skip = maps(6, 4, 5, 7), maps(6, 3, 10, 14)
    up = lambda x: interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)
    after = torch.cat([up(low), skip], 1).mean(0, keepdim=True)
    before = torch.cat([up(low.mean(0, keepdim=True)), skip.mean(0, keepdim=True)], 1)
    assert relative_error(before, after) < 1e-9
    applied = notes(folded(V1), "mean_through_upsampling")
    assert all(applied[b.name] == b.is_decoder for b in V1.blocks())
    assert not any(notes(folded(PAPER), "mean_through_upsampling").values())


def composed_with_border(v: torch.Tensor, weight: np.ndarray, kernels) -> torch.Tensor:
    """The composed convolution with each edge and corner computed by its own kernel."""
    out = conv2d(v, tensor(weight), padding=2)
    out[:, :, :1] = conv2d(v[:, :, :3], tensor(kernels.top), padding=(0, 2))
    out[:, :, -1:] = conv2d(v[:, :, -3:], tensor(kernels.bottom), padding=(0, 2))
    out[:, :, :, :1] = conv2d(v[:, :, :, :3], tensor(kernels.left), padding=(2, 0))
    out[:, :, :, -1:] = conv2d(v[:, :, :, -3:], tensor(kernels.right), padding=(2, 0))
    out[:, :, :1, :1] = conv2d(v[:, :, :3, :3], tensor(kernels.top_left))
    out[:, :, :1, -1:] = conv2d(v[:, :, :3, -3:], tensor(kernels.top_right))
    out[:, :, -1:, :1] = conv2d(v[:, :, -3:, :3], tensor(kernels.bottom_left))
    out[:, :, -1:, -1:] = conv2d(v[:, :, -3:, -3:], tensor(kernels.bottom_right))
    return out


@pytest.mark.parametrize("size", [(8, 8), (3, 5), (4, 4), (5, 3), (16, 9)])
def test_compose_and_border_term_on_the_whole_image(size):
    block = folded(V1).blocks[0]
    v = maps(3, 2, *size)
    two = conv2d(conv2d(v, tensor(block.support_term_weight), padding=1), tensor(block.support_weight), padding=1)
    one = composed_with_border(v, block.composed_weight, block.border_kernels)
    assert relative_error(one, two) < 1e-9


def test_compose_without_border_term_is_wrong_on_the_outermost_ring_only():
    block = folded(V1).blocks[0]
    v = maps(1, 2, 12, 12)
    two = conv2d(conv2d(v, tensor(block.support_term_weight), padding=1), tensor(block.support_weight), padding=1)
    plain = conv2d(v, tensor(block.composed_weight), padding=2)
    wrong = ((plain - two).abs() > 1e-9).any(dim=1)[0]
    assert wrong[0].all() and wrong[-1].all() and wrong[:, 0].all() and wrong[:, -1].all()
    assert not wrong[1:-1, 1:-1].any()


def test_composed_query_term_and_bias():
    """Ws * (Wv*v + q) + bs = (Ws∘Wv)*v + (Ws*q + bs), with q zero outside the image."""
    block = folded(V1).blocks[0]
    v, q = maps(2, 2, 8, 8), maps(1, block.features, 8, 8, seed=3)
    kernel, bias = tensor(block.support_weight), tensor(block.support_bias)
    whole = conv2d(conv2d(v, tensor(block.support_term_weight), padding=1) + q, kernel, bias, padding=1)
    parts = composed_with_border(v, block.composed_weight, block.border_kernels) + conv2d(q, kernel, bias, padding=1)
    assert relative_error(parts, whole) < 1e-9


def test_compose_applies_to_the_first_block_of_v1_only():
    v1, paper = fold(NetworkSpec.preset("v1"), random_weights(NetworkSpec.preset("v1"))), folded(PAPER)
    assert [b.composed_weight is not None for b in v1.blocks] == [True] + [False] * 6
    assert all(b.composed_weight is None and b.border_kernels is None for b in paper.blocks)


def test_compose_needs_few_input_channels():
    wide = compose.apply(FoldedNetwork.from_weights(V1, random_weights(V1)).rewrite(
        "split_query_term", lambda _, b: ({"support_term_weight": b.cross_weight[:, b.spec.query_channels:]}, "")))
    reasons = {n.block: n.reason for n in wide.notes if n.fold == "compose" and not n.applied}
    assert "costs more" in reasons["enc_blocks.1"]


def test_streaming_keeps_the_mean():
    x, weights = maps(13, 4, 6, 6), torch.softmax(maps(13, seed=4), 0)
    whole = (weights[:, None, None, None] * x).sum(0)
    chunks = sum((w[:, None, None, None] * c).sum(0) for w, c in zip(weights.split(5), x.split(5)))
    assert relative_error(chunks, whole) < 1e-9
    assert [b.streamed for b in folded(V1).blocks] == [True] * 4 + [False]
    assert all(b.streamed for b in folded(PAPER).blocks)


@pytest.mark.parametrize("spec", [V1, PAPER], ids=["v1", "paper"])
def test_every_fold_states_what_it_did_on_every_block(spec):
    network = folded(spec)
    names = {module.__name__.rsplit(".", 1)[1] for module in FOLDS}
    assert {(n.fold, n.block) for n in network.notes} == {(f, b.name) for f in names for b in spec.blocks()}
    assert all(n.reason for n in network.notes)
