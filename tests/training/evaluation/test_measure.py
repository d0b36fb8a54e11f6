"""Queries, supports and baselines are the same whatever runs; absent targets are measured by what is marked."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch", reason="torch is not installed: pip install torch")
pytest.importorskip("yaml", reason="data sets are YAML: pip install '.[train]'")
pytest.importorskip("scipy", reason="scipy is not installed: pip install '.[train]'")

from universeg_rt.errors import InputError
from universeg_rt.training.evaluation.measure import ABSENT, digest_of, measure, scored
from universeg_rt.training.evaluation.protocol import CLOSED, GROUPS, Protocol, cases, check_open, files_of
from universeg_rt.training.tasks.datasets import Absent

pytestmark = pytest.mark.torch


def test_support_and_queries_come_from_different_subjects_and_more_helps(made):
    task, oracle = made.task(), made.oracle()
    found = measure({"exact": oracle}, task, Protocol((1, 8, 64), (1, 5)))
    pool, asked = task.split("support"), task.split("dev")
    assert not set(pool.subjects) & set(asked.subjects) and set(found.subjects) == set(asked.subjects)
    assert {n for n, _ in oracle.prepared} == {len(pool)}
    assert all(e.replacement and e.members == 5 for _, e in oracle.prepared)
    assert len({e.seed for _, e in oracle.prepared}) == len(oracle.prepared), "every query draws its own supports"
    mean = found.values["dice"][:, 0].mean(axis=0).reshape(3, 2)
    assert (np.diff(mean, axis=0) > 0).all() and (mean[:, 1] > mean[:, 0]).all()
    again = measure({"exact": made.oracle()}, task, Protocol((1, 8, 64), (1, 5)))
    assert all(np.array_equal(again.values[name], v, equal_nan=True) for name, v in found.values.items())


def test_both_kinds_and_the_baselines_meet_the_same_supports(made):
    task, first, second = made.task(), made.oracle(), made.oracle()
    found = measure({"exact": first, "static": second}, task, Protocol((4,), (2,)))
    assert found.methods == ("exact", "static", "atlas", "copy")
    assert [e for _, e in first.prepared] == [e for _, e in second.prepared]
    dice = found.values["dice"][:, :, 0]
    assert np.array_equal(dice[:, 0], dice[:, 1])


def test_the_copy_is_of_an_entry_that_the_query_was_given(made):
    task, oracle = made.task(), made.oracle()
    found = measure({"exact": oracle}, task, Protocol((3,), (1,)))
    for number, case in enumerate(cases(task, Protocol((3,), (1,)))):
        indices = oracle.prepared[number][1].draw(len(case.pool.labels))[0][0]
        alike = [np.corrcoef(case.image.ravel(), case.pool.images[i].ravel())[0, 1] for i in indices]
        label = case.pool.labels[indices[int(np.argmax(alike))]]
        expected = 2 * (label & case.truth).sum() / (label.sum() + case.truth.sum())
        assert found.values["dice"][number, 2, 0] == pytest.approx(expected)


def test_leaving_one_subject_out_every_image_is_a_query_and_never_its_own_support(made):
    task, oracle = made.task(6), made.oracle()
    found = measure({"exact": oracle}, task, Protocol((4,), (1,), leave_one_out=True))
    assert sorted(found.subjects) == sorted(task.subjects) and {n for n, _ in oracle.prepared} == {4}
    assert len(measure({}, task, Protocol((4,), (1,))).subjects) < len(found.subjects) == 6


def test_dev_and_test_together_are_both(made):
    task = made.task()
    asked = {split: set(measure({}, task, Protocol((2,), (1,), splits=split)).subjects)
             for split in (("dev",), ("test",), ("dev", "test"))}
    assert asked["dev", "test"] == asked["dev",] | asked["test",] and not asked["dev",] & asked["test",]


def test_an_absent_target_is_measured_by_the_area_that_is_marked(made):
    task = made.task()
    support, dev = (set(task.split(name).subjects) for name in ("support", "dev"))
    black = np.zeros((3, *task.images.shape[1:]), np.uint8)
    black[1, :4] = 255
    absent = Absent(black, np.array([min(dev), "elsewhere", min(support)]))
    found = measure({"exact": made.oracle()}, task, Protocol((64,), (5,)), absent)
    assert len(found.subjects) == len(task.split("dev")) + 2 and min(support) not in found.subjects
    area = dict(zip(found.subjects[~found.present], found.values[ABSENT][~found.present, 0, 0]))
    assert area[min(dev)] == 0 and 0 < area["elsewhere"] <= 4 / 40
    assert np.isnan(found.values[ABSENT][found.present]).all() and digest_of(task) != digest_of(task, absent)


def test_scores_of_a_known_mask():
    truth = np.zeros((20, 20), bool)
    truth[5:15, 5:15] = True
    probability = np.where(np.roll(truth, 2, 1), 0.75, 0.0)
    found = scored(probability, 0.5, truth)
    assert found["dice"] == pytest.approx(0.8) and found["hd95"] == 2 and found["nsd"] == 1
    assert found["area_error"] == 0 and found["confidence"] == pytest.approx(2 * 75 / 175) and ABSENT not in found
    assert scored(probability, 0.8, truth)["dice"] == 0
    assert scored(probability, 0.5, np.zeros_like(truth)) == {ABSENT: 0.25}


def test_the_closed_group_opens_by_intent_and_on_record(tmp_path):
    tune, report = files_of("tune", []), files_of(CLOSED, [])
    assert len(tune) >= 8 and len(report) >= 15 and {f.parent for f in report} == {GROUPS / CLOSED}
    check_open(tune, False, False)
    check_open(report, True, True)
    link = tmp_path / "mine.yaml"
    link.symlink_to(report[0])
    for files in (report, [*tune, report[0]], [link]):
        with pytest.raises(InputError, match="--open-report"):
            check_open(files, False, True)
    with pytest.raises(InputError, match="goes on record"):
        check_open(report, True, False)
    with pytest.raises(InputError, match="--group"):
        files_of(None, [])


@pytest.mark.parametrize("wrong", [{"members": ()}, {"support_sizes": (0,)}, {"queries": 0}, {"splits": ("support",)},
                                   {"splits": ()}])
def test_a_wrong_protocol_is_refused(wrong):
    with pytest.raises(InputError):
        Protocol(**wrong)


def test_policies_give_the_query_and_the_baselines_what_they_say(made):
    task, oracle = made.task(), made.oracle()
    pool = task.split("support")
    protocol = Protocol((3, 64), (1, 2), policy="nearest")
    found = measure({"exact": oracle}, task, protocol)
    sizes = {(e.members, e.support_size) for _, e in oracle.prepared}
    assert sizes == {(k, s) for k in (1, 2) for s in (3, len(pool))}, "a set holds each entry once"
    assert all(e.policy == "nearest" and not e.replacement for _, e in oracle.prepared)
    alike = [np.corrcoef(case.image.ravel(), image.ravel())[0, 1] for case in cases(task, protocol)
             for image in case.pool.images]
    best = np.reshape(alike, (-1, len(pool))).argmax(axis=1)
    for number, case in enumerate(cases(task, protocol)):
        label = case.pool.labels[best[number]]
        expected = 2 * (label & case.truth).sum() / (label.sum() + case.truth.sum())
        assert found.values["dice"][number, 2, 2] == pytest.approx(expected), "of all entries the copy is of the best"
    with pytest.raises(InputError, match="policy is 'best'; accepted: random, nearest, all"):
        Protocol(policy="best")


def test_all_is_run_once_for_every_size_and_member(made):
    task = made.task()

    class Everything(made.oracle):
        def member_probabilities(self, image):
            return (image > 128).astype(float)[None]

    oracle = Everything()
    found = measure({"exact": oracle}, task, Protocol((3, 64), (1, 2), policy="all"))
    assert len(oracle.prepared) == len(found.subjects) and {e.policy for _, e in oracle.prepared} == {"all"}
    assert (found.values["dice"][:, 0] == 1).all()
