"""The static way of running, by the reference network: each block's support term is fixed before any query comes.

A term is the mean over proxies, which are the support's own images, each with the other entries as its support. It is a
runner like any other, so that pre- and post-processing, supports and queries are those of the exact way.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from universeg_rt.bundle.bundle import Bundle
from universeg_rt.errors import InputError
from universeg_rt.runners.base import Runner
from universeg_rt.runners.options import Options
from universeg_rt.training.network.folded_forward import FoldedUniverSeg

PROXIES = 8
FLOAT32 = 4  # bytes


class StaticRunner(Runner):
    """Runs `FoldedUniverSeg.static_logits` with the mean support terms of up to PROXIES entries of each set, which a
    seed chooses; a set of one entry is its own proxy."""

    name = "static reference"

    def __init__(self, network: FoldedUniverSeg, threads: int | None, seed: int = 0) -> None:
        self.network, self.threads, self.seed = network.eval().requires_grad_(False), threads, seed

    @classmethod
    def open(cls, bundle: Bundle, precision: str, options: Options) -> StaticRunner:
        """In float32. Raises BundleError as `Bundle.weights`, InputError for another precision or a network with an
        activation in the cross convolution, whose support terms depend on the query. It sets torch's threads."""
        spec = bundle.manifest.spec
        if precision not in ("auto", "fp32"):
            raise InputError(f"the static way runs in fp32; given is {precision}")
        if spec.cross_activation != "none":
            raise InputError(f"{bundle.manifest.name} has an activation in its cross convolution; run it exactly")
        network = FoldedUniverSeg(spec)
        network.load_state_dict({key: torch.tensor(value) for key, value in bundle.weights().items()})
        if options.threads is not None:
            torch.set_num_threads(options.threads)
        return cls(network, options.threads)

    @torch.inference_mode()
    def _prepare(self, support: np.ndarray, weights: np.ndarray) -> list[list[Tensor]]:
        """The mean terms of each set, a block each (1,C,H,W)."""
        return [self._terms(torch.from_numpy(entries[row > 0]), torch.from_numpy(row[row > 0]), set_number)
                for set_number, (entries, row) in enumerate(zip(support, weights))]

    def _terms(self, entries: Tensor, weights: Tensor, set_number: int) -> list[Tensor]:
        images, labels = entries[:, :1], entries[:, 1:]
        proxies = np.random.default_rng((self.seed, set_number)).permutation(len(entries))[:PROXIES]
        total: list[Tensor] = []
        for proxy in proxies:
            others = [i for i in range(len(entries)) if i != proxy] or [proxy]
            terms = self.network.support_terms(images[proxy][None], images[others][None], labels[others][None],
                                               weights[others][None])
            total = [a + b for a, b in zip(total, terms, strict=True)] if total else terms
        return [term / len(proxies) for term in total]

    @torch.inference_mode()
    def _run(self, prepared: object, queries: np.ndarray) -> np.ndarray:
        assert isinstance(prepared, list)
        query = torch.from_numpy(queries)
        sets = [self.network.static_logits(query, [m.expand(len(query), -1, -1, -1) for m in terms])
                for terms in prepared]
        return torch.stack(sets, dim=1).numpy()

    def peak_bytes(self, support_size: int, members: int, height: int, width: int) -> int:
        widest = max(self.network.spec.encoder_features + self.network.spec.decoder_features)
        return FLOAT32 * 4 * widest * height * width * (support_size + members)
