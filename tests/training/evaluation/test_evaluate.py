"""The evaluation: its protocol on tasks whose answer is known, its bootstrap, and the command."""

from __future__ import annotations

import json

import numpy as np
import pytest

pytest.importorskip("torch", reason="torch is not installed: pip install torch")
pytest.importorskip("yaml", reason="data sets are YAML: pip install '.[train]'")

from universeg_rt.training.evaluation import evaluate
from universeg_rt.training.evaluation.evaluate import Protocol, TaskScores, evaluate_task, main, summarise, table
from universeg_rt.training.tasks.tasks import Task

from universeg_rt.errors import InputError

from ...conftest import discs
from .discs import on_discs

pytestmark = pytest.mark.torch


class Oracle:
    """Stands in for a Segmenter: members that are right with a probability which grows with the support size."""

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


def make_task(count=20, name="t", dataset="d"):
    labels = discs(count)[1].astype(np.uint8)
    return Task(name, labels * 255, labels, np.array([f"s{i // 2}" for i in range(count)]), dataset)


def test_support_and_queries_come_from_different_subjects_and_more_helps():
    task, oracle = make_task(), Oracle()
    scores = evaluate_task(oracle, task, Protocol((1, 8, 64), (1, 5)))
    pool, test = task.split("support"), task.split("test")
    assert not set(pool.subjects) & set(test.subjects) and set(scores.subjects) == set(test.subjects)
    assert {n for n, _ in oracle.prepared} == {len(pool)}
    assert all(e.replacement and e.members == 5 for _, e in oracle.prepared)
    assert len({e.seed for _, e in oracle.prepared}) == len(oracle.prepared), "every query draws its own supports"
    mean = scores.dice.mean(axis=0)
    assert (np.diff(mean, axis=0) > 0).all() and (mean[:, 1] > mean[:, 0]).all()
    again = evaluate_task(Oracle(), task, Protocol((1, 8, 64), (1, 5)))
    assert np.array_equal(again.dice, scores.dice)


def test_means_are_over_images_then_tasks_then_data_sets():
    def scores(task, dataset, values):
        return TaskScores(task, dataset, np.arange(len(values)), np.array(values)[:, None, None])

    results = [scores("a", "x", [0.2, 0.4]), scores("b", "x", [0.9] * 5), scores("c", "y", [0.5])]
    summary = summarise(results, Protocol(bootstrap=50))
    assert summary["tasks"]["a"]["cells"][0]["dice"] == pytest.approx(0.3)
    assert summary["datasets"]["x"]["cells"][0]["dice"] == pytest.approx(0.6)
    assert summary["overall"]["cells"][0]["dice"] == pytest.approx(0.55)
    assert summary["tasks"]["b"]["cells"][0]["spread"] == pytest.approx(0)
    assert "**x**, mean of its tasks" in table(summary) and "0.550" in table(summary)


def test_the_bootstrap_draws_subjects_not_images():
    values = np.random.default_rng(0).random(40)
    alone = TaskScores("t", "d", np.arange(40), values[:, None, None])
    doubled = TaskScores("t", "d", np.repeat(np.arange(40), 3), np.repeat(values, 3)[:, None, None])
    protocol = Protocol(bootstrap=2000)
    spreads = [summarise([r], protocol)["overall"]["cells"][0]["spread"] for r in (alone, doubled)]
    assert spreads[0] == pytest.approx(values.std() / np.sqrt(40), rel=0.1)
    assert spreads[1] == pytest.approx(spreads[0], rel=0.1), "copies of a subject's images add no certainty"


def test_the_command_on_a_bundle(tmp_path, small_bundle, capsys):
    pytest.importorskip("matplotlib", reason="the plot needs matplotlib")
    arguments = [*on_discs(tmp_path, small_bundle), "--support-sizes", "1", "4", "--members", "1", "2",
                 "--bootstrap", "20", "--output", str(tmp_path / "e.json"), "--plot", str(tmp_path / "e.png")]
    assert main(arguments) == 0
    out = json.loads((tmp_path / "e.json").read_text())
    assert [(c["support_size"], c["members"]) for c in out["overall"]["cells"]] == [(1, 1), (1, 2), (4, 1), (4, 2)]
    assert all(0 <= c["dice"] <= 1 and c["spread"] >= 0 for c in out["overall"]["cells"])
    assert out["tasks"]["disc"]["queries"] == 4 and len(out["bundle"]["sha256"]) == 64
    assert (tmp_path / "e.png").read_bytes()[:4] == b"\x89PNG" and "| disc | 4 |" in capsys.readouterr().out


@pytest.mark.parametrize("extra, message", [
    (["--support-sizes", "0"], "support_sizes is [0]"), (["--tasks", "moon"], "no tasks moon; there are disc"),
    (["--runner", "abacus"], "runner is 'abacus'"), (["--bootstrap", "0"], "must be positive"),
])
def test_errors_are_one_line(tmp_path, small_bundle, capsys, extra, message):
    assert main([*on_discs(tmp_path, small_bundle), *extra]) == 1
    err = capsys.readouterr().err.strip()
    assert message in err and "\n" not in err


def test_without_data_it_says_so(capsys, monkeypatch, tmp_path):
    monkeypatch.delenv("UNIVERSEG_RT_DATA", raising=False)
    assert main([str(tmp_path / "x.yaml")]) == 1
    assert "--data-root or UNIVERSEG_RT_DATA" in capsys.readouterr().err
    with pytest.raises(InputError):
        evaluate.Protocol(members=())


def test_leaving_one_subject_out_every_image_is_a_query_and_never_its_own_support():
    task, oracle = make_task(6), Oracle()
    scores = evaluate_task(oracle, task, Protocol((4,), (1,), leave_one_out=True))
    assert sorted(scores.subjects) == sorted(task.subjects) and {n for n, _ in oracle.prepared} == {4}
    test_only = evaluate_task(Oracle(), task, Protocol((4,), (1,)))
    assert len(test_only.dice) < len(scores.dice) == 6
