"""Training on a CPU by the native kernels (kernels/cpu/training/training.h), where they are built: 3x3 convolutions and
the first block.

Winograd's F(4x4,3x3) multiplies four times less than a direct convolution: forward, the input's and the weights'
gradient. The first block's full-resolution maps of the support are never stored: the backward pass computes them anew,
rows at a time.
Everywhere else (other devices, types, channels) `conv3x3` is F.conv2d, and `first_block` is not to be used.
"""

from __future__ import annotations

import functools
import logging

import torch
from torch import Tensor
from torch.nn import functional as F

from universeg_rt.errors import TrainingError

try:
    from universeg_rt import _native
except ImportError:  # installed without a compiler
    _native = None

# Lavin and Gray, arXiv:1509.09308: the weights' transform u = G w G', both sides at once.
_G = torch.tensor([[1 / 4, 0, 0], [-1 / 6, -1 / 6, -1 / 6], [-1 / 6, 1 / 6, -1 / 6],
                   [1 / 24, 1 / 12, 1 / 6], [1 / 24, -1 / 12, 1 / 6], [0, 0, 1]], dtype=torch.float64)
_GG = torch.kron(_G, _G).float()  # (36,9)


_FEW = 8  # channels: images, labels and logits have fewer, which no vector is for


def usable(x: Tensor, weight: Tensor) -> bool:
    """Whether the native kernels can convolve x (N,I,H,W) by weight (O,I,3,3).

    Warns once on the logger `universeg_rt.training` where they would but for the weight's channels, or but for not
    being built.
    """
    if x.device.type != "cpu" or not x.dtype == weight.dtype == torch.float32 or torch.is_autocast_enabled("cpu"):
        return False
    outputs, inputs = weight.shape[:2]
    if _native is not None and outputs % _block() == 0 and inputs % _block() == 0:
        return True
    if min(outputs, inputs) >= _FEW:
        _say_slower(None if _native is None else (inputs, outputs))
    return False


@functools.cache
def _say_slower(channels: tuple[int, int] | None) -> None:
    """channels: inputs and outputs of the convolution; None where there are no native kernels."""
    if channels is None:
        text = ("the native kernels are not built here: torch's own convolutions train instead, slower; "
                "reinstall where there is a C++ compiler")
    else:
        text = (
            f"3x3 convolutions of {channels[0]} to {channels[1]} channels run by torch's own kernels, slower than the "
            f"native ones: those take multiples of {_block()} channels on this processor")
    logging.getLogger("universeg_rt.training").warning(text)


def conv3x3(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x (N,I,H,W) convolved by weight (O,I,3,3) with zeros around, plus bias (O,) -> (N,O,H,W),
    channels last if native."""
    if not usable(x, weight):
        return F.conv2d(x, weight, bias, padding=1)
    return _Conv3x3.apply(x, weight, bias)


def first_block(
    support: Tensor, inner: Tensor, outer: Tensor, add: Tensor, weights: Tensor, slope: float
) -> tuple[Tensor, Tensor]:
    """v = LeakyReLU(outer * (inner * support) + add) of every query and entry: its 2x2 maximum (T·Q·S,C,H/2,W/2) and
    its weighted mean over the entries (T·Q,C,H,W), all channels last.

    support (T,S,2,H,W), inner (M,2,3,3), outer (C,M,3,3), add (T,Q,C,H,W), weights (T,Q,S). Gradients: inner, outer and
    add.
    """
    return _FirstBlock.apply(support, _composed(inner, outer), add, weights, slope)


def _composed(inner: Tensor, outer: Tensor) -> Tensor:
    """The 5x5 kernels (9,I,25,O) of outer * inner, one for each position of a pixel:
    the border cuts the inner result off."""
    pairs = torch.einsum("omt,mis->tsio", outer.flatten(2),
                         inner.flatten(2))  # tap of the outer kernel, tap of the inner
    return (_taps() @ pairs.flatten(2).flatten(0, 1)).view(9, 25, inner.shape[1], -1).transpose(1, 2).contiguous()


@functools.cache
@torch.inference_mode(False)  # else the first caller's mode would be that of all
def _taps() -> Tensor:
    """(9·25,81): which pairs of taps meet in which tap of the composed kernel, for each position."""
    table = torch.zeros(3, 3, 5, 5, 3, 3, 3, 3)
    steps = [(position, a, b) for position in range(3) for a in range(3) for b in range(3)
             if a - 1 not in _OUTSIDE[position]]
    for row, a, b in steps:
        for column, c, d in steps:
            table[row, column, a + b, c + d, a, c, b, d] = 1.0
    return table.flatten(4).flatten(0, 3)


_OUTSIDE = {0: (-1, ), 1: (),
            2: (1, )}  # rows of the outer kernel that lie outside at the first, a middle and the last row


class _FirstBlock(torch.autograd.Function):
    @staticmethod
    def forward(ctx, support, kernels, add, weights, slope):
        add = add.movedim(2, 4).contiguous()
        tasks, queries, height, width, features = add.shape
        inputs = [_aligned(x.detach()) for x in (support, kernels, add, weights.expand(tasks, queries, -1))]
        pooled = torch.empty(tasks * queries * support.shape[1], height // 2, width // 2, features)
        mean = torch.empty(tasks * queries, height, width, features)
        _call("first_forward", *inputs, slope, pooled.numpy(), mean.numpy())
        ctx.inputs, ctx.slope, ctx.add = inputs, slope, add
        return pooled.movedim(3, 1), mean.movedim(3, 1)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, pooled, mean):
        of_add = torch.empty_like(ctx.add)
        sums = _call("first_backward", *ctx.inputs, ctx.slope, *(_aligned(x.movedim(1, 3)) for x in (pooled, mean)),
                     of_add.numpy())
        return None, torch.from_numpy(sums), of_add.movedim(4, 2), None, None


class _Conv3x3(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        x = x.contiguous(memory_format=torch.channels_last)
        ctx.save_for_backward(x, weight)
        return _convolve(x, weight, bias)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient: Tensor):
        x, weight = ctx.saved_tensors
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        of_x = of_weight = of_bias = None
        if ctx.needs_input_grad[0]:
            of_x = _convolve(gradient, weight.transpose(0, 1).flip(2, 3), None)
        if ctx.needs_input_grad[1]:
            sums = _call("convolve_gradient", _array(x), _array(gradient))
            of_weight = (_GG.T @ torch.from_numpy(sums).flatten(1)).view(3, 3, *sums.shape[1:]).permute(3, 2, 0, 1)
        if ctx.needs_input_grad[2]:
            of_bias = gradient.sum((0, 2, 3))
        return of_x, of_weight, of_bias


def _call(name: str, *arguments):
    """A function of the native part on all threads of torch;
    raises TrainingError where memory runs out, in any of its threads."""
    try:
        return getattr(_native, name)(*arguments, torch.get_num_threads())
    except MemoryError:
        raise TrainingError(
            "not enough memory for this step; take fewer tasks or queries in a batch, a smaller support, smaller "
            "images or fewer threads") from None


def _convolve(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    out = torch.empty(x.shape[0], weight.shape[0], *x.shape[2:], memory_format=torch.channels_last)
    _call("convolve", _array(x),
          _transformed(weight).numpy(), None if bias is None else bias.detach().numpy(), _array(out))
    return out


def _transformed(weight: Tensor) -> Tensor:
    """(O,I,3,3) -> (36,O/block,I,block), as kernels.h wants it."""
    outputs, inputs = weight.shape[:2]
    products = _GG @ weight.detach().permute(2, 3, 1, 0).reshape(9, inputs * outputs)
    return products.view(36, inputs, outputs // _block(), _block()).transpose(1, 2).contiguous()


def _array(x: Tensor):
    return _aligned(x.detach().permute(0, 2, 3, 1))


def _aligned(x: Tensor):
    """As an array in C order whose first number lies on a cache line,
    as torch's own memory does and a view of it may not."""
    x = x.contiguous()
    return (x if x.data_ptr() % 64 == 0 else x.clone()).numpy()


@functools.cache
def _block() -> int:
    return _native.block()
