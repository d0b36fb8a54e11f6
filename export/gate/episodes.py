"""Episodes on which networks are calibrated and judged, with where they are from."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Episode:
    """A query (1,1,H,W), its target (1,1,H,W), and a support (1,S,2,H,W), all float32 as the network reads them."""

    query: np.ndarray
    target: np.ndarray
    support: np.ndarray

    @property
    def weights(self) -> np.ndarray:
        """(1,S), all equal."""
        entries = self.support.shape[1]
        return np.full((1, entries), 1 / entries, np.float32)


@dataclass(frozen=True)
class CalibrationData:
    """Episodes, where they are from, and the seed that they were drawn with."""

    source: str
    seed: int
    episodes: tuple[Episode, ...]

    @property
    def sha256(self) -> str:
        """Of all values in order."""
        digest = hashlib.sha256()
        for episode in self.episodes:
            for array in (episode.query, episode.target, episode.support):
                digest.update(f"{array.shape}".encode())
                digest.update(np.ascontiguousarray(array, "<f4").tobytes())
        return digest.hexdigest()

    def provenance(self) -> dict:
        """Plain values for the manifest."""
        return {"source": self.source, "seed": self.seed, "data_sha256": self.sha256,
                "episodes": len(self.episodes), "entries": sorted({e.support.shape[1] for e in self.episodes})}
