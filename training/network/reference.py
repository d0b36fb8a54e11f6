"""The reference UniverSeg network in PyTorch, plain as the paper's equations; everything fast is compared with it."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from universeg_rt.errors import InputError
from universeg_rt.spec import DOUBLED, HALVED, BlockSpec, Flow, NetworkSpec


class CrossBlock(nn.Module):
    """CrossBlock(u, V; θz, θu, θv) = (u', V'), paper Eq. 1 and 2."""

    def __init__(self, block: BlockSpec, spec: NetworkSpec) -> None:
        super().__init__()
        self.slope = spec.negative_slope
        self.cross_activation = spec.cross_activation
        # The module names below give the state-dict keys of the published weights.
        self.cross = nn.Module()
        self.cross.cross_conv = nn.Conv2d(
            block.query_channels + block.support_channels, block.features, 3, padding=1)
        self.target = _vmapped_conv(block.features)
        self.support = _vmapped_conv(block.features)

    def forward(self, query: Tensor, support: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """query (B,Cu,H,W), support (B,S,Cv,H,W), weights (B,S) summing to 1 -> (B,C,H,W), (B,S,C,H,W)."""
        entries = support.shape[1]
        repeated = query[:, None].expand(-1, entries, -1, -1, -1)
        # Eq. 1: z_i = Conv(u ‖ v_i), the query's channels first.
        z = _each_entry(self.cross.cross_conv, torch.cat([repeated, support], dim=2))
        if self.cross_activation == "leaky_relu":
            z = F.leaky_relu(z, self.slope)
        # Eq. 2: u' = φ(Conv(mean_i z_i)), v'_i = φ(Conv(z_i)).
        mean = (weights[:, :, None, None, None] * z).sum(dim=1)
        new_query = F.leaky_relu(self.target.vmapped.conv(mean), self.slope)
        new_support = F.leaky_relu(_each_entry(self.support.vmapped.conv, z), self.slope)
        return new_query, new_support


class UniverSeg(nn.Module):
    """The network of paper Fig. 3 for any NetworkSpec; logits out, the sigmoid is outside."""

    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__()
        self.spec = spec
        self.places = spec.blocks()
        self.enc_blocks = nn.ModuleList(CrossBlock(b, spec) for b in self.places if not b.is_decoder)
        self.dec_blocks = nn.ModuleList(CrossBlock(b, spec) for b in self.places if b.is_decoder)
        self.out_conv = nn.Module()
        self.out_conv.conv = nn.Conv2d(spec.decoder_features[-1], 1, 1)

    def blocks(self) -> list[tuple[BlockSpec, CrossBlock]]:
        """The blocks in the order in which they run, each with its place in the network."""
        return list(zip(self.places, [*self.enc_blocks, *self.dec_blocks], strict=True))

    def forward(
        self, query: Tensor, support_images: Tensor, support_labels: Tensor, weights: Tensor | None = None
    ) -> Tensor:
        """Logits (B,1,H,W) of query (B,1,H,W) given support images and labels (B,S,1,H,W).

        Images lie in [0, 1], labels in {0, 1}; weights (B,S) are those of the means over the support and are
        normalised to sum to 1 (None: all equal). Raises InputError where shapes do not fit or H or W is not a
        multiple of `spec.size_multiple`.
        """
        check_shapes(self.spec, query, support_images, support_labels, weights)
        if weights is None:
            weights = query.new_ones(support_images.shape[:2])
        weights = weights / weights.sum(dim=1, keepdim=True)

        u, v = query, torch.cat([support_images, support_labels.to(support_images.dtype)], dim=2)
        flow: Flow[tuple[Tensor, Tensor]] = Flow(self.places)
        for place, block in self.blocks():
            if read := flow.read(place):
                u = torch.cat([resized(u, how, self.spec) for (u, _), how in read], dim=1)
                v = torch.cat([_each_entry(lambda x, how=how: resized(x, how, self.spec), v) for (_, v), how in read],
                              dim=2)
            u, v = block(u, v, weights)
            flow.keep(place, (u, v))
        return self.out_conv.conv(u)


def resized(x: Tensor, how: str, spec: NetworkSpec) -> Tensor:
    """(N,C,H,W) as a block reads it, by an `Edge`'s resize."""
    if how == HALVED:
        return downsample(x, spec)
    return upsample(x) if how == DOUBLED else x


def downsample(x: Tensor, spec: NetworkSpec) -> Tensor:
    """(N,C,H,W) -> (N,C,H/2,W/2), as the specification says."""
    if spec.downsample == "max_pool":
        return F.max_pool2d(x, 2)
    return F.interpolate(x, scale_factor=0.5, mode="bilinear", align_corners=False)


def upsample(x: Tensor) -> Tensor:
    """(N,C,H,W) -> (N,C,2H,2W), bilinear with aligned corners."""
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)


def check_shapes(
    spec: NetworkSpec, query: Tensor, images: Tensor, labels: Tensor, weights: Tensor | None
) -> None:
    """Raise InputError where the four inputs of `UniverSeg.forward` do not fit each other."""
    if query.ndim != 4 or query.shape[1] != 1:
        raise InputError(f"query has shape {tuple(query.shape)}; expected (B,1,H,W)")
    batch, _, height, width = query.shape
    expected = (batch, images.shape[1] if images.ndim == 5 else "S", 1, height, width)
    if tuple(images.shape) != expected or tuple(labels.shape) != expected:
        raise InputError(
            f"support images and labels have shapes {tuple(images.shape)} and {tuple(labels.shape)}; expected "
            f"{expected}"
        )
    if images.shape[1] < 1:
        raise InputError("the support set has no entries; give at least one")
    if weights is not None and tuple(weights.shape) != (batch, images.shape[1]):
        raise InputError(f"weights have shape {tuple(weights.shape)}; expected {(batch, images.shape[1])}")
    multiple = spec.size_multiple
    if height % multiple or width % multiple or not height or not width:
        raise InputError(f"image size {height}x{width}; height and width must be multiples of {multiple}")


def _vmapped_conv(features: int) -> nn.Module:
    outer, inner = nn.Module(), nn.Module()
    inner.conv = nn.Conv2d(features, features, 3, padding=1)
    outer.vmapped = inner
    return outer


def _each_entry(function, x: Tensor) -> Tensor:
    """Apply a function of (N,C,H,W) to every support entry of (B,S,C,H,W)."""
    batch, entries = x.shape[:2]
    out = function(x.reshape(batch * entries, *x.shape[2:]))
    return out.reshape(batch, entries, *out.shape[1:])
