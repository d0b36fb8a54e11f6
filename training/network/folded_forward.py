"""UniverSeg's forward pass with the folds that are exact and pay in training; the same parameters as reference.py.

Per support entry the reference computes about 8.6 convolutions 64->64 of the image's size; this computes 1.6, and one
more for each support set instead of each query. What is folded, and when it may be (`*` is convolution):

- split query term, always: W*(u‖v_i)+b = Wv*v_i + q with q = Wu*u + b, so the query is convolved once, not S times.
- dead support branch, always: the last decoder block's v'_i is read by nobody.
- mean before convolution, cross_activation none: mean_i z_i = Wv*mean_i(v_i) + q.
- mean through upsampling, cross_activation none: the last block reads only mean_i(v_i), and mean_i up(v_i) = up(mean_i
v_i).
- prepared support, cross_activation none: the first block's Ws*(Wv*v_i) reads no query, so the queries that share one
  support set share it; v'_ij = φ(Ws*(Wv*v_i) + Ws*q_j + bs).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from universeg_rt.errors import InputError
from universeg_rt.spec import HALVED, Flow, NetworkSpec
from universeg_rt.training.network.reference import CrossBlock, UniverSeg, check_shapes, downsample, resized
from universeg_rt.training.network.winograd import conv3x3, first_block, usable


class FoldedUniverSeg(UniverSeg):
    """The reference network computed folded, for T tasks with Q queries that share S support entries each."""

    def forward(
        self, query: Tensor, support_images: Tensor, support_labels: Tensor, weights: Tensor | None = None,
        static: bool = False,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Logits (B,1,H,W) of query (B,1,H,W) and support (B,S,1,H,W), or (T,Q,1,H,W) of query (T,Q,1,H,W) and
        support (T,S,1,H,W).

        Images lie in [0, 1], labels in {0, 1}; weights (B or T,S) as in the reference. With `static` also the logits
        of the static network (`static_logits`), where the other queries of a support set are each query's proxies.
        Raises InputError like the reference, and for `static` with fewer than 2 queries a support set or an
        activation in the cross convolution.
        """
        shared = query.ndim == 5
        queries = query if shared else query[:, None]
        check_shapes(self.spec, queries[:, 0], support_images, support_labels, weights)
        tasks, per_task = queries.shape[:2]
        entries = support_images.shape[1]
        if weights is None:
            weights = queries.new_ones(tasks, entries)
        weights = weights / weights.sum(dim=1, keepdim=True)
        support = torch.cat([support_images, support_labels.to(support_images.dtype)], dim=2)
        if static and (per_task < 2 or self.spec.cross_activation != "none"):
            raise InputError(
                f"static needs 2 queries a support set and no activation in the cross convolution; given are "
                f"{per_task} and {self.spec.cross_activation}")

        terms: list[Tensor] | None = [] if static else None
        logits = self._logits(queries, support, weights, terms)
        if terms is not None:
            from_others = self.static_logits(queries.flatten(0, 1), [_mean_of_others(m, per_task) for m in terms])
            return logits.unflatten(0, (tasks, per_task)), from_others.unflatten(0, (tasks, per_task))
        return logits.unflatten(0, (tasks, per_task)) if shared else logits

    def support_terms(
        self, query: Tensor, support_images: Tensor, support_labels: Tensor, weights: Tensor | None = None
    ) -> list[Tensor]:
        """Each block's support term m (B,C,H,W) that `static_logits` takes, of query (B,1,H,W) with support
        (B,S,1,H,W) and weights (B,S), as in `forward`. Raises InputError like the reference, and for an activation in
        the cross convolution."""
        check_shapes(self.spec, query, support_images, support_labels, weights)
        if self.spec.cross_activation != "none":
            raise InputError(
                f"support terms need no activation in the cross convolution; given is {self.spec.cross_activation}")
        if weights is None:
            weights = query.new_ones(support_images.shape[:2])
        terms: list[Tensor] = []
        support = torch.cat([support_images, support_labels.to(support_images.dtype)], dim=2)
        self._logits(query[:, None], support, weights / weights.sum(dim=1, keepdim=True), terms)
        return terms

    def _logits(self, queries: Tensor, support: Tensor, weights: Tensor, terms: list[Tensor] | None) -> Tensor:
        """queries (T,Q,1,H,W), support (T,S,2,H,W), weights (T,S) that sum to 1 -> (T·Q,1,H,W). `terms` takes each
        block's support term."""
        tasks, per_task = queries.shape[:2]
        u = queries.flatten(0, 1)
        weights = weights.repeat_interleave(per_task, dim=0)
        means_suffice = self.spec.cross_activation == "none"
        flow: Flow[_Outputs] = Flow(self.places)
        for place, block in self.blocks():
            read = flow.read(place)
            u = _joined([resized(out.query, how, self.spec) for out, how in read]) if read else u
            if place.is_last:
                u = self._last_block(block, u, read, weights, terms)
            elif read:
                v = _joined([out.entries_for(how, self.spec) for out, how in read])
                flow.keep(place, _Outputs(*_block(block, u, v, weights, terms)))
            elif means_suffice and all(self.places[i].is_last for i in place.full_readers):
                flow.keep(place, self._first_block(block, u, support, weights, terms))
            else:
                entries = support.repeat_interleave(per_task, dim=0).flatten(0, 1)
                flow.keep(place, _Outputs(*_block(block, u, entries, weights, terms)))
        return self.out_conv.conv(u)

    def static_logits(self, query: Tensor, terms: list[Tensor]) -> Tensor:
        """Logits (B,1,H,W) of query (B,1,H,W) where each block's support term m = Wv*mean_i(v_i) is given: (B,C,H,W) a
        block.

        A block then reads no support: u' = φ(Wt*(Wu*u + b + m) + bt). With the terms of the query itself this is
        `forward`.
        """
        u, flow = query, Flow(self.places)
        for (place, block), term in zip(self.blocks(), terms, strict=True):
            if read := flow.read(place):
                u = _joined([resized(out, how, self.spec) for out, how in read])
            u = _static_block(block, u, term)
            flow.keep(place, u)
        return self.out_conv.conv(u)

    def _first_block(
        self, block: CrossBlock, u: Tensor, v: Tensor, weights: Tensor, terms: list[Tensor] | None
    ) -> _Outputs:
        """u (T·Q,1,H,W), v (T,S,2,H,W), weights (T·Q,S), cross_activation none -> of the entries only the halved ones
        and the mean, which is all that a network reads where the last block alone reads them whole.
        `terms` takes the support term."""
        tasks = v.shape[0]
        query_weight, support_weight = _split(block, u.shape[1])
        out = block.support.vmapped.conv
        q = F.conv2d(u, query_weight, block.cross.cross_conv.bias, padding=1)
        add = _convolve(out, q).unflatten(0, (tasks, -1))
        weights = weights.unflatten(0, (tasks, -1)).to(v.dtype)
        term = F.conv2d(torch.einsum("tqs,tschw->tqchw", weights, v).flatten(0, 1), support_weight, padding=1)
        z_mean = _keep(term, terms) + q
        new_query = _activate(_convolve(block.target.vmapped.conv, z_mean), block)
        if self.spec.downsample == "max_pool" and usable(q, out.weight):
            halved, mean = first_block(v, support_weight, out.weight, add, weights, block.slope)
            return _Outputs(new_query, mean=mean, halved=halved)
        term = F.conv2d(F.conv2d(v.flatten(0, 1), support_weight, padding=1), out.weight, padding=1)
        term = _activate(term.unflatten(0, (tasks, 1, -1)) + add[:, :, None], block)
        mean = _weighted_mean(term.flatten(0, 1), weights.flatten(0, 1))
        return _Outputs(new_query, mean=mean, halved=downsample(term.flatten(0, 2), self.spec))

    def _last_block(self, block: CrossBlock, u: Tensor, read: list[tuple[_Outputs, str]], weights: Tensor,
                    terms: list[Tensor] | None) -> Tensor:
        """u (B,Cu,H,W), what the block reads, weights (B,S) -> (B,C,H,W): the query branch alone.
        `terms` takes the support term."""
        if block.cross_activation == "none":
            mean = _joined([resized(out.mean_over(weights), how, self.spec) for out, how in read])
            if terms is None:
                z_mean = _convolve(block.cross.cross_conv, torch.cat([u, mean], 1))
            else:
                q, term = _cross_terms(block, u, mean)
                z_mean = _keep(term, terms) + q
        else:
            q, z = _cross_terms(block, u, _joined([out.entries_for(how, self.spec) for out, how in read]))
            z_mean = _weighted_mean(_activate(z.unflatten(0, weights.shape) + q[:, None], block), weights)
        return _activate(_convolve(block.target.vmapped.conv, z_mean), block)


@dataclass(frozen=True)
class _Outputs:
    """What a block gave: query (B,C,H,W); entries (B·S,C,H,W), or of a block that never makes them whole their mean
    (B,C,H,W) and the halved ones (B·S,C,H/2,W/2)."""

    query: Tensor
    entries: Tensor | None = None
    mean: Tensor | None = None
    halved: Tensor | None = None

    def entries_for(self, how: str, spec: NetworkSpec) -> Tensor:
        return self.halved if how == HALVED and self.halved is not None else resized(self.entries, how, spec)

    def mean_over(self, weights: Tensor) -> Tensor:
        """(B,C,H,W), before any resizing."""
        return _weighted_mean(self.entries.unflatten(0, weights.shape), weights) if self.mean is None else self.mean


def _joined(maps: list[Tensor]) -> Tensor:
    return torch.cat(maps, 1) if len(maps) > 1 else maps[0]


def _block(
    block: CrossBlock, u: Tensor, v: Tensor, weights: Tensor, terms: list[Tensor] | None = None
) -> tuple[Tensor, Tensor]:
    """u (B,Cu,H,W), v (B·S,Cv,H,W), weights (B,S) -> (B,C,H,W), (B·S,C,H,W); `terms` takes the support term."""
    q, z = _cross_terms(block, u, v)
    z = z.unflatten(0, weights.shape) + q[:, None]
    if block.cross_activation == "leaky_relu":
        z = _activate(z, block)
        z_mean = _weighted_mean(z, weights)
    else:
        mean = _weighted_mean(v.unflatten(0, weights.shape), weights)
        z_mean = _keep(conv3x3(mean, _split(block, u.shape[1])[1]), terms) + q
    new_query = _activate(_convolve(block.target.vmapped.conv, z_mean), block)
    return new_query, _activate(_convolve(block.support.vmapped.conv, z.flatten(0, 1)), block)


def _static_block(block: CrossBlock, u: Tensor, term: Tensor) -> Tensor:
    z_mean = conv3x3(u, _split(block, u.shape[1])[0], block.cross.cross_conv.bias) + term
    return _activate(_convolve(block.target.vmapped.conv, z_mean), block)


def _keep(term: Tensor, terms: list[Tensor] | None) -> Tensor:
    if terms is not None:
        terms.append(term)
    return term


def _mean_of_others(term: Tensor, queries: int) -> Tensor:
    """(T·Q,...) -> (T·Q,...): for each query of a support set the mean over that set's other queries."""
    each = term.unflatten(0, (-1, queries))
    return ((each.sum(1, keepdim=True) - each) / (queries - 1)).flatten(0, 1)


def _cross_terms(block: CrossBlock, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """(Wu*u + b, Wv*v)."""
    query_weight, support_weight = _split(block, u.shape[1])
    return conv3x3(u, query_weight, block.cross.cross_conv.bias), conv3x3(v, support_weight)


def _split(block: CrossBlock, query_channels: int) -> tuple[Tensor, Tensor]:
    weight = block.cross.cross_conv.weight
    return weight[:, :query_channels], weight[:, query_channels:]


def _convolve(conv: nn.Conv2d, x: Tensor) -> Tensor:
    return conv3x3(x, conv.weight, conv.bias)


def _weighted_mean(x: Tensor, weights: Tensor) -> Tensor:
    """(B,S,C,H,W), (B,S) -> (B,C,H,W); summed in float32 whatever the storage type."""
    if x.dtype in (torch.float16, torch.bfloat16):
        return (x.float() * weights.float()[:, :, None, None, None]).sum(1).to(x.dtype)
    rows = x.movedim(2, 4).flatten(2)  # of channels-last memory: nothing moves
    return (weights[:, None] @ rows).view(x.shape[0], *x.shape[3:], x.shape[2]).movedim(3, 1)


def _activate(x: Tensor, block: CrossBlock) -> Tensor:
    return F.leaky_relu(x, block.slope)
