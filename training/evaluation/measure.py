"""Measures ways of running and the baselines on the same queries and supports of a task."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from universeg_rt import Ensemble, Segmenter
from universeg_rt.answers.thresholds import THRESHOLD
from universeg_rt.ensemble import NEAREST
from universeg_rt.imaging.embedding import embed, nearest
from universeg_rt.imaging.metrics import (
    CALIBRATION_BINS,
    area_error,
    calibration_bins,
    dice,
    expected_dice,
)
from universeg_rt.imaging.preprocess import normalise
from universeg_rt.training.evaluation.baselines import ATLAS, COPY, Members, atlas, copy
from universeg_rt.training.evaluation.protocol import Case, Protocol, cases
from universeg_rt.training.evaluation.surfaces import hausdorff95, surface_dice, surface_distances
from universeg_rt.training.tasks.datasets import Absent
from universeg_rt.training.tasks.tasks import Task

BASELINES = (ATLAS, COPY)
# Of a query whose target is there, and of one whose target is absent; nan in the other's.
PRESENT = ("dice", "hd95", "nsd", "area_error", "confidence")
ABSENT = "false_positive_area"  # share of the image


@dataclass(frozen=True)
class Measured:
    """One task. methods: ways of running, then BASELINES. values: by the names PRESENT and ABSENT (queries, methods,
    cells of `Protocol.cells`). bins: `calibration_bins` over all queries (methods, cells, 3, CALIBRATION_BINS).
    digest: `digest_of` the data."""

    task: str
    dataset: str
    digest: str
    subjects: np.ndarray
    methods: tuple[str, ...]
    values: dict[str, np.ndarray]
    bins: np.ndarray

    @property
    def present(self) -> np.ndarray:
        """(queries,) bool: the target is there."""
        return ~np.isnan(self.values["dice"]).any((1, 2))


def measure(ways: Mapping[str, Segmenter], task: Task, protocol: Protocol, absent: Absent | None = None) -> Measured:
    """Every S and K on one task, for each way of running by its name; the K members are the first K of the largest
    ensemble."""
    methods, names = (*ways, *BASELINES), (*PRESENT, ABSENT)
    rows: dict[str, list] = {name: [] for name in names}
    bins = np.zeros((len(methods), len(protocol.cells), 3, CALIBRATION_BINS))
    subjects = []
    for case in cases(task, protocol, absent):
        scores = {name: np.full((len(methods), len(protocol.cells)), np.nan) for name in names}
        for method, cell, probability, threshold in _predictions(ways, case, protocol):
            place = methods.index(method), cell
            for name, value in scored(probability, threshold, case.truth).items():
                scores[name][place] = value
            bins[place] += calibration_bins(np.clip(probability, 0, 1), case.truth)
        for name in names:
            rows[name].append(scores[name])
        subjects.append(case.subject)
    return Measured(task.name, task.dataset or task.name, digest_of(task, absent), np.array(subjects), methods,
                    {name: np.array(values) for name, values in rows.items()}, bins)


def scored(probability: np.ndarray, threshold: float, truth: np.ndarray) -> dict[str, float]:
    """The measures of probability (H,W), marked from `threshold` on, against truth (H,W) bool."""
    mask = probability >= threshold
    if not truth.any():
        return {ABSENT: float(mask.mean())}
    distances = surface_distances(mask, truth)
    return {"dice": dice(mask, truth), "hd95": hausdorff95(distances), "nsd": surface_dice(distances),
            "area_error": area_error(mask, truth), "confidence": expected_dice(probability, mask)}


def _predictions(
    ways: Mapping[str, Segmenter], case: Case, protocol: Protocol
) -> Iterator[tuple[str, int, np.ndarray, float]]:
    """(method, cell, probability (H,W), threshold) of one query."""
    support = case.pool.support
    known: dict[Ensemble, tuple[dict[str, np.ndarray], Members]] = {}  # `all` is the same for every size
    for size in protocol.support_sizes:
        for ensemble, counts in protocol.ensembles(size, len(support), case.seed + size).items():
            if ensemble not in known:
                found = {name: way.prepare(support, ensemble).member_probabilities(case.image)
                         for name, way in ways.items()}
                known[ensemble] = found, _members(ensemble, case)
            found, drawn = known[ensemble]
            for count in counts:
                cell = protocol.cells.index((size, count))
                for name, members in found.items():
                    yield name, cell, members[:count].mean(axis=0), THRESHOLD
                yield ATLAS, cell, *atlas(case.pool.labels, drawn[:count])
                yield COPY, cell, copy(case.image, case.pool.images, case.pool.labels, drawn[:count]), THRESHOLD


def _members(ensemble: Ensemble, case: Case) -> Members:
    """What the ensemble draws for the case's query, so that the baselines get the same entries; the images lie on the
    network's grid already."""
    if ensemble.policy != NEAREST:
        return ensemble.draw(len(case.pool.support))
    embedded = embed(np.stack([normalise(image) for image in (case.image, *case.pool.images)]))
    return ensemble.draw(len(case.pool.support), nearest(embedded[0], embedded[1:]))


def digest_of(task: Task, absent: Absent | None = None) -> str:
    """sha256 of a task's images, labels and subjects, and of the images without its target."""
    parts = [task.images, task.labels, task.subjects] + ([absent.images, absent.subjects] if absent else [])
    digest = hashlib.sha256()
    for part in parts:
        part = np.ascontiguousarray(part)
        digest.update(f"{part.shape}{part.dtype}".encode())
        digest.update(part.tobytes())
    return digest.hexdigest()
