"""The folded forward against the reference network: same values, same gradients, same state dict."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install torch")

from universeg_rt.errors import InputError
from universeg_rt.spec import NetworkSpec
from universeg_rt.training.network.folded_forward import FoldedUniverSeg
from universeg_rt.training.network.reference import UniverSeg

pytestmark = pytest.mark.torch

SPECS = {
    "v1": NetworkSpec("none", (6,) * 4, (6,) * 3, "max_pool"),
    "paper": NetworkSpec("leaky_relu", (5,) * 5, (5,) * 4, "bilinear"),
    "uneven": NetworkSpec("none", (4, 6, 8), (7, 3), "bilinear", negative_slope=0.2),
    "shallow": NetworkSpec("leaky_relu", (4, 6), (5,), "max_pool"),
}


def pair(spec, seed=0):
    torch.manual_seed(seed)
    plain = UniverSeg(spec).double()
    folded = FoldedUniverSeg(spec).double()
    folded.load_state_dict(plain.state_dict())
    return plain, folded


def inputs(tasks, queries, entries, size, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def random(*shape):
        return torch.rand(*shape, 1, size, size, generator=generator, dtype=torch.float64)

    weights = torch.rand(tasks, entries, generator=generator, dtype=torch.float64)
    return random(tasks, queries), random(tasks, entries), (random(tasks, entries) > 0.6).double(), weights


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("queries, entries", [(1, 1), (3, 1), (1, 5), (2, 3)])
def test_values_and_gradients_equal_the_reference(name, queries, entries):
    plain, folded = pair(SPECS[name])
    query, images, labels, weights = inputs(2, queries, entries, 16 if name != "paper" else 32)
    expected = plain(query.flatten(0, 1), *(x.repeat_interleave(queries, 0) for x in (images, labels, weights)))
    expected = expected.unflatten(0, (2, queries))
    given = folded(query, images, labels, weights)
    scale = expected.abs().max()
    assert given.shape == expected.shape and (given - expected).abs().max() < 1e-12 * scale + 1e-14
    target = torch.rand_like(expected)
    for logits in (expected, given):
        ((torch.sigmoid(10 * logits) - target) ** 2).mean().backward()
    for (key, p), (_, f) in zip(plain.named_parameters(), folded.named_parameters()):
        if p.grad is None or not p.grad.any():  # the dead support branch
            assert f.grad is None or not f.grad.any(), key
        else:
            assert torch.allclose(f.grad, p.grad, rtol=1e-8, atol=1e-14), key


@pytest.mark.parametrize("spec", [
    NetworkSpec("none", (32,) * 4, (32,) * 3, "max_pool"), NetworkSpec("none", (32, 64, 32), (64, 32), "bilinear"),
    NetworkSpec("leaky_relu", (32, 32), (32,), "max_pool"), NetworkSpec("none", (32, 12), (32,), "max_pool")])
def test_float32_equals_the_reference_in_float64(spec):
    """float32 on a CPU goes through the native kernels, where they are built and the channels allow."""
    plain, folded = pair(spec)
    given = folded.float()
    query, images, labels, weights = inputs(2, 2, 3, 32)
    expected = plain(query.flatten(0, 1),
                     *(x.repeat_interleave(2, 0) for x in (images, labels, weights))).unflatten(0, (2, 2))
    logits = given(*(x.float() for x in (query, images, labels, weights)))
    assert (logits - expected).abs().max() < 1e-4 * expected.abs().max()
    target = torch.rand_like(expected)
    for out in (expected, logits):
        ((torch.sigmoid(10 * out) - target) ** 2).mean().backward()
    for (key, p), (_, f) in zip(plain.named_parameters(), given.named_parameters()):
        if p.grad is not None and p.grad.any():
            assert (f.grad - p.grad).abs().max() < 1e-3 * p.grad.abs().max(), key


@pytest.mark.parametrize("name", SPECS)
def test_the_reference_s_own_call_works_too(name):
    plain, folded = pair(SPECS[name], 1)
    query, images, labels, _ = inputs(2, 1, 3, 32, 1)
    with torch.inference_mode():
        assert torch.allclose(folded(query[:, 0], images, labels), plain(query[:, 0], images, labels), atol=1e-13)


def test_state_dict_is_the_reference_s():
    plain, folded = pair(SPECS["v1"])
    assert list(folded.state_dict()) == list(plain.state_dict())


@pytest.mark.parametrize("name", ["v1", "uneven"])
def test_static_takes_the_other_queries_support_terms(name):
    """Against hooks on the reference: m is the cross convolution's mean less what it makes of the query alone."""
    plain, folded = pair(SPECS[name])
    query, images, labels, weights = inputs(1, 3, 4, 16)
    support = [x.repeat_interleave(3, 0) for x in (images, labels, weights)]
    terms = []

    def keep(block, given, _):
        u, v, w = given
        zero = torch.cat([torch.zeros_like(u)[:, None].expand(-1, v.shape[1], -1, -1, -1), v], 2)
        z = block.cross.cross_conv(zero.flatten(0, 1)) - block.cross.cross_conv.bias[:, None, None]
        terms.append((w[:, :, None, None, None] * z.unflatten(0, v.shape[:2])).sum(1))

    hooks = [block.register_forward_hook(keep) for block in (*plain.enc_blocks, *plain.dec_blocks)]
    exact = plain(query[0], *support)
    for hook in hooks:
        hook.remove()
    given, static = folded(query, images, labels, weights, static=True)
    assert (given[0] - exact).abs().max() < 1e-12
    others = [torch.stack([m[[j for j in range(3) if j != i]].mean(0) for i in range(3)]) for m in terms]
    assert (static[0] - folded.static_logits(query[0], others)).abs().max() < 1e-12
    assert (folded.static_logits(query[0], terms) - exact).abs().max() < 1e-12
    static.sum().backward()
    assert all(p.grad is not None for key, p in folded.named_parameters()
               if f"dec_blocks.{len(folded.dec_blocks) - 1}.support" not in key)


def test_static_is_refused_where_it_cannot_be():
    _, folded = pair(SPECS["v1"])
    query, images, labels, _ = inputs(1, 1, 2, 16)
    with pytest.raises(InputError, match="2 queries a support set"):
        folded(query, images, labels, static=True)
    _, folded = pair(SPECS["shallow"])
    query, images, labels, _ = inputs(1, 2, 2, 16)
    with pytest.raises(InputError, match="leaky_relu"):
        folded(query, images, labels, static=True)


def test_wrong_shapes_are_refused():
    _, folded = pair(SPECS["v1"])
    query, images, labels, weights = inputs(2, 2, 3, 16)
    for bad in ((query[..., :12], images, labels), (query, images[:1], labels), (query, images, labels,
                                                                                 weights[:, :2])):
        with pytest.raises(InputError):
            folded(*bad)


def test_with_the_terms_of_the_query_itself_the_static_network_is_the_exact_one():
    for name in ("v1", "uneven"):
        plain, folded = pair(SPECS[name])
        query, images, labels, weights = inputs(2, 1, 4, 16)
        terms = folded.support_terms(query[:, 0], images, labels, weights)
        expected = plain(query[:, 0], images, labels, weights)
        assert (folded.static_logits(query[:, 0], terms) - expected).abs().max() < 1e-12 * expected.abs().max()
        even = folded.support_terms(query[:, 0], images, labels)
        assert (folded.static_logits(query[:, 0], even) - plain(query[:, 0], images, labels)).abs().max() < 1e-12
        assert (even[0] - terms[0]).abs().max() > 1e-3


def test_support_terms_are_refused_where_there_are_none():
    query, images, labels, weights = inputs(1, 1, 2, 16)
    with pytest.raises(InputError, match="support terms need no activation"):
        pair(SPECS["shallow"])[1].support_terms(query[:, 0], images, labels, weights)
    with pytest.raises(InputError, match="support images and labels have shapes"):
        pair(SPECS["v1"])[1].support_terms(query[:, 0], images[:, :, 0], labels, weights)
