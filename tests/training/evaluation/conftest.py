"""What the evaluation's tests share: a stand-in for a Segmenter, tasks of discs, and made-up measures."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from ...conftest import discs


@pytest.fixture(scope="session")
def made():
    """oracle(): right with a probability that grows with the support; task(count): discs, two images a subject;
    measured(task, dataset, subjects, **scores): what was measured of one way and the baselines; folder(path): a data
    set of discs as files."""
    pytest.importorskip("scipy", reason="scipy is not installed: pip install '.[train]'")
    from universeg_rt.imaging.metrics import CALIBRATION_BINS
    from universeg_rt.training.evaluation.measure import ABSENT, BASELINES, PRESENT, Measured
    from universeg_rt.training.tasks.tasks import Task

    class Oracle:
        def __init__(self):
            self.prepared = []

        def prepare(self, support, ensemble):
            self.prepared.append((len(support), ensemble))
            self.ensemble = ensemble
            return self

        def member_probabilities(self, image):
            truth = image > 128
            rng = np.random.default_rng(self.ensemble.seed)
            wrong = rng.random((self.ensemble.members, *image.shape)) < 0.8 / (1 + np.log2(self.ensemble.support_size))
            return np.where(wrong, 0.5 * rng.random(wrong.shape), truth.astype(float))

    def task(count=20, name="t", dataset="d"):
        labels = discs(count)[1].astype(np.uint8)
        return Task(name, labels * 255, labels, np.array([f"s{i // 2}" for i in range(count)]), dataset)

    def measured(task, dataset, subjects, exact, atlas=0.0, copy=0.0, methods=("exact", *BASELINES)):
        rows = [np.broadcast_to(np.asarray(v, float), len(subjects)) for v in (exact, atlas, copy)]
        values = np.stack(rows, 1)[:, :, None]
        empty = np.full(values.shape, np.nan)
        found = {name: values if name in ("dice", "confidence") else np.ones(values.shape) for name in PRESENT}
        return Measured(task, dataset, "0", np.array(list(subjects)), methods, {**found, ABSENT: empty},
                        np.zeros((3, 1, 3, CALIBRATION_BINS)))

    def folder(path, count=20, extra=""):
        images, labels = discs(count, 32, 32)
        np.savez(path / "discs.npz", images=images, labels=labels.astype(np.uint8),
                 ids=np.array([f"p{i}" for i in range(count)]))
        file = path / "discs.yaml"
        file.write_text(f"name: discs\nlicence: CC0\ntasks:\n  - {{name: disc, file: discs.npz{extra}}}\n")
        return file

    return SimpleNamespace(oracle=Oracle, task=task, measured=measured, folder=folder)
