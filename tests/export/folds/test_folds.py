"""Each fold against the unfolded block, in float64, borders included."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install torch")
from torch.nn.functional import conv2d

from universeg_rt.export.emit import emit_stages, emit_whole, layers
from universeg_rt.export.emit.graph import GraphBuilder
from universeg_rt.export.folds import FOLDS, compose, fold, mean_through_upsampling, split_query_term
from universeg_rt.export.folds.folded import FoldedNetwork
from universeg_rt.spec import NetworkSpec

from ...conftest import random_weights as float32_weights
from ..conftest import SMALL_SPECS
from ..emit.test_emit import episode, evaluator_of, reference_logits, run_stages

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


def computed(build, **maps: torch.Tensor) -> torch.Tensor:
    """What the nodes that `build(g, *names of maps)` emits give for these maps, in float64."""
    g = GraphBuilder(np.float64)
    made = build(g, *(g.input(name, ["N", value.shape[1], "H", "W"]) for name, value in maps.items()))
    g.output(made, "out", ["N", "C", "H", "W"])
    session = evaluator_of(g.model("term", {}, "0"))
    return tensor(session.run(["out"], {name: value.numpy() for name, value in maps.items()})[0])


def unfolded_cross(weights: dict[str, np.ndarray], name: str, u: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """z = W * (u ‖ v_i) + b of a block, as the published network computes it (paper equation 1)."""
    kernel, bias = (tensor(weights[f"{name}.cross.cross_conv.{part}"]) for part in ("weight", "bias"))
    return conv2d(torch.cat([u.expand(len(v), -1, -1, -1), v], 1), kernel, bias, padding=1)


@pytest.mark.parametrize("spec", [V1, PAPER], ids=["v1", "paper"])
def test_split_query_term(spec):
    """The two terms that are emitted of a split block add up to the unfolded cross convolution."""
    weights = random_weights(spec)
    for block in split_query_term.apply(FoldedNetwork.from_weights(spec, weights)).blocks:
        u, v = maps(1, block.spec.query_channels, 9, 11), maps(4, block.spec.support_channels, 9, 11, seed=2)

        def both(g: GraphBuilder, u: str, v: str, block=block) -> str:
            return g.node("Add", [layers.support_term(g, block, v), layers.query_term(g, block, u)], "sum")

        assert relative_error(computed(both, u=u, v=v), unfolded_cross(weights, block.spec.name, u, v)) < 1e-9


def emitted(network: FoldedNetwork, episode) -> np.ndarray:
    """Logits (B,K,1,H,W) of the whole model that is emitted of a network, with unequal weights."""
    query, images, labels, weights = episode
    return evaluator_of(emit_whole(network, {}, "0", np.float64)).run(
        ["logits"], {"query": query, "support_images": images, "support_labels": labels, "weights": weights})[0]


@pytest.fixture(params=SMALL_SPECS)
def unfolded(request):
    """A specification, its weights, an episode, and the unfolded network's logits."""
    spec = SMALL_SPECS[request.param]
    weights, size = random_weights(spec), 2 * spec.size_multiple
    given = (*episode(spec, 2, 2, 4, size, 2 * size), np.array([[0.1, 0.4, 0.0, 0.5], [0.3, 0.2, 0.4, 0.1]]))
    return spec, weights, given, reference_logits(spec, weights, *given)


@pytest.mark.parametrize("last", [f for f in FOLDS[FOLDS.index(mean_through_upsampling):] if f is not compose],
                         ids=lambda f: f.__name__.rsplit(".", 1)[1])
def test_the_network_after_each_fold_is_the_unfolded_one(unfolded, last):
    spec, weights, given, expected = unfolded
    network = FoldedNetwork.from_weights(spec, weights)
    for module in FOLDS[: FOLDS.index(last) + 1]:
        network = module.apply(network)
    assert np.abs(emitted(network, given) - expected).max() < 1e-9 * np.abs(expected).max()


def test_mean_before_convolution_applies_to_all_blocks_of_v1():
    assert all(notes(folded(V1), "mean_before_convolution").values())


def test_mean_before_convolution_is_refused_after_an_activation_and_rightly(unfolded):
    spec, weights, given, expected = unfolded
    if spec.cross_activation == "none":
        return
    network = fold(spec, weights)
    assert not any(notes(network, "mean_before_convolution").values())
    forced = fold(replace(spec, cross_activation="none"), weights)
    assert np.abs(emitted(forced, given) - expected).max() > 1e-3 * np.abs(expected).max()


@pytest.mark.parametrize("spec", [V1, PAPER], ids=["v1", "paper"])
def test_dead_support_branch_is_the_last_block_only(spec):
    network = folded(spec)
    assert [b.support_weight is None for b in network.blocks] == [False] * (len(network.blocks) - 1) + [True]


def test_mean_through_upsampling_upsamples_one_map_of_the_last_block():
    network = folded(V1)
    applied = notes(network, "mean_through_upsampling")
    assert all(applied[b.name] == b.is_decoder for b in V1.blocks())
    assert not any(notes(folded(PAPER), "mean_through_upsampling").values())
    last = network.blocks[-1].label
    resized = {
        n.name
        for n in emit_whole(network, {}, "0").graph.node if n.op_type == "Resize" and n.name.startswith(f"{last}/")
    }
    assert any("mean" in name for name in resized) and not any("entries" in name for name in resized)


@pytest.mark.parametrize("size", [(8, 8), (3, 5), (4, 4), (5, 3), (16, 9)])
def test_compose_and_border_term_on_the_whole_image(size):
    """What is emitted of the composed block is Ws * z_i + bs of the unfolded z_i, to the last row and column."""
    weights = random_weights(V1)
    block = fold(V1, weights).blocks[0]
    assert block.composed_weight is not None and block.border_kernels is not None
    u, v = maps(1, block.spec.query_channels, *size, seed=3), maps(3, block.spec.support_channels, *size)
    kernel, bias = (tensor(weights[f"{block.spec.name}.support.vmapped.conv.{part}"]) for part in ("weight", "bias"))
    unfolded = conv2d(unfolded_cross(weights, block.spec.name, u, v), kernel, bias, padding=1)

    def whole(g: GraphBuilder, u: str, v: str) -> str:
        of_query = layers.support_query_term(g, block, layers.query_term(g, block, u))
        return g.node("Add", [layers.support_term(g, block, v), of_query], "sum")

    assert relative_error(computed(whole, u=u, v=v), unfolded) < 1e-9


def test_compose_without_border_term_is_wrong_on_the_outermost_ring_only():
    block = folded(V1).blocks[0]
    v = maps(1, 2, 12, 12)
    two = conv2d(conv2d(v, tensor(block.support_term_weight), padding=1), tensor(block.support_weight), padding=1)
    plain = conv2d(v, tensor(block.composed_weight), padding=2)
    wrong = ((plain - two).abs() > 1e-9).any(dim=1)[0]
    assert wrong[0].all() and wrong[-1].all() and wrong[:, 0].all() and wrong[:, -1].all()
    assert not wrong[1:-1, 1:-1].any()


def test_compose_applies_to_the_first_block_of_v1_only():
    v1, paper = fold(NetworkSpec.preset("v1"), random_weights(NetworkSpec.preset("v1"))), folded(PAPER)
    assert [b.composed_weight is not None for b in v1.blocks] == [True] + [False] * 6
    assert all(b.composed_weight is None and b.border_kernels is None for b in paper.blocks)


def test_compose_needs_few_input_channels():
    wide = compose.apply(split_query_term.apply(FoldedNetwork.from_weights(V1, random_weights(V1))))
    reasons = {n.block: n.reason for n in wide.notes if n.fold == "compose" and not n.applied}
    assert "costs more" in reasons["enc_blocks.1"]


@pytest.mark.parametrize("chunk", [1, 3])
def test_streaming_in_chunks_keeps_the_result(unfolded, chunk):
    spec, weights, (query, images, labels, rows), expected = unfolded
    logits = run_stages(emit_stages(fold(spec, weights), {}, "0", np.float64), query[0], images[0], labels[0], rows[0],
                        chunk)
    assert np.abs(logits - expected[:1, 0]).max() < 1e-9 * np.abs(expected).max()


def test_blocks_that_read_entries_are_streamed():
    assert [b.streamed for b in folded(V1).blocks] == [True] * 4 + [False]
    assert all(b.streamed for b in folded(PAPER).blocks)


@pytest.mark.parametrize("spec", [V1, PAPER], ids=["v1", "paper"])
def test_every_fold_states_what_it_did_on_every_block(spec):
    network = folded(spec)
    names = {module.__name__.rsplit(".", 1)[1] for module in FOLDS}
    assert {(n.fold, n.block) for n in network.notes} == {(f, b.name) for f in names for b in spec.blocks()}
    assert all(n.reason for n in network.notes)
