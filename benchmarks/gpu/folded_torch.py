"""The folded network in PyTorch for inference, its support-mean operations by PyTorch or by the CUDA kernels.

The released variant only (no activation inside the cross convolution, max pool). Written to be captured as a CUDA
graph: all that reads no query is done by `prepare`, and `forward` allocates nothing that depends on values.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from universeg_rt.errors import RunnerError
from universeg_rt.kernels.support_mean.host import module as host
from universeg_rt.spec import DOUBLED, HALVED, Flow, NetworkSpec


@dataclass(frozen=True)
class Prepared:
    """term (1,K,S,C,H,W), mean_term (1,K,C,H,W), weights (K,S) float32, and whether they are all equal (known
    beforehand, since a CUDA graph asks no values)."""

    term: Tensor
    mean_term: Tensor
    weights: Tensor
    equal: bool

    def mean(self, maps: Tensor) -> Tensor:
        """(B,K,S,C,H,W) -> (B,K,C,H,W), summed in float32 without a float32 copy of the maps; with equal weights,
        without any copy."""
        if self.equal:
            return (maps.sum(2, dtype=torch.float32) / maps.shape[2]).to(maps.dtype)
        weighted = maps * self.weights.to(maps.dtype)[None, :, :, None, None, None]
        return weighted.sum(2, dtype=torch.float32).to(maps.dtype)


# (term (Bs,K,S,C,H,W), query_term (B,Kq,1,C,H,W), prepared, slope, pool, activated) -> maps by name
SupportMean = Callable[[Tensor, Tensor, Prepared, float, bool, bool], dict[str, Tensor]]


@dataclass(frozen=True)
class _Block:
    """Weights of one CrossBlock, the cross convolution split into the query's and the support's part."""

    query: Tensor
    support: Tensor
    bias: Tensor
    target: tuple[Tensor, Tensor]
    out: tuple[Tensor, Tensor]


class FoldedInference:
    """Logits (B,K,1,H,W) of queries (B,1,H,W) and a prepared support, in `dtype`; means in float32."""

    def __init__(self, spec: NetworkSpec, weights: Mapping[str, np.ndarray], device: str, dtype: torch.dtype,
                 support_mean: SupportMean | None = None, channels_last: bool = False) -> None:
        """support_mean: None for PyTorch's operators. channels_last: how PyTorch's convolutions see the maps."""
        if spec.cross_activation != "none" or spec.downsample != "max_pool":
            raise RunnerError("the folded network in PyTorch is written for the released variant (v1) only")
        self.spec, self.dtype, self.device = spec, dtype, device
        self._support_mean = support_mean or torch_support_mean
        self._format = torch.channels_last if channels_last else torch.contiguous_format

        def load(key: str) -> Tensor:
            value = torch.from_numpy(np.asarray(weights[key])).to(device, dtype)
            return value.contiguous(memory_format=self._format) if value.ndim == 4 else value

        self._places, self._blocks = spec.blocks(), []
        for b in self._places:
            cross = torch.from_numpy(np.asarray(weights[f"{b.name}.cross.cross_conv.weight"])).to(device, dtype)
            parts = cross[:, : b.query_channels], cross[:, b.query_channels :]
            split = [part.contiguous(memory_format=self._format) for part in parts]
            pairs = [(load(f"{b.name}.{branch}.vmapped.conv.weight"), load(f"{b.name}.{branch}.vmapped.conv.bias"))
                     for branch in ("target", "support")]
            self._blocks.append(_Block(*split, load(f"{b.name}.cross.cross_conv.bias"), *pairs))
        self._head = load("out_conv.conv.weight"), load("out_conv.conv.bias")

    def prepare(self, support: Tensor, weights: Tensor) -> Prepared:
        """support (K,S,2,H,W) in `dtype`, weights (K,S) float32, each row summing to 1."""
        block = self._blocks[0]
        v = support.flatten(0, 1).contiguous(memory_format=self._format)
        term = self._conv(self._conv(v, block.support), block.out[0])
        mean = torch.einsum("ks,kschw->kchw", weights, support.float()).to(self.dtype)
        equal = bool((weights == weights[0, 0]).all())
        return Prepared(term.unflatten(0, (1, *weights.shape)), self._conv(mean, block.support)[None], weights, equal)

    def forward(self, query: Tensor, prepared: Prepared) -> Tensor:
        batch, sets, entries = query.shape[0], *prepared.weights.shape
        flow: Flow[dict[str, Tensor]] = Flow(self._places)
        u = query
        for place, block in zip(self._places, self._blocks, strict=True):
            read = flow.read(place)

            def joined(what: str, read=read) -> Tensor:
                maps = [
                    out[f"{what}_down"] if how == HALVED else _up(out[what]) if how == DOUBLED else out[what]
                    for out, how in read
                ]
                return torch.cat(maps, 1) if len(maps) > 1 else maps[0]

            if read:
                u = joined("query")
            q = self._conv(u, block.query, block.bias)
            if place.is_first:
                mean_z = (q[:, None] + prepared.mean_term).flatten(0, 1)
            else:
                mean_z = self._conv(joined("mean"), block.support) + q
            u = self._act(self._conv(mean_z, *block.target))
            if place.is_last:
                break
            r = self._conv(q, *block.out)
            if place.is_first:
                term = prepared.term
            else:
                term = self._conv(self._conv(joined("entries"), block.support),
                                  block.out[0]).unflatten(0, (batch, sets, entries))
            r = r.unflatten(0, (batch, 1 if place.is_first else sets, 1))
            # The last block reads only the mean of what it is given.
            whole = any(not self._places[i].is_last for i in place.full_readers)
            maps = self._support_mean(term, r, prepared, self.spec.negative_slope, place.is_halved, whole)
            out = {"query": u, "mean": maps["mean"].flatten(0, 1)}
            if whole:
                out["entries"] = maps["activated"].flatten(0, 2)
            if place.is_halved:
                out |= {"query_down": F.max_pool2d(u, 2), "mean_down": maps["pooled_mean"].flatten(0, 1),
                        "entries_down": maps["pooled"].flatten(0, 2)}
            flow.keep(place, out)
        return self._conv(u, *self._head, padding=0).unflatten(0, (batch, sets))

    def _conv(self, x: Tensor, weight: Tensor, bias: Tensor | None = None, padding: int = 1) -> Tensor:
        return F.conv2d(x, weight, bias, padding=padding)

    def _act(self, x: Tensor) -> Tensor:
        return F.leaky_relu(x, self.spec.negative_slope)


def torch_support_mean(term: Tensor, query: Tensor, prepared: Prepared, slope: float, pool: bool,
                       activated: bool) -> dict[str, Tensor]:
    """The operation by PyTorch's operators, means in float32."""
    maps = F.leaky_relu(term + query, slope)
    out = {"mean": prepared.mean(maps)}
    if activated:
        out["activated"] = maps
    if pool:
        flat = F.max_pool2d(maps.flatten(0, 2), 2)
        out["pooled"] = flat.unflatten(0, maps.shape[:3])
        out["pooled_mean"] = prepared.mean(out["pooled"])
    return out


def kernel_support_mean(device, channels_last: bool = False) -> SupportMean:
    """The operation by our kernels. device: of kernels/support_mean/check/devices.py, the GPU or the CPU build.
    channels_last: maps lie so in memory, as convolutions that run so leave them and want them."""
    kinds = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2}
    layout = "hwc" if channels_last else "chw"

    def inward(x: Tensor) -> Tensor:
        return (x.movedim(-3, -1) if channels_last else x).contiguous()

    def call(term: Tensor, query: Tensor, prepared: Prepared, slope: float, pool: bool,
             activated: bool) -> dict[str, Tensor]:
        term, query = inward(term), inward(query)
        problem = {
            "form": host.FORMS["pool" if pool else "mean"], "dtype": kinds[term.dtype], "kernel": 0,
            "activated": int(activated), "layout": host.LAYOUTS.index(layout), "negative_slope": slope,
            "queries": query.shape[0], "support_queries": term.shape[0], "sets": term.shape[1],
            "query_sets": query.shape[1], "entries": term.shape[2], **dict(zip(host.AXES[layout], query.shape[3:]))
        }
        out = {name: torch.empty(shape, dtype=term.dtype, device=term.device)
               for name, shape in host.output_shapes(problem).items()}
        device.launcher(problem, {"support": term, "query": query, "weights": prepared.weights, **out})()
        return {name: x.movedim(-1, -3) for name, x in out.items()} if channels_last else out

    return call


def _up(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)
