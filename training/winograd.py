"""3x3 convolutions for training on a CPU by the native Winograd kernels (kernels/cpu/training.h), where they are built.

F(4x4,3x3) multiplies four times less than a direct convolution; forward, the input's gradient and the weights' gradient.
`conv3x3` is F.conv2d with padding 1 everywhere else: other devices, types, channels or strides of memory.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor
from torch.nn import functional as F

try:
    from universeg_rt import _native
except ImportError:  # installed without a compiler
    _native = None

# Lavin and Gray, arXiv:1509.09308: the weights' transform u = G w G', both sides at once.
_G = torch.tensor([[1 / 4, 0, 0], [-1 / 6, -1 / 6, -1 / 6], [-1 / 6, 1 / 6, -1 / 6],
                   [1 / 24, 1 / 12, 1 / 6], [1 / 24, -1 / 12, 1 / 6], [0, 0, 1]], dtype=torch.float64)
_GG = torch.kron(_G, _G).float()  # (36,9)


def usable(x: Tensor, weight: Tensor) -> bool:
    """Whether the native kernels can convolve x (N,I,H,W) by weight (O,I,3,3)."""
    return (_native is not None and x.device.type == "cpu" and x.dtype == weight.dtype == torch.float32
            and not torch.is_autocast_enabled("cpu") and weight.shape[0] % _block() == 0 and weight.shape[1] % _block() == 0)


def conv3x3(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x (N,I,H,W) convolved by weight (O,I,3,3) with zeros around, plus bias (O,) -> (N,O,H,W), channels last if native."""
    if not usable(x, weight):
        return F.conv2d(x, weight, bias, padding=1)
    return _Conv3x3.apply(x, weight, bias)


class _Conv3x3(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        x = x.contiguous(memory_format=torch.channels_last)
        ctx.save_for_backward(x, weight)
        return _convolve(x, weight, bias)

    @staticmethod
    def backward(ctx, gradient: Tensor):
        x, weight = ctx.saved_tensors
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        of_x = of_weight = of_bias = None
        if ctx.needs_input_grad[0]:
            of_x = _convolve(gradient, weight.transpose(0, 1).flip(2, 3), None)
        if ctx.needs_input_grad[1]:
            sums = _native.convolve_gradient(_array(x), _array(gradient), torch.get_num_threads())
            of_weight = (_GG.T @ torch.from_numpy(sums).flatten(1)).view(3, 3, *sums.shape[1:]).permute(3, 2, 0, 1)
        if ctx.needs_input_grad[2]:
            of_bias = gradient.sum((0, 2, 3))
        return of_x, of_weight, of_bias


def _convolve(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    out = torch.empty(x.shape[0], weight.shape[0], *x.shape[2:], memory_format=torch.channels_last)
    _native.convolve(_array(x), _transformed(weight).numpy(), None if bias is None else bias.detach().numpy(), _array(out),
                     torch.get_num_threads())
    return out


def _transformed(weight: Tensor) -> Tensor:
    """(O,I,3,3) -> (36,O/block,I,block), as kernels.h wants it."""
    outputs, inputs = weight.shape[:2]
    products = _GG @ weight.detach().permute(2, 3, 1, 0).reshape(9, inputs * outputs)
    return products.view(36, inputs, outputs // _block(), _block()).transpose(1, 2).contiguous()


def _array(x: Tensor):
    return x.detach().permute(0, 2, 3, 1).numpy()


@functools.cache
def _block() -> int:
    return _native.block()
