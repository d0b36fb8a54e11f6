"""One case to measure, and its inputs, the same in every process: random images, discs as labels."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from universeg_rt import Ensemble, SupportSet


@dataclass(frozen=True)
class Case:
    """S entries in each of K support sets, B queries, images of size x size pixels, threads of each side."""

    support_size: int
    members: int
    queries: int
    size: int
    threads: int

    @cached_property
    def support(self) -> SupportSet:
        """The entries that the members draw from: S for one member, 2 S for several."""
        count = self.support_size * (1 if self.members == 1 else 2)
        images, labels = self._images(count, [self.support_size, self.size])
        return SupportSet.from_arrays(images, labels)

    @property
    def ensemble(self) -> Ensemble:
        return Ensemble(self.members, self.support_size)

    @cached_property
    def images(self) -> list[np.ndarray]:
        """B query images (H,W)."""
        return list(self._images(self.queries, [self.size])[0])

    def sets(self) -> list[np.ndarray]:
        """For each member its support (S,2,H,W) float32 on the grid, as the network reads it."""
        entries = self.support.on_grid((self.size, self.size), "stretch")
        return [entries[indices] for indices, _ in self.ensemble.draw(len(self.support))]

    def on_grid(self) -> list[np.ndarray]:
        """For each query (1,1,H,W) float32. The images span [0, 1] at the grid's size already: nothing changes them."""
        return [image[None, None] for image in self.images]

    def _images(self, count: int, seed: list[int]) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng([count, *seed])
        y, x = np.mgrid[: self.size, : self.size]
        centres = rng.uniform(0.3, 0.7, (2, count, 1, 1)) * self.size
        labels = (y - centres[0]) ** 2 + (x - centres[1]) ** 2 < (0.2 * self.size) ** 2
        images = (0.6 * labels + 0.4 * rng.random(labels.shape)).astype(np.float32)
        low, high = images.min(axis=(1, 2), keepdims=True), images.max(axis=(1, 2), keepdims=True)
        return (images - low) / (high - low), labels
