"""Fig. 8: pools drawn without replacement and used whole, nested, summarised over repetitions, and as a command."""

from __future__ import annotations

import json

import numpy as np
import pytest

pytest.importorskip("torch", reason="torch is not installed: pip install torch")
pytest.importorskip("yaml", reason="data sets are YAML: pip install '.[train]'")

from universeg_rt.training.evaluation.evaluate import main
from universeg_rt.training.evaluation.pools import PoolProtocol, evaluate_pools, pool_table, summarise_pools
from universeg_rt.training.tasks.tasks import Task

from universeg_rt.errors import InputError

from ...conftest import discs
from .discs import on_discs

pytestmark = pytest.mark.torch


class Counter:
    """Stands in for a Segmenter: notes every support, and is right in a share of pixels that grows with its size."""

    def __init__(self):
        self.supports = []

    def prepare(self, support, ensemble=None):
        assert ensemble is None, "a pool is used whole"
        self.supports.append({i.tobytes() for i in support.images})
        self.size = len(support)
        return self

    def member_probabilities(self, image):
        wrong = np.random.default_rng(len(self.supports)).random(image.shape) < 0.5 / self.size
        return np.where(wrong, 0.0, image > 128)[None]


def make_task(count=30, name="t"):
    images, labels = discs(count)
    labels = labels.astype(np.uint8)
    images = labels * 200 + np.arange(count, dtype=np.uint8)[:, None, None]  # every image differs
    return Task(name, images, labels, np.array([f"s{i}" for i in range(count)]), "d")


def test_pools_are_nested_drawn_without_replacement_and_more_helps():
    task, counter = make_task(), Counter()
    support = {i.tobytes() for i in task.split("support").images}
    scores = evaluate_pools(counter, task, PoolProtocol((1, 4, 16, 64), 3))
    assert scores.shape == (4, 3) and np.isnan(scores[3]).all() and not np.isnan(scores[:3]).any()
    assert [len(s) for s in counter.supports] == [1, 4, 16] * 3 and all(s <= support for s in counter.supports)
    assert all(counter.supports[i] < counter.supports[i + 1] for i in (0, 1, 3, 4, 6, 7))
    assert counter.supports[0] != counter.supports[3], "each repetition draws its own"
    assert (np.diff(scores[:3].mean(1)) > 0).all()
    assert np.array_equal(evaluate_pools(Counter(), task, PoolProtocol((1, 4, 16, 64), 3)), scores, equal_nan=True)


def test_the_summary_is_over_repetitions_and_tasks_of_a_data_set():
    scores = {"a": np.array([[0.2, 0.4], [np.nan, np.nan]]), "b": np.array([[0.6, 0.6], [np.nan, np.nan]])}
    protocol = PoolProtocol((1, 64), 2)
    summary = summarise_pools(scores, {"a": "x", "b": "x"}, protocol)
    assert summary["datasets"]["x"]["cells"] == [
        pytest.approx({"pool": 1, "dice": 0.45, "spread": 0.05, "least": 0.4, "largest": 0.5})
    ]
    text = pool_table(summary, protocol.sizes)
    assert "| a | 0.300 ± 0.100 | – |" in text and "**x**, mean of its tasks" in text


def test_the_command(tmp_path, small_bundle, capsys):
    pytest.importorskip("matplotlib", reason="the plot needs matplotlib")
    command = [*on_discs(tmp_path, small_bundle), "--repetitions", "2"]
    assert main(
        [*command, "--pools", "1", "3", "99", "--output",
         str(tmp_path / "p.json"), "--plot",
         str(tmp_path / "p.png")]) == 0
    out = json.loads((tmp_path / "p.json").read_text())
    assert [c["pool"] for c in out["tasks"]["disc"]["cells"]] == [1, 3] and out["protocol"]["repetitions"] == 2
    assert (tmp_path / "p.png").read_bytes()[:4] == b"\x89PNG" and "N = 99" in capsys.readouterr().out
    assert main([*command, "--pools", "0"]) == 1 and "pool sizes are [0]" in capsys.readouterr().err
    with pytest.raises(InputError):
        PoolProtocol(repetitions=0)
