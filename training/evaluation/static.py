"""Frozen tasks as ways of running: each support set of an ensemble as `Task.freeze` freezes it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from universeg_rt import Ensemble, FrozenTask, Segmenter, SupportSet, left_out
from universeg_rt.frozen.record import AUTO, STATIC


@dataclass(frozen=True)
class FrozenMembers:
    """A frozen task a member, so that the first K of them are the ensemble of K."""

    frozen: tuple[FrozenTask, ...]

    def member_probabilities(self, image: np.ndarray) -> np.ndarray:
        """As `Predictor.member_probabilities`."""
        return np.concatenate([each.member_probabilities(image) for each in self.frozen])


class StaticSegmenter(Segmenter):
    """Freezes what it prepares, by the exact network of its bundle on its runner."""

    kind = STATIC

    def prepare(self, support: SupportSet, ensemble: Ensemble | None = None, **options) -> FrozenMembers:
        """Raises as `Segmenter.prepare` and `Task.freeze`. The proxies are the set's entries, as there; too few for
        that, they are queries of the whole set, unless auto takes exact."""
        members = []
        for indices, weights in (ensemble or Ensemble()).draw(len(support)):
            counts = np.round(weights / weights.min()).astype(int)
            drawn = support.subset(list(np.repeat(indices, counts)))
            enough = left_out.differing(drawn.images) >= left_out.FEWEST
            proxies = "support" if enough or self.kind == AUTO else list(drawn.images)
            members.append(super().prepare(drawn, **options).freeze(proxies, kind=self.kind))
        return FrozenMembers(tuple(members))


class AutoSegmenter(StaticSegmenter):
    """Static where its price allows, else exact."""

    kind = AUTO
