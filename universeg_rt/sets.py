"""Which support sets answer a query: the same for all, or those of the entries most similar to it."""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock
from typing import Protocol

import numpy as np

from .ensemble import Draw, Ensemble
from .errors import InputError
from .imaging.embedding import embed, nearest
from .named_types import Floats
from .runners import Runner
from .runners.shared import PreparedSupport, SharedEntries

KEPT = 4  # prepared draws that a task of the policy `nearest` keeps: neighbouring slices often ask for the same again


class Runs(Protocol):
    """What is asked of a Segmenter here."""

    runner: Runner

    def run(self, prepared: PreparedSupport | SharedEntries, queries: Floats) -> Floats: ...


class FixedSets:
    """Sets that are drawn and prepared once. draw: which. prepared: by the runner."""

    def __init__(self, draw: Draw, prepared: PreparedSupport | SharedEntries) -> None:
        self.draw = draw
        self.prepared = prepared

    def run(self, segmenter: Runs, queries: Floats) -> Floats:
        """Logits (B,K,1,h,w) of queries (B,1,h,w), a set for each member as drawn."""
        logits: Floats = segmenter.run(self.prepared, queries)[:, self.draw.places]
        return logits


class NearestSets:
    """Sets of the entries (N,2,h,w) whose images are the most similar to a query, drawn and prepared as queries come.

    The last KEPT of them stay prepared. Queries of a batch that ask for the same sets run together. Safe to use from
    several threads.
    """

    def __init__(self, entries: Floats, ensemble: Ensemble) -> None:
        """InputError where a set needs more entries than there are."""
        ensemble.draw(len(entries), np.arange(len(entries)))
        self._entries = entries
        self._ensemble = ensemble
        self._embedded = embed(entries[:, 0])
        self._kept: OrderedDict[bytes, PreparedSupport | SharedEntries] = OrderedDict()
        self._lock = Lock()

    @property
    def draw(self) -> Draw:
        raise InputError(_NO_ONE_SET)

    @property
    def prepared(self) -> PreparedSupport | SharedEntries:
        raise InputError(_NO_ONE_SET)

    def draw_for(self, query: Floats) -> Draw:
        """What is drawn for a query (h,w) on the grid."""
        order = nearest(embed(query[None])[0], self._embedded)
        return Draw.of(len(self._entries), self._ensemble, order)

    def run(self, segmenter: Runs, queries: Floats) -> Floats:
        """As `FixedSets.run`."""
        draws = [self.draw_for(query) for query in queries[:, 0]]
        groups: dict[bytes, list[int]] = {}
        for i, draw in enumerate(draws):
            groups.setdefault(_key(draw), []).append(i)
        logits = np.empty((len(queries), self._ensemble.members, 1, *queries.shape[2:]), np.float32)
        for key, members in groups.items():
            prepared = self._prepare(segmenter, key, draws[members[0]])
            found = segmenter.run(prepared, queries[members])
            for i, each in zip(members, found):
                logits[i] = each[draws[i].places]
        return logits

    def _prepare(self, segmenter: Runs, key: bytes, draw: Draw) -> PreparedSupport | SharedEntries:
        with self._lock:
            if (known := self._kept.get(key)) is not None:
                self._kept.move_to_end(key)
                return known
        prepared = segmenter.runner.prepare(self._entries[draw.used], draw.weights)
        with self._lock:
            self._kept[key] = prepared
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        return prepared


_NO_ONE_SET = ("policy 'nearest' draws other entries for each query, so this task has no sets of its own to freeze or "
               "to look at; prepare with the policy 'random' or 'all'")


def _key(draw: Draw) -> bytes:
    return draw.used.tobytes() + draw.weights.tobytes()
