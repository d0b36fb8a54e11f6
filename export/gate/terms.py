"""SupportTerms: what each block of the exact network adds of a support to a query's path, by the network in PyTorch."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from universeg_rt.spec import NetworkSpec


class SupportTerms:
    """Of one network. Called with one support set (S,2,H,W), its weights (S,) and one query (1,1,H,W), it gives each
    block's term Wv * mean_i(v_i), (C,h,w) float32, with which the static network is the exact one on this query."""

    def __init__(self, spec: NetworkSpec, weights: Mapping[str, np.ndarray]) -> None:
        self._spec, self._weights, self._network = spec, weights, None

    def __call__(self, support: np.ndarray, weights: np.ndarray, query: np.ndarray) -> list[np.ndarray]:
        import torch

        from universeg_rt.training.network.folded_forward import FoldedUniverSeg

        if self._network is None:
            self._network = FoldedUniverSeg(self._spec).eval()
            self._network.load_state_dict(
                {key: torch.from_numpy(np.array(value)) for key, value in self._weights.items()})
        entries, row, image = (torch.from_numpy(np.ascontiguousarray(a)) for a in (support[None], weights[None], query))
        with torch.inference_mode():
            terms = self._network.support_terms(image, entries[:, :, :1], entries[:, :, 1:], row)
        return [term[0].numpy() for term in terms]
