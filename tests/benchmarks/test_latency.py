"""The latency command runs whole at a small size and writes all that it promises; no figure is judged."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("torch", reason="the reference side needs torch")
pytest.importorskip("onnx", reason="emitting the models needs onnx")

from universeg_rt.benchmarks.latency import main

pytestmark = pytest.mark.torch


def test_the_command(tmp_path, capsys):
    output = tmp_path / "latency.json"
    arguments = ["--support-sizes", "1", "3", "--reference-limit", "1", "--repeats", "2", "--size", "32", "--output", str(output)]
    assert main(arguments) == 0
    result = json.loads(output.read_text())
    sides = [(r["support_size"], r["side"]) for r in result["rows"]]
    assert sides == [(1, "reference"), (1, "ours"), (3, "ours")]
    for row in result["rows"]:
        assert row["fastest_s"] <= row["median_s"] <= row["slowest_s"] and row["gflop"] > 0 and row["peak_mb"] > 20
    assert result["rows"][1]["speedup"] > 0
    assert result["environment"]["processor"] and result["matrix_product_gflop_per_s"] > 0
    assert "| 1 | ours |" in capsys.readouterr().out


def test_bad_options(capsys):
    assert main(["--repeats", "0"]) == 1
    assert "must be positive" in capsys.readouterr().err
