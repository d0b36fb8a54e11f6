"""UniverSeg's forward pass with the folds that are exact and pay in training; the same parameters as reference.py.

Per support entry the reference computes about 8.6 convolutions 64->64 of the image's size; this computes 1.6, and one
more for each support set instead of each query. What is folded, and when it may be (`*` is convolution):

- split query term, always: W*(u‖v_i)+b = Wv*v_i + q with q = Wu*u + b, so the query is convolved once, not S times.
- dead support branch, always: the last decoder block's v'_i is read by nobody.
- mean before convolution, cross_activation none: mean_i z_i = Wv*mean_i(v_i) + q.
- mean through upsampling, cross_activation none: the last block reads only mean_i(v_i), and mean_i up(v_i) = up(mean_i v_i).
- prepared support, cross_activation none: the first block's Ws*(Wv*v_i) reads no query, so the queries that share one
  support set share it; v'_ij = φ(Ws*(Wv*v_i) + Ws*q_j + bs).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from universeg_rt.training.network.reference import CrossBlock, UniverSeg, check_shapes, downsample, upsample
from universeg_rt.training.network.winograd import conv3x3, first_block, usable

from universeg_rt.errors import InputError


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
            raise InputError(f"static needs 2 queries a support set and no activation in the cross convolution; given are "
                             f"{per_task} and {self.spec.cross_activation}")

        terms: list[Tensor] | None = [] if static else None
        u = queries.flatten(0, 1)
        weights = weights.repeat_interleave(per_task, dim=0)
        blocks = [*self.enc_blocks, *self.dec_blocks]
        if self.spec.cross_activation == "none":
            u, v, first = self._first_block(blocks[0], u, support, weights, terms)
        else:
            u, first = _block(blocks[0], u, support.repeat_interleave(per_task, dim=0).flatten(0, 1), weights)
            v = downsample(first, self.spec)

        skips = [(u, first)]
        u, v = _block(blocks[1], downsample(u, self.spec), v, weights, terms)
        for block in self.enc_blocks[2:]:
            skips.append((u, v))
            u, v = _block(block, downsample(u, self.spec), downsample(v, self.spec), weights, terms)
        for block in self.dec_blocks[:-1]:
            skip_u, skip_v = skips.pop()
            u, v = _block(block, torch.cat([upsample(u), skip_u], 1), torch.cat([upsample(v), skip_v], 1), weights, terms)
        skip_u, skip_v = skips.pop()
        u = _last_block(self.dec_blocks[-1], torch.cat([upsample(u), skip_u], 1), v, skip_v, weights, terms)
        logits = self.out_conv.conv(u)
        if terms is not None:
            from_others = self.static_logits(queries.flatten(0, 1), [_mean_of_others(m, per_task) for m in terms])
            return logits.unflatten(0, (tasks, per_task)), from_others.unflatten(0, (tasks, per_task))
        return logits.unflatten(0, (tasks, per_task)) if shared else logits

    def static_logits(self, query: Tensor, terms: list[Tensor]) -> Tensor:
        """Logits (B,1,H,W) of query (B,1,H,W) where each block's support term m = Wv*mean_i(v_i) is given: (B,C,H,W) a block.

        A block then reads no support: u' = φ(Wt*(Wu*u + b + m) + bt). With the terms of the query itself this is `forward`.
        """
        u, skips, left = query, [], iter(terms)
        for block in self.enc_blocks[:-1]:
            u = _static_block(block, u, next(left))
            skips.append(u)
            u = downsample(u, self.spec)
        u = _static_block(self.enc_blocks[-1], u, next(left))
        for block in self.dec_blocks:
            u = _static_block(block, torch.cat([upsample(u), skips.pop()], 1), next(left))
        return self.out_conv.conv(u)

    def _first_block(
        self, block: CrossBlock, u: Tensor, v: Tensor, weights: Tensor, terms: list[Tensor] | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """u (T·Q,1,H,W), v (T,S,2,H,W), weights (T·Q,S), cross_activation none -> the query's (T·Q,C,H,W), the support's next
        (T·Q·S,C,H/2,W/2) and its mean before downsampling (T·Q,C,H,W), all that the rest of the network reads of it.
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
            return new_query, *first_block(v, support_weight, out.weight, add, weights, block.slope)
        term = F.conv2d(F.conv2d(v.flatten(0, 1), support_weight, padding=1), out.weight, padding=1)
        term = _activate(term.unflatten(0, (tasks, 1, -1)) + add[:, :, None], block)
        mean = _weighted_mean(term.flatten(0, 1), weights.flatten(0, 1))
        return new_query, downsample(term.flatten(0, 2), self.spec), mean


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


def _last_block(
    block: CrossBlock, u: Tensor, below: Tensor, skip: Tensor, weights: Tensor, terms: list[Tensor] | None = None
) -> Tensor:
    """u (B,Cu,H,W), below (B·S,C,H/2,W/2), skip (B·S,C,H,W), or (B,C,H,W) their mean with cross_activation none -> (B,C,H,W):
    the query branch alone. `terms` takes the support term."""
    below = below.unflatten(0, weights.shape)
    if block.cross_activation == "none":
        mean = torch.cat([upsample(_weighted_mean(below, weights)), skip], 1)
        if terms is None:
            z_mean = _convolve(block.cross.cross_conv, torch.cat([u, mean], 1))
        else:
            q, term = _cross_terms(block, u, mean)
            z_mean = _keep(term, terms) + q
    else:
        v = torch.cat([upsample(below.flatten(0, 1)), skip], 1)
        q, z = _cross_terms(block, u, v)
        z_mean = _weighted_mean(_activate(z.unflatten(0, weights.shape) + q[:, None], block), weights)
    return _activate(_convolve(block.target.vmapped.conv, z_mean), block)


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
