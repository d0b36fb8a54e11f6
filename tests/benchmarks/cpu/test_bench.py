"""`universeg-bench` runs whole on a small network and writes all that it promises; no figure is judged."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest

pytest.importorskip("torch", reason="the reference needs torch")
pytest.importorskip("onnx", reason="exporting needs onnx")

from universeg_rt.benchmarks.cpu import bench, run
from universeg_rt.benchmarks.cpu.child import Child, Died
from universeg_rt.benchmarks.cpu.first_mask import seconds_to_first_mask
from universeg_rt.benchmarks.cpu.sides import Files, Skipped
from universeg_rt.benchmarks.harness.case import Case
from universeg_rt.benchmarks.harness.report import ratios, statistics
from universeg_rt.errors import ParityError, RunnerError
from universeg_rt.runners import RUNNERS

pytestmark = [pytest.mark.torch, pytest.mark.slow]


@pytest.fixture(scope="module")
def options(small_bundle):
    return ["--bundle", str(small_bundle), "--size", "32", "--repeats", "2", "--threads", "1"]


SIDES = ["reference", "reference-kept", "plain", "folded-onnxruntime", "ours"]


@pytest.fixture(scope="module")
def results(options, tmp_path_factory):
    pytest.importorskip("matplotlib", reason="the plot needs matplotlib: pip install '.[bench]'")
    folder = tmp_path_factory.mktemp("results")
    sizes = ["--support-sizes", "1", "3", "--limit", "reference=1"]
    assert bench.main([*options, *sizes, "--sides", *SIDES, "--starts", "1", "--output", str(folder)]) == 0
    return folder


def test_every_side_is_measured_and_compared(results):
    result = json.loads((results / bench.JSON).read_text())
    assert [case["support_size"] for case in result["cases"]] == [1, 3]
    assert result["environment"]["threads"] == 1 and result["environment"]["processor"]
    for case in result["cases"]:
        assert case["matrix_flop_per_s"]["min"] > 0
        ran = {name: row for name, row in case["sides"].items() if "skipped" not in row}
        expected = {"reference-kept", "plain", "folded-onnxruntime", "ours-onnxruntime"
                    } | ({"reference"} if case["support_size"] == 1 else set())
        assert expected <= set(ran)
        for row in ran.values():
            n = row["network"]
            assert 0 < n["min"] <= n["p50"] <= n["p90"] <= n["p99"] <= n["max"] and row["first_s"] > 0
            assert len(row["turns"]["network"]) == 2 and row["flop_per_s"] == pytest.approx(row["flop"] / n["p50"])
            assert row["peak_bytes"] is None or row["peak_bytes"] > 2e7
            if row["agreement"] is not None:
                assert row["agreement"]["largest_logit_error"] < 1e-3
            for base, values in row["ratios"].items():
                turns = np.array(ran[base]["turns"]["network"]) / row["turns"]["network"]
                assert values["min"] == pytest.approx(turns.min()) and values["max"] == pytest.approx(turns.max())
    reference = result["cases"][0]["sides"]["reference"]
    assert reference["agreement"] is None and set(reference["ratios"]) == {"reference-kept", "plain"}
    assert "limited to 1" in result["cases"][1]["sides"]["reference"]["skipped"]


def test_ours_is_split_into_parts_and_held_against_the_estimate(results):
    result = json.loads((results / bench.JSON).read_text())
    row = result["cases"][1]["sides"]["ours-onnxruntime"]
    turns = row["turns"]
    for i in range(2):
        assert turns["network"][i] == pytest.approx(turns["prepare"][i] + turns["run"][i])
        assert turns["preprocess"][i] + turns["network"][i] + turns["postprocess"][i] <= turns["total"][i]
    estimate = row["estimate"]
    assert estimate["seconds"] > 0 and estimate["bytes"] > 0 and estimate["measured_seconds"] == row["parts"]["run"][
        "p50"]
    start = result["starts"][0]["sides"]["ours-onnxruntime"]
    assert result["starts"][0]["support_size"] == 16 and start["p50"] > 0 and len(start["seconds"]) == 2


def test_table_and_plot(results):
    text = (results / bench.TABLE).read_text()
    for words in ("| 1 | reference |", "| 3 | plain |", "| 3 | ours-onnxruntime |", "- reference at S = 3 not run",
                  "process start to first mask"):
        assert words in text
    assert (results / bench.PLOT).read_bytes().startswith(b"\x89PNG")


def test_results_of_several_runs_are_put_together(results, tmp_path, capsys):
    first = json.loads((results / bench.JSON).read_text())
    second = {**first, "cases": [{**first["cases"][0], "support_size": 9}], "starts": []}
    other = {**first, "environment": {**first["environment"], "processor": "another"}}
    for name, value in (("a", first), ("b", second), ("c", other)):
        (tmp_path / name).write_text(json.dumps(value))
    assert bench.main(["--from", str(tmp_path / "b"), str(tmp_path / "a"), "--output", str(tmp_path / "out")]) == 0
    merged = json.loads((tmp_path / "out" / bench.JSON).read_text())
    assert [case["support_size"] for case in merged["cases"]] == [1, 3, 9] and len(merged["starts"]) == 1
    assert bench.main(["--from", str(tmp_path / "a"), str(tmp_path / "c")]) == 1
    assert "another machine" in capsys.readouterr().err
    (tmp_path / "c").write_text("{}")
    assert bench.main(["--from", str(tmp_path / "c")]) == 1
    assert "is no result of universeg-bench" in capsys.readouterr().err


@pytest.mark.parametrize("extra, message", [
    (["--repeats", "0"], "--repeats is 0"),
    (["--threads", "0"], "--threads is 0"),
    (["--support-sizes", "4", "0"], "--support-sizes is 0"),
    (["--members", "-1"], "--members is -1"),
    (["--starts", "-1"], "--starts is -1"),
    (["--size", "33"], "multiple of 4"),
    (["--sides", "theirs"], "--sides theirs is unknown; accepted: all, ours, reference"),
    (["--sides", "ours-onnxruntime-int8"], "has fp32 models only"),
    (["--limit", "reference"], "give SIDE=S"),
    (["--bundle", "nowhere"], "no bundle at nowhere"),
])
def test_bad_options_are_one_line(options, capsys, extra, message):
    assert bench.main([*options, *extra]) == 1
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_a_side_that_differs_is_not_timed():
    logits = {
        "reference": np.zeros((1, 1, 1, 8, 8)), "ours-x": np.full((1, 1, 1, 8, 8), 2e-3), "ours-x-int8": np.ones(
            (1, 1, 1, 8, 8))
    }
    with pytest.raises(ParityError, match="ours-x differs from reference by 0.002"):
        run._compare({name: {} for name in logits}, logits)
    rows = {name: {} for name in logits if name != "ours-x"}
    run._compare(rows, {name: logits[name] for name in rows})
    assert rows["ours-x-int8"]["agreement"] == {
        "against": "reference", "largest_logit_error": 1.0, "flipped_pixels": 1.0
    }
    with pytest.raises(ParityError):
        run._compare({"reference": {}, "plain": {}},
                     {"reference": logits["reference"], "plain": np.full((1, 1, 1, 8, 8), np.nan)})


def test_what_cannot_run_or_dies_says_why(small_bundle):
    case = Case(1, 1, 1, 32, 1)
    files = Files(small_bundle, small_bundle / "no.onnx", small_bundle / "no.onnx")
    with pytest.raises(Died, match="no.onnx"):
        Child("plain", files, case)
    with pytest.raises(Skipped, match="there is none here"):
        Child("compiled", files, case, environment={"PATH": ""})
    child = Child("ours-onnxruntime", files, case)
    child._process.kill()
    with pytest.raises(Died, match="ended with status"):
        child.call()
    child.close()


@pytest.mark.parametrize("name", ["ours-" + runner for runner in RUNNERS])
def test_ours_in_a_process_gives_what_the_sdk_gives_here(small_bundle, name):
    from universeg_rt import Segmenter

    case = Case(3, 2, 2, 32, 1)
    files = Files(small_bundle, small_bundle / "no.onnx", small_bundle / "no.onnx")
    try:
        child = Child(name, files, case)
    except Skipped as reason:
        pytest.skip(str(reason))
    child.call()
    logits = child.logits()
    child.close()
    assert logits.shape == (2, 2, 1, 32, 32)
    predictions = Segmenter.open(small_bundle).prepare(case.support, case.ensemble).predict_batch(case.images)
    for found, prediction in zip(1 / (1 + np.exp(-logits[:, :, 0].astype(float))), predictions):
        assert np.abs(found.mean(axis=0) - prediction.probability).max() < 1e-4


def test_a_start_that_fails_says_why(tmp_path):
    with pytest.raises(RunnerError, match="before its first mask: .*no bundle at"):
        seconds_to_first_mask(tmp_path / "no", "onnxruntime", "fp32", Case(2, 1, 1, 32, 1), tmp_path)


def test_the_inputs_are_the_same_for_every_side():
    case, again = Case(3, 2, 1, 32, 1), Case(3, 2, 1, 32, 2)
    sets, images = case.sets(), case.on_grid()
    assert all(np.array_equal(a, b) for a, b in zip(sets + images, again.sets() + again.on_grid()))
    assert len(case.support) == 6 and [s.shape for s in sets] == [(3, 2, 32, 32)] * 2
    assert not np.array_equal(*sets) and images[0].min() == 0 and images[0].max() == 1
    assert 0.05 < sets[0][:, 1].mean() < 0.5


def test_statistics_and_ratios_of_turns():
    assert statistics(
        [3.0, 1.0, 2.0]) == {"p50": 2.0, "p90": pytest.approx(2.8), "p99": pytest.approx(2.98), "min": 1.0, "max": 3.0}
    # The ratio of each turn, not of the medians: a slow moment that meets both sides cancels.
    assert ratios([10.0, 40.0, 12.0], [1.0, 4.0, 1.0]) == {"p50": 10.0, "min": 10.0, "max": 12.0}


def test_importing_the_command_loads_no_engine():
    import subprocess

    code = ("import sys, universeg_rt.benchmarks.cpu.bench\n"
            "print([m for m in ('torch', 'onnx', 'onnxruntime', 'openvino') if m in sys.modules])")
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True,
                          check=True).stdout.strip() == "[]"
