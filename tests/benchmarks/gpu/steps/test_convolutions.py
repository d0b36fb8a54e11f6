"""Rates of the network's convolutions, at toy sizes on the CPU."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("torch", reason="the rates are PyTorch's")

from universeg_rt.benchmarks.gpu.steps import convolutions
from universeg_rt.spec import NetworkSpec

pytestmark = pytest.mark.torch


def test_every_shape_is_measured_in_every_type_and_layout(tmp_path):
    out = tmp_path / "convolutions.json"
    assert convolutions.main(["--out", str(out), "--device", "cpu", "--support-size", "1", "--size", "16"]) == 0
    values = json.loads(out.read_text())
    shapes = convolutions.shapes(NetworkSpec.preset("v1"), 16, 1)
    measured = {(r["maps"], r["inputs"], r["outputs"], r["side"], r["precision"], r["layout"]) for r in values["rows"]}
    assert measured == {(*shape, precision, layout) for shape in shapes for precision in ("fp32", "tf32", "fp16")
                        for layout in ("nchw", "nhwc")}
    assert values["whole"] and all(row["seconds"] > 0 and row["flop_per_second"] > 0 for row in values["rows"])


def test_out_of_time_it_keeps_what_it_has_and_says_so(tmp_path):
    out = tmp_path / "convolutions.json"
    assert convolutions.main(["--out", str(out), "--device", "cpu", "--time-limit", "-1"]) == 1
    assert json.loads(out.read_text()) == {"rows": [], "whole": False}
