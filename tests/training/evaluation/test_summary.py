"""Means, intervals, verdicts and tables of made-up measures; results that are written, read and gone on with."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("torch", reason="torch is not installed: pip install torch")
pytest.importorskip("yaml", reason="data sets are YAML: pip install '.[train]'")
pytest.importorskip("scipy", reason="scipy is not installed: pip install '.[train]'")

from universeg_rt.errors import InputError
from universeg_rt.imaging.metrics import calibration_bins
from universeg_rt.training.evaluation.measure import ABSENT
from universeg_rt.training.evaluation.protocol import Protocol
from universeg_rt.training.evaluation.record import read_results, this_run, write_results
from universeg_rt.training.evaluation.summary import csv_text, measures_table, summarise, table

pytestmark = pytest.mark.torch

ONE = Protocol((16,), (1,))


def cell(summary, task=None, dataset=None):
    entry = summary["tasks"][task] if task else summary["datasets"][dataset] if dataset else summary["overall"]
    return entry["cells"][0]["methods"]


def test_means_are_over_images_then_tasks_then_data_sets(made):
    results = [made.measured("a", "x", "pq", [0.2, 0.4]), made.measured("b", "x", "pqrst", 0.9),
               made.measured("c", "y", "z", 0.5)]
    summary = summarise(results, ONE)
    assert cell(summary, "a")["exact"]["dice"] == pytest.approx(0.3)
    assert cell(summary, dataset="x")["exact"]["dice"] == pytest.approx(0.6)
    assert cell(summary)["exact"]["dice"] == pytest.approx(0.55)
    assert "**x**, mean of its tasks" in table(summary) and "0.550 -" in table(summary)


def test_an_interval_is_over_subjects_and_refused_under_three(made):
    few = summarise([made.measured("a", "x", ["p", "q"] * 10, np.linspace(0, 1, 20))], ONE)
    assert cell(few, "a")["exact"]["low"] is None and cell(few, "a")["exact"]["verdict"] == "too few subjects"
    assert "| a | 20 | 2 | 0.500 - |" in table(few)
    values = np.array([0.2, 0.4, 0.6, 0.8])
    many = cell(summarise([made.measured("a", "x", list("pqrs"), values)], ONE), "a")["exact"]
    reach = 3.182446 * values.std(ddof=1) / 2
    assert many["low"] == pytest.approx(0.5 - reach, abs=1e-5) and many["high"] == pytest.approx(0.5 + reach, abs=1e-5)
    wide = cell(summarise([made.measured("a", "x", list("pqr"), [0.1, 0.9, 0.9])], ONE), "a")["exact"]
    assert (wide["low"], wide["high"]) == (0, 1), "a Dice ends at 0 and 1"


def test_a_data_sets_interval_counts_a_subject_once_over_its_tasks(made):
    random = np.random.default_rng(0)
    subjects, values = [f"s{i}" for i in range(6)], random.random(6)
    one = summarise([made.measured("a", "x", subjects, values)], ONE)
    same = summarise([made.measured(t, "x", subjects, values) for t in "ab"], ONE)
    assert cell(same, dataset="x")["exact"]["low"] == pytest.approx(cell(one, dataset="x")["exact"]["low"])


def test_above_is_above_both_in_paired_differences(made):
    random = np.random.default_rng(1)
    subjects, level = [f"s{i}" for i in range(12)], random.random(12) * 0.8
    def verdict(exact, atlas, copy):
        return cell(summarise([made.measured("a", "x", subjects, exact, atlas, copy)], ONE), "a")["exact"]

    above = verdict(level + 0.1 + random.normal(0, 0.01, 12), level, level)
    assert above["verdict"] == "above" and above["over"]["atlas"]["dice"] == pytest.approx(0.1, abs=0.02)
    assert above["low"] < level.mean() + level.std() / 3, "its own interval alone would not tell"
    assert verdict(level + 0.1, level, level + 0.1)["verdict"] == "not above", "the copy is as good"
    assert verdict(level + random.normal(0, 0.05, 12), level, level)["verdict"] == "not above"
    assert verdict(level, level + 0.1, level - 0.1)["verdict"] == "not above"


def test_measures_of_a_task(made):
    result = made.measured("a", "x", [f"s{i}" for i in range(20)], np.arange(20) / 20)
    bins = result.bins.copy()
    bins[0, 0] = calibration_bins(np.full(10, 0.8), np.arange(10) < 3)
    area = result.values["area_error"].copy()
    area[:, 0, 0] = np.where(np.arange(20) % 2, -0.25, 0.25)
    changed = replace(result, bins=bins, values={**result.values, "area_error": area})
    found = cell(summarise([changed], ONE), "a")["exact"]
    assert found["median"] == pytest.approx(9.5 / 20) and found["worst_decile"] == pytest.approx(0.025)
    assert found["ece"] == pytest.approx(0.5) and found["area_error"] == pytest.approx(0.25)
    assert found["failures"] == 10 and found["auroc"] == 1 and ABSENT not in found


def test_absent_queries_count_in_their_own_column_alone(made):
    result = made.measured("a", "x", list("pqrstu"), [0.5, 0.7, 0.9, np.nan, np.nan, np.nan], 0.1, 0.1)
    values = {name: v.copy() for name, v in result.values.items()}
    for name, v in values.items():
        v[3:] = 0.25 if name == ABSENT else np.nan
    summary = summarise([replace(result, values=values)], ONE)
    assert cell(summary, "a")["exact"]["dice"] == pytest.approx(0.7) and cell(summary, "a")["exact"][ABSENT] == 0.25
    entry = summary["tasks"]["a"]
    assert (entry["queries"], entry["absent"], entry["subjects"]) == (3, 3, 3)
    assert "false-positive area" in measures_table(summary) and "0.2500" in measures_table(summary)


def test_the_csv_has_a_row_a_method(made):
    summary = summarise([made.measured("a", "x", list("pqrs"), [0.5, 0.6, 0.7, 0.8], 0.1, 0.2)], ONE)
    rows = list(csv.DictReader(io.StringIO(csv_text(summary))))
    assert [r["method"] for r in rows] == ["exact", "atlas", "copy"] and rows[0]["verdict"] == "above"
    assert float(rows[0]["over_copy"]) == pytest.approx(0.45) and rows[1]["verdict"] == "" and rows[1]["dice"] == "0.1"


def test_results_are_read_as_they_were_written(made, tmp_path):
    result = made.measured("a", "x", list("pq"), [0.5, np.nan], 0.25)
    setup, runs = {"weights_sha256": "1", "protocol": {"seed": 0}}, [this_run(["universeg-evaluate", "my file"], True)]
    write_results(tmp_path / "r.json", setup, runs, [result], {"overall": {}})
    json.loads((tmp_path / "r.json").read_text(), parse_constant=pytest.fail)
    before, known = read_results(tmp_path / "r.json", setup)
    assert before == runs and before[0]["opened_report"] and before[0]["command"] == "universeg-evaluate 'my file'"
    for name, value in result.values.items():
        assert np.array_equal(known["a"].values[name], value, equal_nan=True)
    assert np.array_equal(known["a"].subjects, result.subjects) and known["a"].methods == result.methods
    with pytest.raises(InputError, match="another protocol, weights_sha256"):
        read_results(tmp_path / "r.json", {"weights_sha256": "2", "protocol": {}})
    assert read_results(tmp_path / "none.json", setup) == ([], {})
    (tmp_path / "r.json").write_text("{}")
    with pytest.raises(InputError, match="cannot be read"):
        read_results(tmp_path / "r.json", setup)
