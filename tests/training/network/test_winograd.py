"""Training's native kernels against torch in float64."""

import itertools

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install torch")

from torch.nn import functional as F

from universeg_rt.training.network import winograd

from ...conftest import native_part

native_part()
pytestmark = pytest.mark.torch


@pytest.fixture(params=[1, 3])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def relative(a, b):
    return float((a - b).abs().max() / b.abs().max())


@pytest.mark.parametrize("count, inputs, outputs, height, width", [(2, 64, 64, 32, 32), (3, 128, 64, 16, 16),
                                                                   (5, 64, 64, 4, 4), (1, 32, 64, 6, 12),
                                                                   (2, 64, 32, 10, 70), (1, 32, 32, 5, 7),
                                                                   (40, 32, 32, 2, 2)])
def test_convolution_and_its_gradients(count, inputs, outputs, height, width, threads):
    torch.manual_seed(0)
    x, weight = torch.randn(count, inputs, height, width), torch.randn(outputs, inputs, 3, 3) / inputs**0.5
    bias, gradient = torch.randn(outputs), torch.randn(count, outputs, height, width)

    def run(function, dtype):
        leaves = [t.to(dtype).requires_grad_() for t in (x, weight, bias)]
        out = function(*leaves)
        return [out.detach(), *torch.autograd.grad(out, leaves, gradient.to(dtype))]

    assert winograd.usable(x, weight)
    expected = run(lambda *a: F.conv2d(*a, padding=1), torch.float64)
    for ours, theirs in zip(run(winograd.conv3x3, torch.float32), expected):
        assert ours.shape == theirs.shape and relative(ours.double(), theirs) < 1e-4


def test_other_layouts_types_and_channels():
    torch.manual_seed(0)
    x, weight = torch.randn(2, 8, 8, 64), torch.randn(32, 64, 3, 3)
    strided = x.movedim(3, 1)[:, :, ::2].flip(2)
    assert relative(winograd.conv3x3(strided, weight), F.conv2d(strided, weight, padding=1)) < 1e-4
    part = torch.randn(64, 96, 3, 3)[:, :64]  # a view of a weight, as the cross convolution's halves are
    assert relative(winograd.conv3x3(strided, part), F.conv2d(strided, part, padding=1)) < 1e-4
    shifted = torch.randn(2 * 64 * 8 * 8 + 1)[1:].view(2, 8, 8, 64).movedim(3,
                                                                            1)  # not on a cache line; nor is this bias:
    bias = torch.randn(33)[1:]
    assert relative(winograd.conv3x3(shifted, weight, bias), F.conv2d(shifted, weight, bias, padding=1)) < 1e-4
    for a, w in ((x.double().movedim(3, 1), weight.double()), (torch.randn(1, 3, 8, 8), torch.randn(32, 3, 3, 3)),
                 (torch.randn(1, 64, 8, 8), torch.randn(1, 64, 3, 3))):
        assert not winograd.usable(a, w)
        assert torch.equal(winograd.conv3x3(a, w), F.conv2d(a, w, padding=1))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert winograd.conv3x3(strided, weight).dtype == torch.bfloat16


def test_a_fall_back_to_other_convolutions_is_said_once(caplog, monkeypatch):
    winograd._say_slower.cache_clear()
    odd = winograd._native.block() + 8
    x, weight = torch.randn(1, odd, 8, 8), torch.randn(odd, odd, 3, 3)
    for _ in range(3):
        winograd.conv3x3(x, weight)
        winograd.conv3x3(torch.randn(1, 1, 8, 8), torch.randn(odd, 1, 3, 3))  # an image: nothing is lost
    (record,) = caplog.records
    assert record.name == "universeg_rt.training" and f"{odd} to {odd} channels run by torch" in record.getMessage()
    monkeypatch.setattr(winograd, "_native", None)
    for _ in range(2):
        winograd.conv3x3(x, weight)
    assert "not built here" in caplog.records[1].getMessage() and len(caplog.records) == 2
    winograd._say_slower.cache_clear()


def plain_first_block(support, inner, outer, add, weights, slope):
    z = F.conv2d(F.conv2d(support.flatten(0, 1), inner, padding=1), outer, padding=1).unflatten(0, support.shape[:2])
    v = F.leaky_relu(z[:, None] + add[:, :, None], slope)  # (T,Q,S,C,H,W)
    mean = (weights[..., None, None, None] * v).sum(2)
    return F.max_pool2d(v.flatten(0, 2), 2), mean.flatten(0, 1)


@pytest.mark.parametrize("tasks, queries, entries, size", [(1, 1, 1, (4, 4)), (1, 2, 3, (16, 16)), (2, 1, 8, (8, 20)),
                                                           (2, 3, 2, (10, 6))])
def test_first_block_and_its_gradients(tasks, queries, entries, size, threads):
    torch.manual_seed(1)
    support = torch.rand(tasks, entries, 2, *size)
    inner, outer = torch.randn(64, 2, 3, 3), torch.randn(32, 64, 3, 3) / 20
    add = torch.randn(tasks, queries, 32, *size)
    weights = torch.rand(tasks, queries, entries)
    gradients = torch.randn(tasks * queries * entries, 32, size[0] // 2,
                            size[1] // 2), torch.randn(tasks * queries, 32, *size)

    def run(function, dtype):
        leaves = [t.to(dtype).requires_grad_() for t in (inner, outer, add)]
        outs = function(support.to(dtype), *leaves, weights.to(dtype), 0.01)
        return [o.detach() for o in outs] + list(torch.autograd.grad(outs, leaves, [g.to(dtype) for g in gradients]))

    for ours, theirs in zip(run(winograd.first_block, torch.float32), run(plain_first_block, torch.float64)):
        assert ours.shape == theirs.shape and relative(ours.double(), theirs) < 1e-4


def test_training_after_inference():
    winograd._taps.cache_clear()
    inner, outer = torch.rand(4, 2, 3, 3), torch.rand(5, 4, 3, 3, requires_grad=True)
    with torch.inference_mode():
        known = winograd._composed(inner, outer)
    found = winograd._composed(inner, outer)
    found.sum().backward()
    assert torch.equal(found, known) and outer.grad.abs().sum() > 0


def test_first_block_gives_equal_maxima_to_the_first():
    support, add = torch.zeros(1, 1, 2, 4, 4), torch.ones(1, 1, 32, 4, 4).requires_grad_()
    inner, outer = torch.zeros(32, 2, 3, 3), torch.zeros(32, 32, 3, 3)
    pooled, _ = winograd.first_block(support, inner, outer, add, torch.ones(1, 1, 1), 0.01)
    gradient, = torch.autograd.grad(pooled.sum(), add)
    expected = torch.zeros(4, 4)
    expected[::2, ::2] = 1.0
    assert torch.equal(gradient[0, 0, 5], expected)


def test_the_same_to_the_bit_each_time(threads):
    torch.manual_seed(2)
    x, weight = torch.randn(6, 64, 16, 16, requires_grad=True), torch.randn(64, 64, 3, 3, requires_grad=True)
    once, again = (torch.autograd.grad(winograd.conv3x3(x, weight).square().sum(), [x, weight]) for _ in range(2))
    assert all(map(torch.equal, once, again))


def test_wrong_shapes_are_refused():
    native, block = winograd._native, winograd._native.block()
    x, out = torch.zeros(1, 4, 4, block).numpy(), torch.zeros(1, 4, 4, block).numpy()
    weights = torch.zeros(36, 1, block, block).numpy()
    native.convolve(x, weights, None, out, 1)
    for arguments in itertools.chain([(x[..., :1], weights, None, out, 1), (x, weights[:9], None, out, 1),
                                      (x, weights, None, out[:, :2].copy(), 1)],
                                     [(x, weights, torch.zeros(3).numpy(), out, 1), (x, weights, None, out, 0)]):
        with pytest.raises(ValueError):
            native.convolve(*arguments)
    with pytest.raises(ValueError):
        native.convolve_gradient(x, out[:, :2].copy(), 1)
