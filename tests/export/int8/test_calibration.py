"""Calibration data good and bad, and the scales that come of them."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install torch")

from universeg_rt.errors import InputError
from universeg_rt.export.folds import fold
from universeg_rt.export.int8.calibration import (
    CalibrationData,
    Episode,
    best_scale,
    calibrate,
    support_episodes,
    synthetic_episodes,
)
from universeg_rt.spec import NetworkSpec

from ...conftest import discs, random_weights
from .test_int8 import network, noise_episodes  # noqa: F401 (a fixture)

pytestmark = pytest.mark.torch


def test_synthetic_episodes_are_drawn_from_their_seed():
    one, two, other, fresh = (synthetic_episodes((16, 24), seed, 2, 3, first)
                              for seed, first in ((1, 0), (1, 0), (2, 0), (1, 500)))
    assert one.sha256 == two.sha256 and len({one.sha256, other.sha256, fresh.sha256}) == 3
    for episode in one.episodes:
        assert episode.query.shape == episode.target.shape == (1, 1, 16, 24)
        assert episode.support.shape == (1, 3, 2, 16, 24)
        assert episode.support[:, :, 0].min() == 0 and episode.support.max() <= 1
        assert set(np.unique(episode.support[:, :, 1])) <= {0, 1}
    provenance = one.provenance()
    assert provenance["seed"] == 1 and provenance["data_sha256"] == one.sha256
    assert provenance["episodes"] == 2


def test_a_support_set_to_calibrate_on(tmp_path):
    images, labels = discs(4)
    np.savez(tmp_path / "mine.npz", images=images, labels=labels)
    data = support_episodes(tmp_path / "mine.npz", (16, 16), 0)
    assert len(data.episodes) == 4 and data.episodes[0].support.shape == (1, 3, 2, 16, 16)
    assert data.source == "support set mine.npz" and str(tmp_path) not in str(data.provenance())
    assert data.sha256 == support_episodes(tmp_path / "mine.npz", (16, 16), 0).sha256
    for number, episode in enumerate(data.episodes):
        same = [np.array_equal(episode.query[0], entry) for entry in episode.support[0, :, :1]]
        assert not any(same), f"episode {number}: the query is among its own support"


def damaged(kind: str) -> dict[str, np.ndarray]:
    images, labels = discs(4)
    images = images.astype(np.float32)
    if kind == "nan":
        images[1, 2, 3] = np.nan
    elif kind == "constant":
        images[2] = 7
    elif kind == "empty":
        images, labels = images[:0], labels[:0]
    elif kind == "one":
        images, labels = images[:1], labels[:1]
    elif kind == "shapes":
        labels = labels[:, :-1]
    elif kind == "count":
        labels = labels[:-1]
    elif kind == "unmarked":
        labels = np.zeros_like(labels)
    return {"images": images, "labels": labels} if kind != "other" else {"x": images}


@pytest.mark.parametrize("kind, message", [("nan", "support image 1"), ("constant", "support image 2"),
                                           ("empty", "no entries"), ("one", "1 entry; give at least 2"),
                                           ("shapes", "support label 0"), ("count", "4 images but 3 labels"),
                                           ("unmarked", "labels are empty"), ("other", "expected the arrays")])
def test_calibration_data_that_cannot_be_used(tmp_path, kind, message):
    np.savez(tmp_path / "bad.npz", **damaged(kind))
    with pytest.raises(InputError, match=message) as error:
        support_episodes(tmp_path / "bad.npz", (16, 16), 0)
    assert "calibration data" in str(error.value)


def test_other_bad_calibration(tmp_path, network):
    with pytest.raises(InputError, match="calibration data cannot be used"):
        support_episodes(tmp_path / "absent.npz", (16, 16), 0)
    for seed in (-1, True, 0.5):
        with pytest.raises(InputError, match="seed is"):
            synthetic_episodes((16, 16), seed, 1)
    with pytest.raises(InputError, match="no episodes"):
        calibrate(network, CalibrationData("none", 0, ()))
    episode = noise_episodes().episodes[0]
    endless = Episode(np.full_like(episode.query, np.inf), episode.target, episode.support)
    with pytest.raises(InputError, match="not finite on the calibration data"):
        calibrate(network, CalibrationData("inf", 0, (endless,)))


def test_the_scale_cuts_far_values_off_only_where_that_pays():
    rng = np.random.default_rng(0)
    bulk = np.abs(rng.standard_normal(100_000))
    even = rng.random(100_000)
    assert best_scale(np.append(bulk, 20.0), "x") < 0.8 * 20 / 127
    assert best_scale(even, "x") == pytest.approx(even.max() / 127, rel=0.02)
    assert best_scale(np.zeros(5), "x") == 1.0


def test_a_network_of_one_feature_can_be_calibrated():
    spec = NetworkSpec("none", (1, 1), (1,), "max_pool")
    network = fold(spec, random_weights(spec))
    assert calibrate(network, noise_episodes()).inputs
